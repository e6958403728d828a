"""Which digits LeNet takes for which: the confusion matrix of its finished runs on MNIST.

    python analysis/plot_confusion.py

draws the runs of experiments/lenet.py below --records to analysis/figures/confusion.svg and .png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from analysis import drawing
from analysis.cli import run_script
from analysis.questions.lenet import choose_cell, name_runs, sum_confusions
from reproduce.dataset import DATASETS
from reproduce.errors import UserError


def draw(runs: pd.DataFrame) -> Figure:
    """The figure: a row for each true digit, a column for each given one; only mistakes have a colour.

    Raises:
        UserError: there is no run to draw.
    """
    cell = choose_cell(runs)
    counts = sum_confusions(cell)
    if counts is None:
        raise UserError("there is no finished run to draw: make some with python experiments/sweep.py lenet")
    figure, axes = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
    names, mistakes = DATASETS["mnist"].class_names, counts - np.diag(counts.diagonal())
    look = {"annot": counts, "fmt": "d", "cmap": "Reds", "square": True, "cbar": False, "annot_kws": {"fontsize": "small"}}
    sns.heatmap(mistakes, xticklabels=names, yticklabels=names, ax=axes, **look)
    error = 100 * mistakes.sum() / counts.sum()
    title = f"LeNet on MNIST, test images of {name_runs(cell)}; error {error:.2f}%"
    axes.set(xlabel="given digit", ylabel="true digit", title=title)
    return figure


def main(arguments: Sequence[str]) -> int:
    options = drawing.parse(arguments, __doc__, "confusion")
    runs, _ = drawing.load_runs(options)
    drawing.save(draw(runs), options)
    return 0


if __name__ == "__main__":
    run_script(main)
