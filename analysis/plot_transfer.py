"""Transfer: test error on five new classes, by what learns and from how many pictures.

    python analysis/plot_transfer.py

draws the runs of experiments/transfer.py below --records to analysis/figures/transfer.svg and .png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from analysis import drawing
from analysis.cli import run_script
from analysis.questions.transfer import WORDS, find_runs, select_cell
from analysis.records import finished_runs
from experiments.transfer import PICTURES, WAYS
from reproduce.errors import UserError


def draw(runs: pd.DataFrame) -> Figure:
    """The figure: a panel for each number of pictures, in it a bar to the mean of each way, and every run a dot.

    Raises:
        UserError: there is no run to draw.
    """
    runs = finished_runs(find_runs(runs))
    if runs.empty:
        raise UserError("there is no finished run to draw: make some with python experiments/transfer.py")
    figure, panels = plt.subplots(1, len(PICTURES), figsize=(7, 3.2), layout="constrained", sharey=True)
    for axes, per_class in zip(panels, PICTURES, strict=True):
        for place, way in enumerate(WAYS):
            errors = select_cell(runs, way, per_class)["test_error"].astype(float)
            if len(errors):
                axes.bar(place, errors.mean(), color=drawing.PALETTE[place], alpha=0.6)
                axes.plot([place] * len(errors), errors, "k.")
        names = [textwrap.fill(WORDS[way], 11) for way in WAYS]
        axes.set_xticks(range(len(WAYS)), names, fontsize="small")
        axes.set(title=f"{per_class} pictures a class", ylim=(0, None))
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("test error (%)")
    return figure


def main(arguments: Sequence[str]) -> int:
    options = drawing.parse(arguments, __doc__, "transfer")
    runs, _ = drawing.load_runs(options)
    drawing.save(draw(runs), options)
    return 0


if __name__ == "__main__":
    run_script(main)
