"""The paper's claims. A claim is a function whose docstring states it, and the rule by which it is judged.

RESULTS.md prints both. The rules were fixed before the runs. They see only runs of 64,000 iterations on all of
CIFAR-10's training images, and take at least MINIMUM finished runs of every cell, all in one precision; with less a
Sample cannot be made: "not enough data". Differences are paired by seed. "Clearly" means that the 95%
Student-t interval of the mean difference lies wholly on that side of zero; "points" are percentage points of error.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.estimates import Estimate, Sample, signed
from analysis.records import HE, paper_value
from reproduce.config import Config

TOLERANCE = 0.5
"""Points within which means over a few seeds are called similar: peers' seeds spread by 0.1 to 1.0."""
DEPTHS = (20, 32, 44, 56)
Outcome = tuple[bool, str]
"""Whether the rule holds, and the numbers behind it."""


def rising(means: Sequence[Estimate]) -> bool:
    return all(a.mean < b.mean for a, b in zip(means, means[1:], strict=False))


def degradation(runs: pd.DataFrame) -> Outcome:
    """Deeper plain nets have higher training and test error.

    Rule: over plain 20, 32, 44 and 56 the mean training error and the mean test error rise at every step, and 56 is
    clearly above 20 in both.
    """
    sample = Sample(runs, *(Config(depth=depth, residual=False) for depth in DEPTHS))
    columns = ("train_error", "test_error")
    ends = [sample.difference(-1, 0, column) for column in columns]
    holds = all(rising(sample.means(column)) for column in columns) and all(end.low > 0 for end in ends)
    numbers = "; ".join(
        f"{sample.list(column)}; 56 - 20: {signed(end)}" for column, end in zip(columns, ends, strict=True)
    )
    return holds, numbers + sample.note


def deeper_is_better(runs: pd.DataFrame) -> Outcome:
    """Deeper residual nets are better: the test error falls from 20 over 32, 44 and 56 to 110.

    Rule: the mean test error falls at every step, and 110 is clearly below 20.
    """
    sample = Sample(runs, *(Config(depth=depth) for depth in (*DEPTHS, 110)))
    ends = sample.difference(-1, 0)
    return rising(sample.means()[::-1]) and ends.high < 0, f"{sample.list()}; 110 - 20: {signed(ends)}{sample.note}"


def residual_beats_plain(runs: pd.DataFrame) -> Outcome:
    """Every residual net beats its plain twin, the more so the deeper it is.

    Rule: at 20, 32, 44 and 56 the plain net's test error is clearly above the residual net's, and the mean gap grows
    at every step.
    """
    kinds = [Config(depth=depth, residual=residual) for depth in DEPTHS for residual in (False, True)]
    sample = Sample(runs, *kinds)
    gaps = [sample.difference(2 * i, 2 * i + 1) for i in range(len(DEPTHS))]
    listed = ", ".join(f"{depth}: {signed(gap)}" for depth, gap in zip(DEPTHS, gaps, strict=True))
    return rising(gaps) and all(gap.low > 0 for gap in gaps), f"plain - residual, {listed}{sample.note}"


def warmup_converges(runs: pd.DataFrame) -> Outcome:
    """ResNet-110 converges well when it is warmed up until the training error is below 80%.

    Rule: no run diverged or got stuck, and the mean test error is less than 0.5 points from the paper's mean of five.
    """
    sample = Sample(runs, Config(depth=110))
    paper = paper_value(HE, kind="residual", depth=110)
    close = abs(sample.means()[0].mean - paper) < TOLERANCE
    return close and not sample.diverged and not sample.stuck, f"{sample.list()}; paper {paper:.2f}{sample.note}"


def overfitting_at_1202(runs: pd.DataFrame) -> Outcome:
    """ResNet-1202 trains to a training error below 0.1% but tests worse than ResNet-110.

    Rule: its mean training error is below 0.1%, and its test error is clearly above that of 110.
    """
    sample = Sample(runs, Config(depth=1202), Config(depth=110))
    limit = paper_value(HE, "training error", "upto", depth=1202)
    gap = sample.difference(0, 1)
    numbers = f"{sample.list('train_error')}; {sample.list()}; 1202 - 110: {signed(gap)}{sample.note}"
    return sample.means("train_error")[0].mean < limit and gap.low > 0, numbers


def with_mean_response(sample: Sample) -> Sample:
    """Adds a column, the mean standard deviation of the 3x3 layers' responses; drops runs without responses."""
    cells = [cell[cell["responses"].notna()] for cell in sample.cells]
    sample.cells = [cell.assign(mean_response=[np.mean(std) for std in cell["responses"]]) for cell in cells]
    return sample


def responses_are_smaller(runs: pd.DataFrame) -> Outcome:
    """Layer responses have generally smaller standard deviations in residual than in plain nets (Fig. 7).

    Rule: at 20 and at 56 the mean over the layers is clearly smaller in the residual net, and so is more than half
    of the layers, each averaged over the seeds.
    """
    kinds = [Config(depth=depth, residual=residual) for depth in (20, 56) for residual in (False, True)]
    sample = with_mean_response(Sample(runs, *kinds))
    gaps = [sample.difference(i + 1, i, "mean_response") for i in (0, 2)]
    layers = [np.mean(cell["responses"].tolist(), axis=0) for cell in sample.cells]
    shares = [float(np.mean(layers[i + 1] < layers[i])) for i in (0, 2)]
    listed = "; ".join(
        f"at {depth}: {signed(gap)}, {share:.0%} of the layers smaller"
        for depth, gap, share in zip((20, 56), gaps, shares, strict=True)
    )
    return all(gap.high < 0 for gap in gaps) and min(shares) > 0.5, f"residual - plain {listed}{sample.note}"


def responses_shrink_with_depth(runs: pd.DataFrame) -> Outcome:
    """Deeper residual nets have smaller responses per layer (Fig. 7).

    Rule: the mean over the layers falls from 20 to 56 to 110, and 110 is clearly below 20.
    """
    sample = with_mean_response(Sample(runs, *(Config(depth=depth) for depth in (20, 56, 110))))
    ends = sample.difference(-1, 0, "mean_response")
    holds = rising(sample.means("mean_response")[::-1]) and ends.high < 0
    return holds, f"{sample.list('mean_response')}; 110 - 20: {signed(ends)}{sample.note}"


def no_warmup_is_similar(runs: pd.DataFrame) -> Outcome:
    """ResNet-110 reaches similar accuracy without the warm-up (footnote).

    Rule: the mean difference in test error is less than 0.5 points, and no run without warm-up diverged.
    """
    sample = Sample(runs, Config(depth=110, warmup="none"), Config(depth=110))
    gap = sample.difference(0, 1)
    return abs(gap.mean) < TOLERANCE and not sample.diverged, f"{sample.list()}; difference {signed(gap)}{sample.note}"


def table_6(runs: pd.DataFrame) -> Outcome:
    """The test errors of Table 6 at 20, 32, 44 and 56.

    Rule: every mean is less than 0.5 points from the paper's number.
    """
    sample = Sample(runs, *(Config(depth=depth) for depth in DEPTHS))
    gaps = [m.mean - paper_value(HE, kind="residual", depth=d) for d, m in zip(DEPTHS, sample.means(), strict=True)]
    listed = ", ".join(f"{depth}: {gap:+.2f}" for depth, gap in zip(DEPTHS, gaps, strict=True))
    return max(map(abs, gaps)) < TOLERANCE, f"{sample.list()}; ours - paper, {listed}{sample.note}"
