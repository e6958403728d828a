"""Draw SGD, Adam and AdamW: training and test error, one panel per network.

    python analysis/plot_optimizer.py

Writes analysis/figures/optimizer.svg and .png from the finished runs (full-length ones if there are any): every recorded
learning rate of Adam and AdamW, and SGD with the paper's.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from analysis import drawing
from analysis.questions.optimizer import NAMES, name_network, optimizer_settings
from reproduce.cli import run_cli
from reproduce.config import Config


def draw(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw a panel for every network with runs of Adam or AdamW, one color per optimizer, learning rate and decay."""
    # Runs with a validation split only served to choose a learning rate.
    settings = optimizer_settings(runs[(runs["split"] == "full") & (runs["dataset"] == "cifar10")], free=("iterations",))
    selection = drawing.select_for_figure(runs, [config for configs in settings.values() for config in configs], "optimizer")
    drawn = {net: [config for config in configs if config in selection.runs] for net, configs in settings.items()}
    drawn = {net: configs for net, configs in drawn.items() if set(configs) - {net}}
    if not drawn:
        raise drawing.no_runs_error("sweep.py optimizer")
    names = list(dict.fromkeys(name_setting(config) for configs in drawn.values() for config in configs))
    colors = dict(zip(names, sns.color_palette("colorblind" if len(names) <= 10 else "husl", len(names)), strict=True))
    rows, columns = (len(drawn) + 1) // 2, min(len(drawn), 2)
    figure, panels = plt.subplots(rows, columns, figsize=(8, 0.9 + 3.2 * rows), squeeze=False, layout="constrained")
    for axes in panels.flat[len(drawn) :]:
        axes.remove()
    for (net, configs), axes in zip(drawn.items(), panels.flat, strict=False):
        worst = max(selection.runs[config]["test_error"].mean() for config in configs)
        limit = drawing.ERROR_LIMIT if worst <= drawing.ERROR_LIMIT else 1.3 * worst
        styles = {config: (name_setting(config), colors[name_setting(config)]) for config in configs}
        drawing.draw_panel(axes, selection, curves, styles, name_network(net), limit)
    for axes in panels[:, 0]:
        axes.set_ylabel("error (%)")
    drawing.add_header_and_legend(figure, selection)
    return figure


def name_setting(config: Config) -> str:
    """Name optimizer, learning rate and non-default decay: "Adam, lr 0.001"."""
    decay = "" if config.weight_decay == Config().weight_decay else f", decay {config.weight_decay:g}"
    return f"{NAMES[config.optimizer]}, lr {config.lr:g}{decay}"


main = partial(drawing.make_figure, "optimizer", draw, __doc__)

if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
