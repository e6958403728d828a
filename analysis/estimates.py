"""What a few runs say: mean and spread of a cell, 95% intervals of means and differences, and what rules make of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
MINIMUM = 3
"""Finished runs of a cell from which on its spread is its own."""


@dataclass(frozen=True)
class Estimate:
    """A sample's summary: std with ddof 1, NaN for n < 2; low and high the mean's 95% Student-t interval, NaN below MINIMUM."""

    n: int
    mean: float
    std: float
    low: float
    high: float
    median: float
    best: float

    def __str__(self) -> str:
        """As in the paper: 6.61 ± 0.16 (n=5)."""
        if self.n == 0:
            return "-"
        return f"{self.mean:.2f}{'' if self.n < 2 else f' ± {self.std:.2f}'} (n={self.n})"

    @property
    def interval(self) -> str:
        return "-" if self.n < MINIMUM else f"{self.low:.2f} to {self.high:.2f}"


def estimate(values: Iterable[float]) -> Estimate:
    """Summarises a sample; missing values must have been left out by the caller.

    Raises:
        ValueError: a value is not finite.
    """
    sample = np.asarray(list(values), dtype=float)
    if not np.isfinite(sample).all():
        raise ValueError("a sample with a value that is not finite has no estimate")
    n = len(sample)
    if n == 0:
        return Estimate(0, *[math.nan] * 6)
    mean = float(sample.mean())
    std = float(sample.std(ddof=1)) if n > 1 else math.nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n) if n >= MINIMUM else math.nan
    return Estimate(n, mean, std, mean - half, mean + half, float(np.median(sample)), float(sample.min()))


# Means and differences -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """A cell in a comparison: so many runs with this mean, whose single runs spread by std.

    known: std is not the runs' own but taken from elsewhere, and as certain as that is. An infinite std is an unknown one.
    """

    n: int
    mean: float
    std: float
    known: bool = False


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of means: a mean, a difference, or a difference of differences.

    error: its standard error; degrees: of freedom of Student's t, infinite for the normal distribution.
    """

    mean: float
    error: float
    degrees: float

    @property
    def half(self) -> float:
        """Half of the 95% interval."""
        return t_quantile(self.degrees) * self.error

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    def __sub__(self, number: float) -> "Contrast":
        return Contrast(self.mean - number, self.error, self.degrees)

    def __str__(self) -> str:
        """A difference in points with its interval: +1.20 (+0.80 to +1.60)."""
        interval = f"{self.low:+.2f} to {self.high:+.2f}" if math.isfinite(self.error) else "of unknown spread"
        return f"{self.mean:+.2f} ({interval})"


def t_quantile(degrees: float) -> float:
    """How many standard errors half of a 95% interval has."""
    at = (1 + CONFIDENCE) / 2
    return float(stats.norm.ppf(at) if math.isinf(degrees) else stats.t.ppf(at, degrees))


def contrast(terms: Sequence[Term], weights: Sequence[float]) -> Contrast:
    """The weighted sum of the terms' means; degrees of freedom by Welch and Satterthwaite.

    Of one term it is Student's interval, of two with the weights 1 and -1 Welch's; with spreads that are known, the normal one.
    """
    variances = [(weight * term.std) ** 2 / term.n for term, weight in zip(terms, weights, strict=True)]
    own = sum(v**2 / (term.n - 1) for v, term in zip(variances, terms, strict=True) if not term.known)
    mean = sum(weight * term.mean for term, weight in zip(terms, weights, strict=True))
    return Contrast(mean, math.sqrt(sum(variances)), sum(variances) ** 2 / own if own else math.inf)


# Rules -----------------------------------------------------------------------------------------------------------------

Truth = bool | None
"""Whether a rule holds: it does, it does not, or the runs leave it open."""


@dataclass(frozen=True)
class Finding:
    """Whether a rule holds, and the p-value of the test that it rests on, None for a rule that is no test."""

    holds: Truth
    p: float | None = None


def is_positive(difference: Contrast, size: float = 0.0) -> Finding:
    """The interval lies above zero. Fails where it lies below zero, or below `size`; open in between."""
    holds = True if difference.low > 0 else False if difference.high < size else None
    return Finding(holds, p_value(difference))


def increases(difference: Contrast) -> Finding:
    """The mean is above zero. Fails where the whole interval is below; open in between."""
    return Finding(True if difference.mean > 0 else False if difference.high < 0 else None)


def is_equivalent(difference: Contrast, tolerance: float) -> Finding:
    """The whole interval lies within the tolerance of zero. Fails where it lies wholly outside; open in between."""
    fails = difference.low > tolerance or difference.high < -tolerance
    holds = True if -tolerance < difference.low and difference.high < tolerance else False if fails else None
    nearer = Contrast(tolerance - abs(difference.mean), difference.error, difference.degrees)
    return Finding(holds, p_value(nearer))  # of the two one-sided tests the one that has the harder time


def matches_published(term: Term, number: float, tolerance: float) -> Finding:
    """A published single number lies in the 95% prediction interval of one more run, and within the tolerance of the mean.

    Fails where the whole interval of the mean lies farther than the tolerance from it; open in between.
    """
    distance = contrast([term], [1]) - number
    if abs(distance.mean) <= min(tolerance, prediction_half_width(term)):
        return Finding(True)
    return Finding(False if distance.low > tolerance or distance.high < -tolerance else None)


def prediction_half_width(term: Term) -> float:
    """Half of the 95% prediction interval of one more run: t s sqrt(1 + 1/n)."""
    degrees = math.inf if term.known else term.n - 1
    return t_quantile(degrees) * term.std * math.sqrt(1 + 1 / term.n)


def p_value(difference: Contrast) -> float:
    """The p-value against a difference of zero or less, doubled: below 0.05 where the interval lies above zero."""
    if difference.error == 0:
        return 0.0 if difference.mean > 0 else 1.0
    ratio = difference.mean / difference.error
    tail = stats.norm.sf(ratio) if math.isinf(difference.degrees) else stats.t.sf(ratio, difference.degrees)
    return min(1.0, 2 * float(tail))


def all_of(*parts: Finding | bool) -> Finding:
    """False if any is, else open if any is, else True.

    The p-value is the largest, since all of them have to hold, and 1 where one that is no test does not.
    """
    findings = [part if isinstance(part, Finding) else Finding(part) for part in parts]
    truths, ps = [finding.holds for finding in findings], [finding.p for finding in findings if finding.p is not None]
    if ps and any(finding.p is None and not finding.holds for finding in findings):
        ps.append(1.0)
    return Finding(False if False in truths else None if None in truths else True, max(ps, default=None))


def holm_adjust(ps: Sequence[float]) -> list[float]:
    """Holm's p-values for several claims at once, in the order given."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, position in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[position]))
        adjusted[position] = largest
    return adjusted
