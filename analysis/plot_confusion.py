"""Draw the confusion matrix of LeNet on MNIST, summed over its finished runs.

    python analysis/plot_confusion.py

Writes analysis/figures/confusion.svg and .png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from analysis import drawing
from analysis.questions.lenet import select_lenet_runs
from reproduce.cli import run_cli
from reproduce.dataset import DATASETS


def draw(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw a row for each true digit and a column for each predicted digit; only mistakes are colored."""
    group = select_lenet_runs(runs)
    confusions = group["confusion"].dropna()
    if confusions.empty:
        raise drawing.no_runs_error("sweep.py lenet")
    counts = np.sum([np.array(rows) for rows in confusions], axis=0)
    mistakes = counts - np.diag(counts.diagonal())
    figure, axes = plt.subplots(figsize=(5.3, 5.5), layout="constrained")
    style = {"annot": counts, "fmt": "d", "cmap": "Reds", "square": True, "cbar": False, "annot_kws": {"fontsize": "small"}}
    names = DATASETS["mnist"].class_names
    sns.heatmap(mistakes, xticklabels=names, yticklabels=names, ax=axes, linewidths=0.5, **style)
    axes.tick_params(axis="y", rotation=0)
    count = f"{len(confusions)} run{'s' * (len(confusions) > 1)}"
    title = f"LeNet on MNIST, {group['precision'].iloc[0]}: predictions summed over {count}"
    error = 100 * mistakes.sum() / counts.sum()
    axes.set(xlabel="predicted digit", ylabel="true digit")
    axes.set_title(f"{title}, error {error:.2f}%", fontsize="small")
    return figure


main = partial(drawing.make_figure, "confusion", draw, __doc__)

if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
