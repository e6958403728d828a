"""Draw the test error against the length of training, for plain and residual networks of 20 and 56 layers.

    python analysis/plot_length.py

Writes analysis/figures/length.svg and .png from the finished runs of every length.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from analysis import drawing
from analysis.markdown import format_net
from analysis.questions.length import NETS, choose_runs_of_all_lengths, find_lengths
from analysis.records import select_finished
from reproduce.cli import run_cli

TICKS = (6, 7, 8, 9, 10, 15, 20, 30, 40, 60, 90)
DODGE = 1.025
"""Factor between the horizontal positions of the networks at one length, so that their markers do not overlap."""


def draw(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw a marker for each run, and lines through the means of neighboring lengths."""
    ours, precision = choose_runs_of_all_lengths(runs)
    recorded = {net: select_finished(ours, net, free=("iterations",)) for net in NETS}
    lengths = find_lengths(ours)
    if not lengths:
        raise drawing.no_runs_error("sweep.py degradation")
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for position, (net, group) in enumerate(recorded.items()):
        dodge = DODGE ** (position - (len(NETS) - 1) / 2)
        style = {"color": drawing.DEPTH_COLOR[net.depth], "marker": "o" if net.residual else "s", "markersize": 5}
        fill = "full" if net.residual else "none"
        means = group.groupby("iterations")["test_error"].mean().reindex(lengths)  # NaN interrupts the line
        axes.plot([dodge * length for length in lengths], means, "-" if net.residual else "--", color=style["color"])
        axes.plot(dodge * group["iterations"], group["test_error"], linestyle="none", fillstyle=fill, **style)
        axes.plot([], [], "-" if net.residual else "--", fillstyle=fill, label=format_net(net), **style)
    axes.set(xscale="log", yscale="log", xlabel="iterations", ylabel="test error (%)", ylim=(TICKS[0], 100))
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.set_yticks(TICKS, map(str, TICKS), fontsize="small")
    axes.minorticks_off()
    axes.legend(framealpha=1, edgecolor="none")
    axes.set_title(f"{precision}; each marker is one run, lines join the means of neighboring lengths", fontsize="small")
    return figure


main = partial(drawing.make_figure, "length", draw, __doc__)

if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
