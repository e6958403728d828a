"""Draw Fig. 6: training and test error of plain and residual networks.

    python analysis/plot_degradation.py

Writes analysis/figures/degradation.svg and .png from the finished runs (full-length ones if there are any), including depths
that the paper does not have. The narrow panels show the paper's final test errors: from Table 6 for residual networks, read off
its Fig. 6 for plain ones.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import drawing
from analysis.paper import HE, published
from analysis.records import finished_runs, group_configurations
from experiments import degradation
from reproduce.cli import run_cli
from reproduce.config import PAPER_ITERATIONS, Config

MARKER_STYLE = {"marker": "o", "markersize": 5, "linestyle": "none", "zorder": 3}


def draw(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw plain and residual networks in two panels, each with the paper's numbers next to it if the runs have full length."""
    recorded = {replace(config, iterations=PAPER_ITERATIONS) for config in group_configurations(finished_runs(runs))}
    others = {config for config in recorded if config == Config(depth=config.depth, residual=config.residual)}
    configs = [*degradation.CONFIGS, *sorted(others - {*degradation.CONFIGS}, key=lambda config: config.depth)]
    selection = drawing.select_for_figure(runs, configs, "degradation")
    styles = drawing.label_depths(configs)
    figure, panels = plt.subplots(1, 2, figsize=(8, 4.4), sharey=True, layout="constrained")
    for kind, is_residual, axes in zip(("plain", "residual"), (False, True), panels, strict=True):
        nets = [config for config in selection.runs if config.residual == is_residual]
        drawing.draw_panel(axes, selection, curves, {net: styles[net] for net in nets}, f"{kind} networks")
        if selection.is_full:
            draw_published(axes, kind, [net.depth for net in nets])
    handles = [Line2D([], [], color="0.4", **MARKER_STYLE, label="the paper's Table 6")]
    handles += [Line2D([], [], color="0.4", fillstyle="none", **MARKER_STYLE, label="read off the paper's Fig. 6")]
    panels[0].set_ylabel("error (%)")
    drawing.add_header_and_legend(figure, selection, *(handles if selection.is_full else []))
    return figure


def draw_published(panel: Axes, kind: str, depths: Sequence[int]):
    """Draw the paper's final test errors beside a panel; hollow if read off its plot, with a bar if read as a range."""
    axes = panel.inset_axes((1.01, 0, 0.12, 1), sharey=panel)
    numbers = published(source=HE, kind=kind, quantity="test error")
    numbers = numbers[numbers["depth"].isin({*depths} & {*degradation.DEPTHS}) & (numbers["value"] < drawing.ERROR_LIMIT)]
    for depth, value, upto, plot in numbers[["depth", "value", "upto", "read_off_plot"]].itertuples(index=False):
        position, color = degradation.DEPTHS.index(depth), drawing.DEPTH_COLOR[depth]
        top = value if pd.isna(upto) else upto
        axes.plot([position] * 2, [value, top], color=color, linewidth=1.5)
        fill = "none" if plot == "yes" else "full"
        axes.plot(position, (value + top) / 2, color=color, fillstyle=fill, **MARKER_STYLE)
    axes.set(xticks=[], xlim=(-0.8, len(degradation.DEPTHS) - 0.2))
    axes.set_title("paper", fontsize="small")
    axes.tick_params(labelleft=False)


main = partial(drawing.make_figure, "degradation", draw, __doc__)

if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
