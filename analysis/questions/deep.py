"""Does depth 110 need its warm-up, and what does depth 1202 gain?"""

import pandas as pd

from analysis.claims import TOLERANCE, Outcome, claim
from analysis.estimates import Finding, Term, all_of, contrast, is_equivalent, is_positive
from analysis.markdown import format_estimates, format_label, format_not_run, format_table
from analysis.paper import HE, paper_value
from analysis.records import finished_runs, select_runs
from analysis.sample import Sample, choose_precision
from analysis.sections import choose_runs, format_gap, format_verdicts
from experiments.deep import CONFIGS, DEEPEST, NO_WARMUP, UNTIL_LEARNING
from reproduce.config import Config

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
    header = ["layers", "warm-up", "test error", "difference from the first row", "warm-up ended at iteration"]
    table = f"{format_table(header, rows)}\n\nTest error in %, {precision}. " if rows else ""
    return f"""## Does ResNet-110 need its warm-up, and what do 1,202 layers gain?

The paper trains 110 layers at a tenth of the learning rate until the training error is below 80%, for about 400 iterations
({format_verdicts(runs, "C4", "C5", "C8")}).

{table}{format_not_run(ours, CONFIGS, "python experiments/sweep.py deep")}"""


# Claims ---------------------------------------------------------------------------------------------------------------


def fail_by_divergence(runs: pd.DataFrame, *configs: Config) -> Outcome | None:
    """What a claim comes to whose rule wants no run to diverge, where one has; None where none has, or a cell has no run.

    A run that diverged counts as one of its cell.
    """
    precision = choose_precision(runs, configs)
    ended = runs[(runs["precision"] == precision) & (runs["status"] != "unfinished")]
    cells = [select_runs(ended, config) for config in configs]
    seeds, diverged = [len(cell) for cell in cells], [int((cell["status"] == "diverged").sum()) for cell in cells]
    if not all(seeds) or not any(diverged):
        return None
    told = ", ".join(f"{format_label(c)} {d} of {n} diverged" for c, d, n in zip(configs, diverged, seeds, strict=True))
    return Outcome(Finding(False), f"{told} [{precision}]", min(seeds))


@claim("C4")
def warmup_converges(runs: pd.DataFrame) -> Outcome:
    """ResNet-110 converges well when it is warmed up until the training error is below 80%.

    Rule: no run diverged or got stuck, and the test error is similar to the paper's mean of five. Runs that diverged count.
    """
    failed = fail_by_divergence(runs, UNTIL_LEARNING)
    if failed:
        return failed
    sample = Sample(runs, UNTIL_LEARNING)
    mean, spread = (paper_value(HE, column=column, kind="residual", depth=110) for column in ("value", "spread"))
    gap = contrast([sample.term(0), Term(5, mean, spread)], [1, -1])
    finding = all_of(sample.stuck == 0, is_equivalent(gap, TOLERANCE))
    return Outcome(finding, f"{sample.list()}; ours - the paper's {mean:.2f}: {gap}{sample.note}", sample.seeds)


@claim("C5")
def overfitting_at_1202(runs: pd.DataFrame) -> Outcome:
    """ResNet-1202 trains to a training error below 0.1% but tests worse than ResNet-110.

    Rule: its mean training error is below 0.1%, and its test error is clearly above that of 110; otherwise fails where a
    difference of half a point is ruled out.
    """
    sample = Sample(runs, DEEPEST, UNTIL_LEARNING)
    gap = sample.difference(0, 1)
    fits = sample.means("train_error")[0].mean < paper_value(HE, "training error", "upto", depth=1202)
    numbers = f"{sample.list('train_error')}; {sample.list()}; 1202 - 110: {gap}{sample.note}"
    return Outcome(all_of(fits, is_positive(gap, TOLERANCE)), numbers, sample.seeds)


@claim("C8")
def no_warmup_is_similar(runs: pd.DataFrame) -> Outcome:
    """ResNet-110 reaches similar accuracy without the warm-up (footnote).

    Rule: the test errors with and without are similar, and no run diverged. Runs that diverged count.
    """
    failed = fail_by_divergence(runs, NO_WARMUP, UNTIL_LEARNING)
    if failed:
        return failed
    sample = Sample(runs, NO_WARMUP, UNTIL_LEARNING)
    gap = sample.difference(0, 1)
    return Outcome(is_equivalent(gap, TOLERANCE), f"{sample.list()}; difference {gap}{sample.note}", sample.seeds)
