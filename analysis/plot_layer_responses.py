"""Fig. 7: standard deviations of the layers' responses, in the order of the layers and ranked.

    python analysis/plot_layer_responses.py

draws the finished full-length runs below --records to analysis/figures/layer_responses.svg and .png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import drawing
from analysis.cli import run_script
from analysis.questions.layer_responses import NETS


def draw(runs: pd.DataFrame, dataset_info: str = "cifar10") -> Figure:
    """The figure: above in the order of the layers, below in descending order; plain nets dashed, one colour per depth.

    Raises:
        UserError: there is no run to draw.
    """
    runs = runs[runs["responses"].notna() | (runs["status"] != "finished")]
    choice = drawing.choose(runs, NETS, dataset_info, "degradation")
    figure, panels = plt.subplots(2, 1, figsize=(8, 6), sharey=True, layout="constrained")
    orders = ("layer index, original order", "layer index, ranked by magnitude")
    for axes, order in zip(panels, orders, strict=True):
        for net, cell in choice.cells.items():
            std = np.array(cell["responses"].tolist(), dtype=float)  # seeds x layers
            if order == orders[1]:
                std = -np.sort(-std, axis=1)
            mean, spread = std.mean(0), std.std(0, ddof=1) if len(std) > 1 else np.zeros(std.shape[1])
            layers, colour = np.arange(1, std.shape[1] + 1), drawing.DEPTH_COLOUR[net.depth]
            style, width = ("-", 1.8) if net.residual else ("--", 1.2)
            axes.plot(layers, mean, style, color=colour, linewidth=width, label=drawing.name_net(net))
            axes.fill_between(layers, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel=order, ylabel="std of the response", xlim=(0, max(net.depth for net in choice.cells)), ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(choice.remark, fontsize="small")
    return figure


def main(arguments: Sequence[str]) -> int:
    options = drawing.parse(arguments, __doc__, "layer_responses")
    runs, _ = drawing.load_runs(options)
    drawing.save(draw(runs, options.data_set), options)
    return 0


if __name__ == "__main__":
    run_script(main)
