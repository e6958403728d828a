"""Does the first net of the tutorials reach the accuracy on MNIST that they give?"""

import numpy as np
import pandas as pd

from analysis.claims import claim
from analysis.estimates import MINIMUM, Finding, estimate, matches_published, prediction
from analysis.markdown import format_figure, format_mean, format_not_run, format_number
from analysis.paper import TUTORIAL, load_paper, paper_value, published
from analysis.records import comparable_runs, finished_runs, select_runs
from analysis.sample import Sample, choose_precision
from analysis.sections import format_verdicts
from experiments.lenet import CONFIGS, LENET


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    cell = choose_cell(runs)
    theirs = published(load_paper(), source=TUTORIAL, quantity="test error").iloc[0]
    ours = estimate(cell["test_error"].astype(float))
    answer = "Not known yet"
    if ours.n:
        numbers = format_mean(ours), format_number(theirs)
        answer = "Its test error in % is {}; a tutorial (no source kept) reports {} from one run".format(*numbers)
    if ours.n >= MINIMUM:
        gap, tolerance = prediction(ours) - float(theirs["value"]), theirs["value"] / 15
        answer += f". Ours minus the tutorial's is {gap} (95% prediction interval), and the tolerance is {tolerance:.2f} points"
    return f"""## Does a tutorial's LeNet reach its accuracy on MNIST?

{answer} ({format_verdicts(runs, "M1")}). Two small convolutions and two linear layers, Adam at a constant 0.0001, ten passes
over MNIST.

{format_not_run(runs, CONFIGS, "python experiments/sweep.py lenet")}

{format_figure(runs, CONFIGS, "confusion", "Confusion matrix of LeNet on MNIST")}"""


def choose_cell(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the finished full-length runs in the precision with most of them."""
    full = comparable_runs(runs)
    return finished_runs(select_runs(full[full["precision"] == choose_precision(full, [LENET])], LENET))


def sum_confusions(cell: pd.DataFrame) -> np.ndarray | None:
    """Return the test images of each true class (row) by predicted class, summed over runs; None without confusions."""
    counts = cell["confusion"].dropna()
    return np.sum([np.array(rows) for rows in counts], axis=0) if len(counts) else None


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("M1", [LENET], least_seeds=MINIMUM)
def lenet_reaches_its_error(net: Sample) -> tuple[Finding, str]:
    """LeNet is consistent with a tutorial's test error of 2.74% on MNIST after ten passes.

    Rule: the published number lies in the 95% prediction interval of one more run of ours, and within 0.18 points of our mean
    (a fifteenth of it, as 0.5 points are of 7.5% on CIFAR-10); refuted if it does neither.
    """
    number = paper_value(TUTORIAL, kind="lenet")
    gap = prediction(net.mean(0)) - number
    return matches_published(gap, number / 15), f"{net.list()}; ours - the tutorial's: {gap}"
