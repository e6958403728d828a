"""Draw the transfer experiment: test error on five new classes, by the layers trained and the number of images.

    python analysis/plot_transfer.py

Writes analysis/figures/transfer.svg and .png from the runs of experiments/transfer.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
import textwrap
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from analysis import drawing
from analysis.questions.transfer import LABELS, find_runs, select_group
from analysis.records import finished_runs
from experiments.transfer import IMAGES_PER_CLASS, METHODS
from reproduce.cli import run_cli


def draw(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw a panel for each number of images: a bar for each mean, and a dot for each run."""
    runs = finished_runs(find_runs(runs))
    if runs.empty:
        raise drawing.no_runs_error("transfer.py")
    figure, panels = plt.subplots(1, len(IMAGES_PER_CLASS), figsize=(7.2, 3.4), layout="constrained", sharey=True)
    for axes, per_class in zip(panels, IMAGES_PER_CLASS, strict=True):
        for position, method in enumerate(METHODS):
            errors = select_group(runs, method, per_class)["test_error"]
            axes.bar(position, errors.mean(), color=drawing.PALETTE[position], alpha=0.6)
            axes.plot([position] * len(errors), errors, "k.")
        axes.set_xticks(range(len(METHODS)), [textwrap.fill(LABELS[method], 11) for method in METHODS], fontsize="small")
        axes.set(title=f"{per_class} images per class", ylim=(0, None))
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("test error (%)")
    figure.suptitle("each dot is one run; bars: means", fontsize="small")
    return figure


main = partial(drawing.make_figure, "transfer", draw, __doc__)

if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
