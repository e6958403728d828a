"""Does the first net of the tutorials reach the accuracy on MNIST that they give?"""

import numpy as np
import pandas as pd

from analysis.claims import TOLERANCE, Outcome, claim
from analysis.estimates import matches_published
from analysis.markdown import format_estimates, format_figure, format_number, format_runs, format_table
from analysis.paper import TUTORIAL, load_paper, paper_value, published
from analysis.records import comparable_runs, finished_runs, select_runs
from analysis.sample import Sample, choose_precision
from experiments.lenet import CONFIGS, LENET
from reproduce.dataset import DATASETS


def format_section(runs: pd.DataFrame, link: str) -> str:
    full = comparable_runs(runs)
    theirs = published(load_paper(), source=TUTORIAL, quantity="test error").iloc[0]
    cell, alike = select_runs(full, LENET), choose_cell(runs)
    seconds = finished_runs(cell)["seconds"].astype(float)
    cost = (
        f"{seconds.min():.0f} to {seconds.max():.0f} seconds a run, beside other work" if len(seconds) else "not measured yet"
    )
    return f"""## LeNet on MNIST

Two small convolutions and two linear layers, Adam at a constant 0.0001, ten passes over MNIST. Test error of a tutorial:
{format_number(theirs)} ({theirs["protocol"]}); ours: {format_estimates(cell)}. Cost: {cost}.

{format_runs(full, CONFIGS, link)}

Errors of each digit in %, and the digit that it is most often taken for, over {name_runs(alike)}:

{list_digits(alike)}

{format_figure(full, CONFIGS, "confusion", None)}"""


def choose_cell(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs of full length, in the one precision that has most of them."""
    full = comparable_runs(runs)
    return finished_runs(select_runs(full[full["precision"] == choose_precision(full, [LENET])], LENET))


def name_runs(cell: pd.DataFrame) -> str:
    """How many there are, and in which precision."""
    return f"{len(cell)} run{'s' * (len(cell) != 1)}{''.join(f' in {precision}' for precision in cell['precision'].unique())}"


def sum_confusions(cell: pd.DataFrame) -> np.ndarray | None:
    """The test images of each true class, a row, by the class given, over some runs; None where none has them."""
    counts = cell["confusion"].dropna()
    return np.sum([np.array(rows) for rows in counts], axis=0) if len(counts) else None


def list_digits(cell: pd.DataFrame) -> str:
    counts = sum_confusions(cell)
    if counts is None:
        return "No record has its confusions yet."
    wrong = counts - np.diag(counts.diagonal())
    names = DATASETS["mnist"].class_names
    errors = 100 * wrong.sum(1) / counts.sum(1)
    taken = [f"{names[row.argmax()]} ({100 * row.max() / total:.1f}%)" for row, total in zip(wrong, counts.sum(1), strict=True)]
    rows = [["error", *(f"{error:.1f}" for error in errors)], ["taken for", *taken]]
    return format_table(["", *names], rows)


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("M1")
def lenet_reaches_its_error(runs: pd.DataFrame) -> Outcome:
    """LeNet has a test error of 2.74% on MNIST after ten passes.

    Rule: the number is met.
    """
    sample, there = Sample(runs, LENET), paper_value(TUTORIAL, kind="lenet")
    numbers = f"{sample.list()}; ours - theirs {sample.mean(0) - there}{sample.note}"
    return Outcome(matches_published(sample.term(0), there, TOLERANCE), numbers, sample.seeds)
