"""Draw BN before the addition (the paper's) against BN after it: error curves, and final test error by depth.

    python analysis/plot_bn_placement.py

Writes analysis/figures/bn_placement.svg and .png from the finished runs (full-length ones if there are any). Full-length
runs are shown with every published pair of results.
"""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import drawing
from analysis.estimates import MINIMUM, combine, estimate
from analysis.paper import published
from experiments.bn_placement import AFTER, BEFORE, DEPTHS
from reproduce.cli import run_cli

TITLES = ("BN before the addition", "BN after the addition")
COLORS = (drawing.PALETTE[0], drawing.PALETTE[3])
MARKERS = "D^sv"
"""Markers of the published results, one per source."""
X_POSITIONS: dict[int, float] = dict(zip(DEPTHS, (0, 1, 2, 3, 4.6), strict=True))
"""Horizontal positions of the depths, with a gap before 110 layers."""
PAIR_SPACING, HALF_WIDTH = 0.32, 0.09
"""Distance between two pairs of results at one depth, and half of the distance within a pair."""
CONNECTOR = {"color": "0.6", "linewidth": 1, "zorder": 1}
"""The line from the error before to the error after."""
Y_MAX = 9
"""Upper end of the error axis, in %; published errors above it are printed."""


def draw(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw the curves before and after in two panels, and below them the final test errors by depth."""
    selection = drawing.select_for_figure(runs, BEFORE + AFTER, "bn_placement")
    figure, panels = plt.subplot_mosaic([["before", "after"], ["final", "final"]], figsize=(8, 7.4), layout="constrained")
    for name, title, configs in zip(("before", "after"), TITLES, (BEFORE, AFTER), strict=True):
        drawing.draw_panel(panels[name], selection, curves, drawing.label_depths(configs), title)
    panels["before"].set_ylabel("error (%)")
    draw_final(panels["final"], selection)
    drawing.add_header_and_legend(figure, selection)
    return figure


def draw_final(axes: Axes, selection: drawing.Selection):
    """Draw the final test error of every run, joining the means before and after, and the published pairs."""
    errors = {net: runs["test_error"] for net, runs in selection.runs.items()}
    for pair in zip(BEFORE, AFTER, strict=True):
        positions = X_POSITIONS[pair[0].depth] - HALF_WIDTH, X_POSITIONS[pair[0].depth] + HALF_WIDTH
        if pair[0] in errors and pair[1] in errors:
            axes.plot(positions, [errors[net].mean() for net in pair], **CONNECTOR)
        for net, position, color in zip(pair, positions, COLORS, strict=True):
            if net in errors:
                axes.plot([position] * len(errors[net]), errors[net], "o", color=color, markersize=5)
                mean = estimate(errors[net])
                if mean.n >= MINIMUM:
                    half = combine([mean], [1]).half
                    axes.errorbar(position, mean.mean, half, fmt="_", markersize=10, color=color, capsize=3)
    handles = [Line2D([], [], color=c, marker="o", ls="none", label=t) for c, t in zip(COLORS, TITLES, strict=True)]
    hollow = ""
    if selection.is_full:
        handles += draw_published(axes)
        hollow = "; hollow: published"
    axes.set(xticks=list(X_POSITIONS.values()), xticklabels=DEPTHS, xlabel="layers", ylabel="final test error (%)")
    axes.set_xlim(-0.4, max(X_POSITIONS.values()) + 1)
    several = any(len(values) >= MINIMUM for values in errors.values())
    bars = f"; bars: mean and 95% interval (n \u2265 {MINIMUM})" if several else ""
    axes.set_title(f"each dot is one run, lines join the means{bars}{hollow}", fontsize="small", pad=36)
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize="small", frameon=False)


def draw_published(axes: Axes) -> list[Line2D]:
    """Draw the published pairs to the right of our runs; return their legend entries."""
    numbers = published(quantity="test error", kind="residual")
    pairs = numbers.pivot_table(index=["source", "depth", "protocol"], columns="variant", values="value", sort=False)
    pairs = pairs[["original", "bn-after-add"]].dropna().reset_index()
    markers = dict(zip(pairs["source"].unique(), itertools.cycle(MARKERS), strict=False))
    top = max(Y_MAX, 1.02 * axes.dataLim.ymax)
    for depth, group in pairs.groupby(pairs["depth"].astype(int)):
        for number, (_, pair) in enumerate(group.iterrows(), start=1):
            middle, errors = X_POSITIONS[int(depth)] + number * PAIR_SPACING, [pair["original"], pair["bn-after-add"]]
            positions = middle - HALF_WIDTH, middle + HALF_WIDTH
            axes.plot(positions, errors, **CONNECTOR)
            for error, position, color in zip(errors, positions, COLORS, strict=True):
                axes.plot(position, error, markers[pair["source"]], color=color, fillstyle="none")
            if max(errors) > top:
                text = f"{max(errors):.2f} \u2191"
                axes.annotate(text, (positions[0], top - 0.1), ha="right", va="top", fontsize="small", color=COLORS[1])
    axes.set_ylim(top=top)
    return [Line2D([], [], color="0.4", marker=m, ls="none", fillstyle="none", label=s) for s, m in markers.items()]


main = partial(drawing.make_figure, "bn_placement", draw, __doc__)

if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
