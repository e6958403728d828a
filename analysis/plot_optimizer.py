"""SGD, Adam and AdamW: training and test error over the iterations, one panel per net.

    python analysis/plot_optimizer.py

draws the finished full-length runs below --records to analysis/figures/optimizer.svg and .png: every recorded
learning rate of Adam and AdamW on a net, beside SGD at the paper's.
"""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from analysis import drawing
from analysis.command import end
from analysis.records import cells, load, select
from reproduce.config import Config

NETS = [
    *(Config(depth=depth, residual=residual) for residual in (True, False) for depth in (20, 32, 44, 56, 110)),
    Config(depth=32, augment=False),
]
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


def settings(runs: pd.DataFrame, net: Config) -> list[Config]:
    """SGD as in the paper, and whatever Adam and AdamW runs there are of a net, of any length."""
    others = pd.concat(
        [
            select(runs, replace(net, optimizer=optimizer), free=("lr", "weight_decay", "iterations", "dataset"))
            for optimizer in ("adam", "adamw")
        ]
    )
    found = cells(others[others["split"] == "full"])
    found = {replace(config, iterations=net.iterations, dataset=net.dataset) for config in found}
    return [net, *sorted(found, key=lambda config: (config.optimizer, config.lr or 0, config.weight_decay))]


def name(config: Config) -> str:
    """As it stands in the legend: Adam 0.001."""
    decay = "" if config.weight_decay == Config().weight_decay else f", decay {config.weight_decay:g}"
    return f"{OPTIMIZERS[config.optimizer]} {config.lr:g}{decay}"


def draw(runs: pd.DataFrame, curves: pd.DataFrame, data_set: str = "cifar10") -> Figure:
    """The figure: a panel for every net that has runs of Adam or AdamW, one colour per optimizer and learning rate.

    Raises:
        UserError: there is no such run.
    """
    found = {net: settings(runs, net) for net in NETS}
    others = [config for configs in found.values() for config in configs[1:]]
    drawing.choose(runs, others or [replace(NETS[0], optimizer="adam", lr=1e-3)], data_set, "optimizer")
    choice = drawing.choose(runs, [config for configs in found.values() for config in configs], data_set, "optimizer")
    found = {net: configs for net, configs in found.items() if any(config in choice.cells for config in configs[1:])}
    names = dict.fromkeys(name(config) for configs in found.values() for config in configs if config in choice.cells)
    colours = dict(zip(sorted(names, key=lambda text: not text.startswith("SGD")), drawing.PALETTE, strict=False))
    rows, columns = (len(found) + 1) // 2, min(len(found), 2)
    figure, panels = plt.subplots(
        rows, columns, figsize=(8, 0.9 + 2.9 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    for axes in panels.flat[len(found) :]:
        axes.remove()
    for (net, configs), axes in zip(found.items(), panels.flat, strict=False):
        title = f"{net.net}{'' if net.augment else ', no augmentation'}"
        drawing.draw_nets(
            axes, choice, curves, configs, title, {config: colours[name(config)] for config in choice.cells}
        )
    drawing.add_legend(figure, colours, columns=4)
    figure.suptitle(choice.remark, fontsize="small")
    return figure


def main(arguments: Sequence[str]) -> int:
    options = drawing.parse(arguments, __doc__, "optimizer")
    runs, curves = load(options.records)
    drawing.save(draw(runs, curves, options.data_set), options)
    return 0


if __name__ == "__main__":
    end(main)
