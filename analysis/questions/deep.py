"""Does depth 110 need its warm-up, and what does depth 1202 gain?"""

import pandas as pd

from analysis.claims import TOLERANCE, claim
from analysis.estimates import MINIMUM, Estimate, Finding, all_of, combine, is_equivalent, is_positive
from analysis.paper import HE, paper_value
from analysis.sample import Sample
from analysis.sections import format_differences, format_verdicts
from experiments.deep import DEEPEST, FIXED_WARMUP, NO_WARMUP, UNTIL_LEARNING

TITLE = "Does ResNet-110 need its warm-up, and what do 1,202 layers gain?"
INTRODUCTION = (
    "The paper trains 110 layers at a tenth of the learning rate until the training error is below 80%, for about 400 "
    "iterations"
)
NOT_RUN = f"{TITLE} `python experiments/sweep.py deep`"


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    table = format_differences(runs, [NO_WARMUP, FIXED_WARMUP, DEEPEST], UNTIL_LEARNING, "deep")
    introduction = f"## {TITLE}\n\n{INTRODUCTION} ({format_verdicts(runs, 'C4', 'C5', 'C8', 'C9')})."
    return f"{introduction}\n\n{table}" if table else ""


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("C4", [UNTIL_LEARNING], least_seeds=MINIMUM, must_converge=True)
def warmup_converges(sample: Sample) -> tuple[Finding, str]:
    """ResNet-110 trains and reaches the paper's test error if it is warmed up until the training error is below 80%.

    Rule: no run diverges or gets stuck, and the test error equals the paper's mean of five runs to within 0.5 points.
    """
    mean, std = (paper_value(HE, column=column, kind="residual", depth=110) for column in ("value", "spread"))
    gap = combine([sample.mean(0), Estimate(5, mean, std)], [1, -1])
    return all_of(sample.stuck == 0, is_equivalent(gap, TOLERANCE)), f"{sample.format_means()}; ours - paper: {gap}"


@claim("C5", [DEEPEST, UNTIL_LEARNING])
def overfitting_at_1202(sample: Sample) -> tuple[Finding, str]:
    """ResNet-1202 trains to a training error below 0.1% but has a higher test error than ResNet-110.

    Rule: its mean training error is below 0.1%, and its test error is higher; refuted if a difference of 0.5 points is ruled
    out.
    """
    gap = sample.difference(0, 1)
    fits = sample.mean(0, "train_error").mean < paper_value(HE, "training error", "upto", depth=1202)
    numbers = f"{sample.format_means('train_error')}; {sample.format_means()}; 1202 - 110: {gap}"
    return all_of(fits, is_positive(gap, TOLERANCE)), numbers


@claim("C8", [NO_WARMUP, UNTIL_LEARNING], least_seeds=MINIMUM, must_converge=True)
def no_warmup_is_equal(sample: Sample) -> tuple[Finding, str]:
    """ResNet-110 reaches a similar test error without the warm-up (footnote).

    Rule: no run diverges, and the test errors are equal to within 0.5 points.
    """
    gap = sample.difference(0, 1)
    return is_equivalent(gap, TOLERANCE), f"{sample.format_means()}; difference {gap}"
