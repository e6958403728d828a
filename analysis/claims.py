"""The paper's claims. A claim is a function whose docstring states it and the rule by which it is judged.

RESULTS.md prints both. The rules were fixed before the runs. They see only runs of 64,000 iterations on all of
CIFAR-10's training images, and take at least MINIMUM finished runs of every cell, all in one precision: there is no
Sample of fewer. Differences are paired by seed. What "clearly", "rises" and "similar" mean, and when the seeds leave a
claim open, stands at the functions of estimates.py and, for the reader of RESULTS.md, in template.md.
"""

import numpy as np
import pandas as pd

from analysis.estimates import Sample, Truth, all_of, clearly_positive, grows, signed, similar
from analysis.records import HE, paper_value, with_mean_response
from reproduce.config import Config

TOLERANCE = 0.5
"""Points within which means over a few seeds are similar: peers' seeds spread by 0.1 to 1.0."""
DEPTHS = (20, 32, 44, 56)
Outcome = tuple[Truth, str]
"""Whether the rule holds (None where the seeds leave it open), and the numbers behind it."""


def degradation(runs: pd.DataFrame) -> Outcome:
    """Deeper plain nets have higher training and test error.

    Rule: over plain 20, 32, 44 and 56 the training error and the test error rise at every step, and 56 is clearly
    above 20 in both.
    """
    sample = Sample(runs, *(Config(depth=depth, residual=False) for depth in DEPTHS))
    truths, numbers = [], []
    for column in ("train_error", "test_error"):
        ends = sample.difference(-1, 0, column)
        truths += [sample.rises(column), clearly_positive(ends, TOLERANCE)]
        numbers.append(f"{sample.list(column)}; 56 - 20: {signed(ends)}")
    return all_of(*truths), "; ".join(numbers) + sample.note


def deeper_is_better(runs: pd.DataFrame) -> Outcome:
    """Deeper residual nets are better: the test error falls from 20 over 32, 44 and 56 to 110.

    Rule: the test error rises at every step from 110 back to 20, and 20 is clearly above 110.
    """
    sample = Sample(runs, *(Config(depth=depth) for depth in (110, *reversed(DEPTHS))))
    ends = sample.difference(-1, 0)
    truth = all_of(sample.rises(), clearly_positive(ends, TOLERANCE))
    return truth, f"{sample.list()}; 20 - 110: {signed(ends)}{sample.note}"


def residual_beats_plain(runs: pd.DataFrame) -> Outcome:
    """Every residual net beats its plain twin, the more so the deeper it is.

    Rule: at 20, 32, 44 and 56 the plain net's test error is clearly above the residual net's, and the gap rises at
    every step.
    """
    nets = [Config(depth=depth, residual=residual) for depth in DEPTHS for residual in (False, True)]
    sample = Sample(runs, *nets)
    by_seed = [sample.differences(2 * i, 2 * i + 1) for i in range(len(DEPTHS))]
    gaps = [sample.estimate(gap) for gap in by_seed]
    steps = [sample.estimate((by_seed[i + 1] - by_seed[i]).dropna()) for i in range(len(DEPTHS) - 1)]
    truth = all_of(*(clearly_positive(gap, TOLERANCE) for gap in gaps), *(grows(step) for step in steps))
    listed = ", ".join(f"{depth}: {signed(gap)}" for depth, gap in zip(DEPTHS, gaps, strict=True))
    return truth, f"plain - residual, {listed}{sample.note}"


def warmup_converges(runs: pd.DataFrame) -> Outcome:
    """ResNet-110 converges well when it is warmed up until the training error is below 80%.

    Rule: no run diverged or got stuck, and the test error is similar to the paper's mean of five.
    """
    sample = Sample(runs, Config(depth=110))
    paper = paper_value(HE, kind="residual", depth=110)
    truth = all_of(sample.diverged == 0, sample.stuck == 0, similar(sample.means()[0] - paper, TOLERANCE))
    return truth, f"{sample.list()}; the paper's {paper:.2f}{sample.note}"


def overfitting_at_1202(runs: pd.DataFrame) -> Outcome:
    """ResNet-1202 trains to a training error below 0.1% but tests worse than ResNet-110.

    Rule: its mean training error is below 0.1%, and its test error is clearly above that of 110.
    """
    sample = Sample(runs, Config(depth=1202), Config(depth=110))
    gap = sample.difference(0, 1)
    fits = sample.means("train_error")[0].mean < paper_value(HE, "training error", "upto", depth=1202)
    numbers = f"{sample.list('train_error')}; {sample.list()}; 1202 - 110: {signed(gap)}{sample.note}"
    return all_of(fits, clearly_positive(gap, TOLERANCE)), numbers


def sample_responses(runs: pd.DataFrame, *nets: Config) -> Sample:
    """A sample with the column mean_response."""
    sample = Sample(runs, *nets)
    sample.cells = [with_mean_response(cell) for cell in sample.cells]
    return sample


def responses_are_smaller(runs: pd.DataFrame) -> Outcome:
    """Layer responses have generally smaller standard deviations in residual than in plain nets (Fig. 7).

    Rule: at 20 and at 56 the mean over the layers is clearly larger in the plain net, and more than half of the layers
    have, averaged over the seeds, the larger one there.
    """
    truths, numbers = [], []
    for depth in (20, 56):
        sample = sample_responses(runs, Config(depth=depth, residual=False), Config(depth=depth))
        gap = sample.difference(0, 1, "mean_response")
        plain, residual = (np.mean(cell["responses"].tolist(), axis=0) for cell in sample.cells)
        share = float(np.mean(plain > residual))
        truths += [clearly_positive(gap), share > 0.5]
        numbers.append(f"plain - residual at {depth}: {signed(gap)}, {share:.0%} of the layers{sample.note}")
    return all_of(*truths), "; ".join(numbers)


def responses_shrink_with_depth(runs: pd.DataFrame) -> Outcome:
    """Deeper residual nets have smaller responses per layer (Fig. 7).

    Rule: the mean over the layers rises from 110 to 56 and to 20, and 20 is clearly above 110.
    """
    sample = sample_responses(runs, *(Config(depth=depth) for depth in (110, 56, 20)))
    ends = sample.difference(-1, 0, "mean_response")
    truth = all_of(sample.rises("mean_response"), clearly_positive(ends))
    return truth, f"{sample.list('mean_response')}; 20 - 110: {signed(ends)}{sample.note}"


def no_warmup_is_similar(runs: pd.DataFrame) -> Outcome:
    """ResNet-110 reaches similar accuracy without the warm-up (footnote).

    Rule: the test errors with and without are similar, and no run diverged.
    """
    sample = Sample(runs, Config(depth=110, warmup="none"), Config(depth=110))
    gap = sample.difference(0, 1)
    truth = all_of(similar(gap, TOLERANCE), sample.diverged == 0)
    return truth, f"{sample.list()}; difference {signed(gap)}{sample.note}"


def table_6(runs: pd.DataFrame) -> Outcome:
    """The test errors of Table 6 at 20, 32, 44 and 56.

    Rule: every one is similar to the paper's.
    """
    sample = Sample(runs, *(Config(depth=depth) for depth in DEPTHS))
    papers = [paper_value(HE, kind="residual", depth=depth) for depth in DEPTHS]
    gaps = [mean - paper for mean, paper in zip(sample.means(), papers, strict=True)]
    listed = ", ".join(f"{depth}: {gap.mean:+.2f}" for depth, gap in zip(DEPTHS, gaps, strict=True))
    return all_of(*(similar(gap, TOLERANCE) for gap in gaps)), f"{sample.list()}; ours - paper, {listed}{sample.note}"
