"""Draw Fig. 6: training and test error of plain and residual nets.

    python analysis/plot_degradation.py

Writes analysis/figures/degradation.svg and .png from the finished full-length runs. The narrow panels show the paper's final
test errors: those of residual nets from Table 6, those of plain nets read off its Fig. 6.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import drawing
from analysis.paper import HE, load_paper, published
from experiments.degradation import DEPTHS, PLAIN, RESIDUAL
from reproduce.cli import run_cli

MARKER_STYLE = {"marker": "o", "markersize": 5, "linestyle": "none", "zorder": 3}


def draw(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw plain and residual nets in two panels, each beside the paper's numbers if the runs have full length."""
    selection = drawing.select_for_figure(runs, PLAIN + RESIDUAL, "degradation")
    figure, panels = plt.subplots(1, 2, figsize=(8, 4.4), sharey=True, layout="constrained")
    for kind, configs, axes in zip(("plain", "residual"), (PLAIN, RESIDUAL), panels, strict=True):
        styles = {config: (f"{config.depth} layers", drawing.DEPTH_COLOR[config.depth]) for config in configs}
        drawing.draw_panel(figure, axes, selection, curves, styles, f"{kind} nets")
        if selection.is_full:
            draw_published(axes, kind, [config.depth for config in configs if config in selection.runs])
    handles = [Line2D([], [], color="0.4", **MARKER_STYLE, label="the paper's Table 6")]
    handles += [Line2D([], [], color="0.4", fillstyle="none", **MARKER_STYLE, label="read off the paper's Fig. 6")]
    panels[0].set_ylabel("error (%)")
    drawing.add_legend(figure, *(handles if selection.is_full else []))
    figure.suptitle(selection.subtitle(), fontsize="small")
    return figure


def draw_published(panel: Axes, kind: str, depths: Sequence[int]):
    """Draw the paper's final test errors beside a panel; hollow if read off its plot, with a bar if read as a range."""
    axes = panel.inset_axes((1.01, 0, 0.12, 1), sharey=panel)
    numbers = published(load_paper(), source=HE, kind=kind, quantity="test error")
    for _, row in numbers[numbers["depth"].isin(depths) & (numbers["value"] < drawing.ERROR_LIMIT)].iterrows():
        place, color = DEPTHS.index(int(row["depth"])), drawing.DEPTH_COLOR[int(row["depth"])]
        top = row["value"] if pd.isna(row["upto"]) else row["upto"]
        fill = "none" if row["read_off_plot"] == "yes" else "full"
        axes.plot([place] * 2, [row["value"], top], color=color, linewidth=1.5)
        axes.plot(place, (row["value"] + top) / 2, color=color, fillstyle=fill, **MARKER_STYLE)
    axes.set(xticks=[], xlim=(-0.8, len(DEPTHS) - 0.2))
    axes.set_title("paper", fontsize="small")
    axes.tick_params(labelleft=False)


def main(arguments: Sequence[str]) -> int:
    return drawing.make_figure("degradation", draw, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
