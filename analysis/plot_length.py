"""Test error against the length of training, of plain and residual nets of 20 and 56 layers.

    python analysis/plot_length.py

draws the finished runs below --records, of whatever lengths there are, to analysis/figures/length.svg and .png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from analysis import drawing
from analysis.cli import run_script
from analysis.questions.length import NETS, at, find_lengths
from analysis.records import finished_runs, select_runs
from analysis.sample import choose_precision
from reproduce.errors import UserError


def draw(runs: pd.DataFrame) -> Figure:
    """The figure: a line per net, every run a dot.

    Raises:
        UserError: there is no run to draw.
    """
    lengths = find_lengths(runs)
    if not lengths:
        raise UserError("there is no finished run to draw: make some with python experiments/sweep.py degradation")
    precision = choose_precision(runs, [at(net, length) for net in NETS for length in lengths])
    runs = finished_runs(runs[runs["precision"] == precision])
    figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    for net in NETS:
        cells = {length: select_runs(runs, at(net, length))["test_error"].astype(float) for length in lengths}
        cells = {length: errors for length, errors in cells.items() if len(errors)}
        colour, style = drawing.DEPTH_COLOUR[net.depth], "-" if net.residual else "--"
        axes.plot(list(cells), [errors.mean() for errors in cells.values()], style, color=colour, label=drawing.name_net(net))
        for length, errors in cells.items():
            axes.plot([length] * len(errors), errors, ".", color=colour)
    axes.set(xscale="log", xticks=lengths, xlabel="iterations", ylabel="test error (%)", ylim=(0, None))
    axes.set_xticks([], minor=True)
    axes.set_xticklabels([f"{length:,}" for length in lengths])
    axes.legend(frameon=False)
    axes.set_title(f"every run a dot, lines through the means; {precision}", fontsize="small")
    return figure


def main(arguments: Sequence[str]) -> int:
    options = drawing.parse(arguments, __doc__, "length")
    runs, _ = drawing.load_runs(options)
    drawing.save(draw(runs), options)
    return 0


if __name__ == "__main__":
    run_script(main)
