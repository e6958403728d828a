"""Draw the start of training: training error over the first 10,000 iterations, without and with a warm-up.

    python analysis/plot_warmup.py

Writes analysis/figures/warmup.svg and .png from the finished runs of residual networks (full-length ones if there are any).
"""

import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from analysis import drawing
from experiments import warmup
from experiments.degradation import RESIDUAL
from reproduce.cli import run_cli

NO_WARMUP = [config for config in RESIDUAL if config.depth < 110]
WARMUP = [config for config in warmup.WITH if config.residual]
END = 10_000
"""Last iteration drawn."""
TICKS = (5, 10, 20, 40, 80)


def draw(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw a line for each run: solid without warm-up, dashed with it, one color per depth."""
    selection = drawing.select_for_figure(runs, NO_WARMUP + WARMUP, "warmup")
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for config, group in selection.runs.items():
        start = "warm-up" if config in WARMUP else "no warm-up"
        style = {"color": drawing.DEPTH_COLOR[config.depth], "linestyle": "--" if config in WARMUP else "-"}
        for folder in group["folder"]:
            curve = curves[(curves["folder"] == folder) & (curves["iteration"] <= END)]
            axes.plot(curve["iteration"], curve["train_error"], marker="o", markersize=3, **style)
        axes.plot([], [], label=f"{config.depth} layers, {start} (n={len(group)})", marker="o", markersize=3, **style)
    axes.set(yscale="log", xlabel="iterations", ylabel="training error (%)", xlim=(0, 1.03 * END), ylim=(TICKS[0], TICKS[-1]))
    axes.set_yticks(TICKS, map(str, TICKS))
    axes.minorticks_off()
    drawing.format_thousands(axes)
    axes.legend(framealpha=1, edgecolor="none")
    title = f"residual networks, {selection.scope}; one line per run; markers: mean since the previous evaluation"
    axes.set_title(textwrap.fill(title, 88), fontsize="small")
    return figure


main = partial(drawing.make_figure, "warmup", draw, __doc__)

if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
