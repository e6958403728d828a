"""What a handful of seeds says: mean, spread, Student-t interval, paired differences."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A sample's summary: std with ddof 1, low and high the mean's 95% Student-t interval, all three NaN for n < 2."""

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

    def __sub__(self, number: float) -> "Estimate":
        """The estimate of the sample less a number."""
        places = (self.mean - number, self.std, self.low - number, self.high - number)
        return Estimate(self.n, *places, self.median - number, self.best - number)

    @property
    def interval(self) -> str:
        return "-" if self.n < 2 else f"{self.low:.2f} to {self.high:.2f}"


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
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n) if n > 1 else math.nan
    return Estimate(n, mean, std, mean - half, mean + half, float(np.median(sample)), float(sample.min()))


def differences(first: pd.DataFrame, second: pd.DataFrame, column: str = "test_error") -> pd.Series:
    """first - second of a column, by seed, over the seeds that both cells have; each cell is of one config.

    Runs of one seed see the same batches, and equal nets start equal, so a difference is taken within seeds.
    """
    # Subtraction aligns the seeds and leaves a gap where one cell lacks it.
    return (first.set_index("seed")[column] - second.set_index("seed")[column]).dropna().astype(float)


def pair(first: pd.DataFrame, second: pd.DataFrame, column: str = "test_error") -> Estimate:
    """The estimate of `differences`."""
    return estimate(differences(first, second, column))


def signed(difference: Estimate) -> str:
    """A difference in points with its interval: +1.20 (+0.80 to +1.60, n=3)."""
    if difference.n == 0:
        return "-"
    interval = f"{difference.low:+.2f} to {difference.high:+.2f}, " if difference.n > 1 else ""
    return f"{difference.mean:+.2f} ({interval}n={difference.n})"


# What an estimate says of a claim: it holds, it does not, or the seeds leave it open.

Truth = bool | None


def clearly_positive(difference: Estimate, size: float = 0.0) -> Truth:
    """Whether the interval lies above zero. It does not where the interval lies below `size`; in between it is open."""
    return True if difference.low > 0 else False if difference.high < size else None


def grows(difference: Estimate) -> Truth:
    """Whether the mean is above zero. It is not where the whole interval is below; in between it is open."""
    return True if difference.mean > 0 else False if difference.high < 0 else None


def similar(difference: Estimate, tolerance: float) -> Truth:
    """Whether the mean is nearer to zero than the tolerance. It is not where the whole interval lies farther away."""
    if abs(difference.mean) < tolerance:
        return True
    return False if difference.low > tolerance or difference.high < -tolerance else None


def within(difference: Estimate, tolerance: float) -> Truth:
    """Whether the whole interval is nearer to zero than the tolerance. It is not where all of it lies farther away."""
    if -tolerance < difference.low and difference.high < tolerance:
        return True
    return False if difference.low > tolerance or difference.high < -tolerance else None


def all_of(*truths: Truth) -> Truth:
    """False if any is, else open if any is, else True."""
    return False if False in truths else None if None in truths else True
