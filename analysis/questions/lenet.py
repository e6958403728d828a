"""Does a tutorial's LeNet reach its reported MNIST accuracy?"""

import pandas as pd

from analysis.claims import claim
from analysis.estimates import MINIMUM, Finding, estimate, matches_published, prediction
from analysis.markdown import format_figure, format_mean, format_not_run, format_number
from analysis.paper import TUTORIAL, find_number, paper_value
from analysis.records import select_finished
from analysis.sample import Sample
from analysis.sections import choose_runs, format_verdicts
from experiments.lenet import CONFIGS, LENET


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    theirs = find_number(source=TUTORIAL, quantity="test error")
    group = select_lenet_runs(runs)
    ours = estimate(group["test_error"].astype(float))
    answer = "Not known yet"
    if ours.n:
        answer = f"Our test error is {format_mean(ours).replace(' (', '% (')} in {group['precision'].iloc[0]}; "
        answer += f"a tutorial (no source kept) reports {format_number(theirs)}% (n=1)"
    if ours.n >= MINIMUM:
        gap, tolerance = prediction(ours) - theirs["value"], theirs["value"] / 15
        answer += f". The difference is {gap}, a prediction interval, and the tolerance {tolerance:.2f} points"
    return f"""## Does LeNet reach the MNIST accuracy of a tutorial?

{answer} ({format_verdicts(runs, "M1")}). The network has two small convolutions and two linear layers and is trained with
Adam at a constant learning rate of 0.0001 for ten epochs. {format_not_run(runs, CONFIGS, "python experiments/sweep.py lenet")}

{format_figure(runs, CONFIGS, "confusion", "Confusion matrix of LeNet on MNIST")}"""


def select_lenet_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the finished full-length runs in the precision with most of them."""
    return select_finished(choose_runs(runs, [LENET])[0], LENET)


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("M1", [LENET], least_seeds=MINIMUM)
def lenet_reaches_its_error(sample: Sample) -> tuple[Finding, str]:
    """LeNet is consistent with a tutorial's test error of 2.74% on MNIST after ten passes.

    Rule: the published number lies in the 95% prediction interval of one more run of ours and within 0.18 points of our mean
    (a fifteenth of it, as 0.5 points are of 7.5% on CIFAR-10); refuted if neither is true.
    """
    number = paper_value(TUTORIAL, kind="lenet")
    gap = prediction(sample.mean(0)) - number
    return matches_published(gap, number / 15), f"{sample.format_means()}; ours - the tutorial's: {gap}"
