"""Does the first net of the tutorials reach the accuracy on MNIST that they give?"""

import numpy as np
import pandas as pd

from analysis.claims import claim
from analysis.estimates import MINIMUM, Finding, estimate, matches_published, prediction
from analysis.markdown import format_figure, format_mean, format_not_run, format_number, format_table
from analysis.paper import TUTORIAL, load_paper, paper_value, published
from analysis.records import comparable_runs, finished_runs, select_runs
from analysis.sample import Sample, choose_precision
from analysis.sections import format_verdicts
from experiments.lenet import CONFIGS, LENET
from reproduce.dataset import DATASETS


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    cell = choose_cell(runs)
    theirs = published(load_paper(), source=TUTORIAL, quantity="test error").iloc[0]
    ours = estimate(cell["test_error"].astype(float))
    answer = f"Its test error is {format_mean(ours)}, 95% interval {ours.interval}" if ours.n else "Not known yet"
    return f"""## Does a tutorial's LeNet reach its accuracy on MNIST?

{answer}; the tutorial reports {format_number(theirs)} from one run ({format_verdicts(runs, "M1")}). Two small convolutions
and two linear layers, Adam at a constant 0.0001, ten passes over MNIST.

{list_digits(cell)}

Error of each digit in %, {name_runs(cell)}. {format_not_run(runs, CONFIGS, "python experiments/sweep.py lenet")}

{format_figure(runs, CONFIGS, "confusion", "Confusion matrix of LeNet on MNIST")}"""


def choose_cell(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the finished full-length runs in the precision with most of them."""
    full = comparable_runs(runs)
    return finished_runs(select_runs(full[full["precision"] == choose_precision(full, [LENET])], LENET))


def name_runs(cell: pd.DataFrame) -> str:
    """Return the number of runs and their precision: "5 runs in fp32"."""
    return f"{len(cell)} run{'s' * (len(cell) != 1)}{''.join(f' in {precision}' for precision in cell['precision'].unique())}"


def sum_confusions(cell: pd.DataFrame) -> np.ndarray | None:
    """Return the test images of each true class (row) by predicted class, summed over runs; None without confusions."""
    counts = cell["confusion"].dropna()
    return np.sum([np.array(rows) for rows in counts], axis=0) if len(counts) else None


def list_digits(cell: pd.DataFrame) -> str:
    counts = sum_confusions(cell)
    if counts is None:
        return "No record has its confusion matrix yet."
    wrong = counts - np.diag(counts.diagonal())
    names = DATASETS["mnist"].class_names
    errors = 100 * wrong.sum(1) / counts.sum(1)
    mistaken = [f"{names[row.argmax()]} ({100 * row.max() / n:.1f})" for row, n in zip(wrong, counts.sum(1), strict=True)]
    rows = [["error", *(f"{error:.1f}" for error in errors)], ["most often predicted", *mistaken]]
    return format_table(["digit", *names], rows)


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("M1", [LENET], least_seeds=MINIMUM)
def lenet_reaches_its_error(net: Sample) -> tuple[Finding, str]:
    """LeNet has a test error of 2.74% on MNIST after ten passes.

    Rule: the published number lies in the 95% prediction interval of one more run of ours, and within 0.18 points of our mean
    (a fifteenth of it, as 0.5 points are of 7.5% on CIFAR-10); refuted if it does neither.
    """
    number = paper_value(TUTORIAL, kind="lenet")
    gap = prediction(net.mean(0)) - number
    return matches_published(gap, number / 15), f"{net.list()}; ours - the tutorial's: {gap}"
