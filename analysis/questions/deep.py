"""Does depth 110 need its warm-up, and what does depth 1202 gain?"""

import pandas as pd

from analysis.claims import TOLERANCE, claim
from analysis.estimates import MINIMUM, Estimate, Finding, all_of, combine, is_equivalent, is_positive
from analysis.markdown import format_estimates, format_not_run, format_table
from analysis.paper import HE, paper_value
from analysis.records import finished_runs, select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, format_gap, format_verdicts
from experiments.deep import CONFIGS, DEEPEST, NO_WARMUP, UNTIL_LEARNING

NOT_RUN = (
    "Does ResNet-110 need its warm-up, and what do 1,202 layers gain? The paper trains 110 layers at a tenth of the learning "
    "rate "
    "until the training error is below 80%, for about 400 iterations: `python experiments/sweep.py deep`."
)
WARMUPS = {"error": "until the training error is below 80%", "iterations": "400 iterations", "none": "none"}


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, CONFIGS)
    rows = []
    for config in CONFIGS:
        cell = select_runs(ours, config)
        if len(cell):
            ended = ", ".join(f"{value:.0f}" for value in sorted(finished_runs(cell)["warmup_ended"].dropna()))
            gap = "" if config == UNTIL_LEARNING else format_gap(ours, config, UNTIL_LEARNING)
            rows.append([config.depth, WARMUPS[config.warmup], format_estimates(cell), gap, ended])
    if not rows:
        return ""
    header = ["layers", "warm-up", "test error", "difference from the first row", "warm-up ended at iteration"]
    return f"""## Does ResNet-110 need its warm-up, and what do 1,202 layers gain?

The paper trains 110 layers at a tenth of the learning rate until the training error is below 80%, for about 400 iterations
({format_verdicts(runs, "C4", "C5", "C8", "C9")}).

{format_table(header, rows)}

Test error in %, {precision}. {format_not_run(ours, CONFIGS, "python experiments/sweep.py deep")}"""


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("C4", [UNTIL_LEARNING], least_seeds=MINIMUM, must_converge=True)
def warmup_converges(net: Sample) -> tuple[Finding, str]:
    """ResNet-110 trains and reaches the paper's test error if it is warmed up until the training error is below 80%.

    Rule: no run diverges or gets stuck, and the test error equals the paper's mean of five runs to within 0.5 points.
    """
    mean, std = (paper_value(HE, column=column, kind="residual", depth=110) for column in ("value", "spread"))
    gap = combine([net.mean(0), Estimate(5, mean, std)], [1, -1])
    return all_of(net.stuck == 0, is_equivalent(gap, TOLERANCE)), f"{net.list()}; ours - paper: {gap}"


@claim("C5", [DEEPEST, UNTIL_LEARNING])
def overfitting_at_1202(nets: Sample) -> tuple[Finding, str]:
    """ResNet-1202 trains to a training error below 0.1% but has a higher test error than ResNet-110.

    Rule: its mean training error is below 0.1%, and its test error is higher; refuted if a difference of 0.5 points is ruled
    out.
    """
    gap = nets.difference(0, 1)
    fits = nets.mean(0, "train_error").mean < paper_value(HE, "training error", "upto", depth=1202)
    return all_of(fits, is_positive(gap, TOLERANCE)), f"{nets.list('train_error')}; {nets.list()}; 1202 - 110: {gap}"


@claim("C8", [NO_WARMUP, UNTIL_LEARNING], least_seeds=MINIMUM, must_converge=True)
def no_warmup_is_equal(nets: Sample) -> tuple[Finding, str]:
    """ResNet-110 reaches a similar test error without the warm-up (footnote).

    Rule: no run diverges, and the test errors are equal to within 0.5 points.
    """
    gap = nets.difference(0, 1)
    return is_equivalent(gap, TOLERANCE), f"{nets.list()}; difference {gap}"
