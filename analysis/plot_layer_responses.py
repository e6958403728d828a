"""Draw Fig. 7: standard deviation of the layer responses, in network order and sorted by magnitude.

    python analysis/plot_layer_responses.py

Writes analysis/figures/layer_responses.svg and .png from the finished runs (full-length ones if there are any).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from analysis import drawing
from analysis.markdown import format_net
from analysis.questions.layer_responses import NETS
from reproduce.cli import run_cli

Y_MAX = 3
"""Upper limit of the vertical axis of Fig. 7."""


def draw(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw plain networks dashed and residual networks solid, one color per depth, on the axes of Fig. 7."""
    selection = drawing.select_for_figure(runs[runs["responses"].notna()], NETS, "degradation")
    figure, panels = plt.subplots(2, 1, figsize=(8, 5.2), sharex=True, sharey=True, layout="constrained")
    for axes, is_sorted in zip(panels, (False, True), strict=True):
        for net, group in selection.runs.items():
            std = np.array(group["responses"].tolist())  # runs x layers
            if is_sorted:
                std = -np.sort(-std)
            style = {"color": drawing.DEPTH_COLOR[net.depth], "linestyle": "-" if net.residual else "--", "linewidth": 1.5}
            drawing.draw_lines(axes, pd.DataFrame(std, columns=range(1, net.depth)), **style)
            axes.plot([], [], label=f"{format_net(net)} (n={len(group)})", **style)
        axes.set(xlabel=f"layer index ({'sorted by magnitude' if is_sorted else 'original'})", ylabel="standard deviation")
        axes.set(xlim=(0, max(net.depth for net in selection.runs)), ylim=(0, max(Y_MAX, axes.dataLim.ymax)))
        axes.xaxis.set_major_locator(MultipleLocator(20))
        axes.yaxis.set_major_locator(MultipleLocator(1))
        axes.tick_params(labelbottom=True)
    panels[0].legend(loc="upper center", ncols=(len(selection.runs) + 1) // 2, frameon=False)
    figure.suptitle(selection.subtitle(), fontsize="small")
    return figure


main = partial(drawing.make_figure, "layer_responses", draw, __doc__)

if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
