"""Means with 95% intervals, and the tests used by the claims."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

CONFIDENCE = 0.95
MINIMUM = 3
"""Minimum seeds per configuration for intervals based on our own standard deviations."""


@dataclass(frozen=True)
class Interval:
    """A mean or a difference of means with its 95% interval.

    error: standard error; degrees: degrees of freedom of Student's t, infinite for the normal distribution.
    """

    mean: float
    error: float
    degrees: float

    @property
    def half(self) -> float:
        at = (1 + CONFIDENCE) / 2
        return self.error * float(special.ndtri(at) if math.isinf(self.degrees) else special.stdtrit(self.degrees, at))

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    @property
    def p(self) -> float:
        """Twice the one-sided p-value for mean > 0, at most 1; below 0.05 if and only if the interval lies above zero."""
        if self.error == 0:
            return 0.0 if self.mean > 0 else 1.0
        ratio = self.mean / self.error
        tail = special.ndtr(-ratio) if math.isinf(self.degrees) else special.stdtr(self.degrees, -ratio)
        return min(1.0, 2 * float(tail))

    def __sub__(self, number: float) -> "Interval":
        return Interval(self.mean - number, self.error, self.degrees)

    def __str__(self) -> str:
        """Return "+1.20 (+0.80 to +1.60)"."""
        known = math.isfinite(self.error)
        return f"{self.mean:+.2f} ({f'{self.low:+.2f} to {self.high:+.2f}' if known else 'standard deviation unknown'})"


@dataclass(frozen=True)
class Estimate:
    """The mean of n runs, and the standard deviation of one run (ddof 1; NaN for n < 2).

    published: `std` is a published one, taken as exact; infinite if none is published.
    """

    n: int
    mean: float
    std: float
    published: bool = False

    @property
    def degrees(self) -> float:
        return math.inf if self.published else self.n - 1

    def __str__(self) -> str:
        """Return "6.61 ± 0.16 (n=5)"."""
        if self.n == 0:
            return "-"
        return f"{self.mean:.2f}{'' if self.n < 2 else f' ± {self.std:.2f}'} (n={self.n})"


def estimate(values: Iterable[float]) -> Estimate:
    """Return mean and standard deviation of a sample.

    Raises:
        ValueError: a value is not finite.
    """
    sample = np.asarray(list(values), dtype=float)
    if not np.isfinite(sample).all():
        raise ValueError(f"values must be finite, got {sample}")
    n = len(sample)
    return Estimate(n, float(sample.mean()) if n else math.nan, float(sample.std(ddof=1)) if n > 1 else math.nan)


def combine(means: Sequence[Estimate], weights: Sequence[float]) -> Interval:
    """Return a weighted sum of means: Student's interval for one, Welch's for a difference, normal for published stds."""
    variances = [(weight * mean.std) ** 2 / mean.n for mean, weight in zip(means, weights, strict=True)]
    own = sum(v**2 / (mean.n - 1) for v, mean in zip(variances, means, strict=True) if not mean.published)
    total = sum(weight * mean.mean for mean, weight in zip(means, weights, strict=True))
    return Interval(total, math.sqrt(sum(variances)), sum(variances) ** 2 / own if own else math.inf)


def prediction(mean: Estimate) -> Interval:
    """Return the 95% prediction interval of one more run; subtract a published result for the interval of the difference."""
    return Interval(mean.mean, mean.std * math.sqrt(1 + 1 / mean.n), mean.degrees)


# Tests ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """Whether a rule holds (None: inconclusive), and its p-value (None for a rule that is not a test)."""

    holds: bool | None
    p: float | None = None


def is_positive(difference: Interval, size: float = 0.0) -> Finding:
    """Test that the interval lies above zero; refuted if it lies below `size`, the claimed effect."""
    return Finding(True if difference.low > 0 else False if difference.high < size else None, difference.p)


def is_equivalent(difference: Interval, tolerance: float) -> Finding:
    """Test that the interval lies within the tolerance of zero; refuted where it lies outside (two one-sided tests)."""
    outside = difference.low > tolerance or difference.high < -tolerance
    inside = -tolerance < difference.low and difference.high < tolerance
    nearer_bound = Interval(tolerance - abs(difference.mean), difference.error, difference.degrees)
    return Finding(True if inside else False if outside else None, nearer_bound.p)


def matches_published(difference: Interval, tolerance: float) -> Finding:
    """Check that `prediction(ours)` minus a published run contains zero and its mean lies within the tolerance.

    Refuted if neither is true.
    """
    consistent, close = abs(difference.mean) <= difference.half, abs(difference.mean) <= tolerance
    return Finding(consistent if consistent == close else None)


def all_of(*parts: Finding | bool) -> Finding:
    """Combine conditions: False if any is, else None if any is, else True.

    p: the largest, since all tests must hold; 1 if a condition without a test does not hold.
    """
    findings = [part if isinstance(part, Finding) else Finding(part) for part in parts]
    truths, ps = [finding.holds for finding in findings], [finding.p for finding in findings if finding.p is not None]
    if ps and any(finding.p is None and not finding.holds for finding in findings):
        ps.append(1.0)
    return Finding(False if False in truths else None if None in truths else True, max(ps, default=None))


def holm_adjust(ps: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, position in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[position]))
        adjusted[position] = largest
    return adjusted


def compare_predictions(first: str, second: str) -> tuple[int, int, float]:
    """Return the test images that only `first` and only `second` misclassifies, and the p-value of McNemar's exact test.

    first, second: a character per test image as in predictions.txt, a digit if it is classified correctly, else a letter.
    """
    pairs = list(zip(first, second, strict=True))
    only_first = sum(one.isalpha() and other.isdigit() for one, other in pairs)
    only_second = sum(one.isdigit() and other.isalpha() for one, other in pairs)
    differing = only_first + only_second
    return only_first, only_second, float(stats.binomtest(only_first, differing).pvalue) if differing else 1.0
