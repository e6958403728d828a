"""SGD, Adam and AdamW: training and test error over the iterations, one panel per net.

    python analysis/plot_optimizer.py

draws the finished full-length runs below --records to analysis/figures/optimizer.svg and .png: every recorded
learning rate of Adam and AdamW on a net, beside SGD at the paper's.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from analysis import drawing
from analysis.cli import run_script
from analysis.questions.optimizer import optimizer_settings
from reproduce.config import Config

OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


def name(config: Config) -> str:
    """As it stands in the legend: Adam 0.001."""
    decay = "" if config.weight_decay == Config().weight_decay else f", decay {config.weight_decay:g}"
    return f"{OPTIMIZERS.get(config.optimizer, config.optimizer)} {config.lr:g}{decay}"


def draw(runs: pd.DataFrame, curves: pd.DataFrame, dataset_info: str = "cifar10") -> Figure:
    """The figure: a panel for every net that has runs of Adam or AdamW, one colour per optimizer and learning rate.

    Raises:
        UserError: there is no such run.
    """
    # With another split the runs were for choosing a learning rate.
    settled = runs[(runs["split"] == "full") & (runs["dataset"] == dataset_info)]
    found = optimizer_settings(settled, free=("iterations", "dataset"))
    others = [config for configs in found.values() for config in configs[1:]]
    choice = drawing.choose_beside(runs, list(found), others or [Config(optimizer="adam")], dataset_info, "optimizer")
    found = {net: configs for net, configs in found.items() if any(config in choice.cells for config in configs[1:])}
    names = dict.fromkeys(name(config) for configs in found.values() for config in configs if config in choice.cells)
    palette = drawing.PALETTE if len(names) <= len(drawing.PALETTE) else sns.color_palette("husl", len(names))
    colours = dict(zip(sorted(names, key=lambda text: not text.startswith("SGD")), palette, strict=False))
    rows, columns = (len(found) + 1) // 2, min(len(found), 2)
    figure, panels = plt.subplots(rows, columns, figsize=(8, 0.9 + 2.9 * rows), squeeze=False, layout="constrained")
    for axes in panels.flat[len(found) :]:
        axes.remove()
    for (net, configs), axes in zip(found.items(), panels.flat, strict=False):
        title = f"{drawing.name_net(net)}{'' if net.augment else ', no augmentation'}"
        colour_of = {config: colours[name(config)] for config in configs if config in choice.cells}
        drawing.draw_nets(axes, choice, curves, configs, title, colour_of, may_hide=False)
    for axes in panels[:, 0]:
        axes.set_ylabel("error (%)")
    drawing.add_legend(figure, colours, columns=4)
    figure.suptitle(choice.remark, fontsize="small")
    return figure


def main(arguments: Sequence[str]) -> int:
    options = drawing.parse(arguments, __doc__, "optimizer")
    runs, curves = drawing.load_runs(options)
    drawing.save(draw(runs, curves, options.data_set), options)
    return 0


if __name__ == "__main__":
    run_script(main)
