"""What a handful of seeds says: mean, spread, Student-t interval, paired differences; and cells fit to be compared."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.records import choose_precision, comparable, finished, label, select, stuck
from reproduce.config import Config

CONFIDENCE = 0.95
MINIMUM = 3
"""Finished runs per cell that a comparison takes."""


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

    @property
    def interval(self) -> str:
        return "-" if self.n < 2 else f"{self.low:.2f} to {self.high:.2f}"

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


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


def pair(first: pd.DataFrame, second: pd.DataFrame, column: str = "test_error") -> Estimate:
    """The differences first - second of a column, over the seeds that both cells have; each cell of one config.

    Runs of one seed see the same batches, and equal nets start equal, so the difference is estimated within seeds.
    """
    both = (
        first.set_index("seed")[column] - second.set_index("seed")[column]
    )  # aligned by seed, missing where one lacks it
    return estimate(both.dropna().astype(float))


def signed(difference: Estimate) -> str:
    """A difference in points with its interval: +1.20 (0.80 to 1.60, n=3)."""
    if difference.n == 0:
        return "-"
    interval = f"{difference.low:+.2f} to {difference.high:+.2f}, " if difference.n > 1 else ""
    return f"{difference.mean:+.2f} ({interval}n={difference.n})"


class NotEnoughRuns(Exception):
    """Some cell of a claim has too few finished runs; the message says what there is."""


class Sample:
    """The finished runs of several configs in one precision, a frame each.

    Raises:
        NotEnoughRuns: a config has fewer than MINIMUM.
    """

    def __init__(self, runs: pd.DataFrame, *configs: Config):
        runs = comparable(runs)
        self.configs, self.precision = configs, choose_precision(runs, configs, MINIMUM)
        every = [select(runs[runs["precision"] == self.precision], config) for config in configs]
        self.cells = [finished(cell) for cell in every]
        self.diverged = sum(int((cell["status"] == "diverged").sum()) for cell in every)
        self.stuck = sum(len(stuck(cell)) for cell in every)
        self.note = f" [{self.precision}"
        self.note += f"; {self.diverged} diverged and in no mean" if self.diverged else ""
        self.note += f"; {self.stuck} stuck and in the means]" if self.stuck else "]"
        if any(len(cell) < MINIMUM for cell in self.cells):
            counts = ", ".join(
                f"{label(config)} n={len(cell)}" for config, cell in zip(configs, self.cells, strict=True)
            )
            raise NotEnoughRuns(f"{MINIMUM} finished runs of each cell are needed; there are: {counts}{self.note}")

    def means(self, column: str = "test_error") -> list[Estimate]:
        return [estimate(cell[column].astype(float)) for cell in self.cells]

    def difference(self, first: int, second: int, column: str = "test_error") -> Estimate:
        """The cell at `first` minus the cell at `second`, paired by seed."""
        difference = pair(self.cells[first], self.cells[second], column)
        if difference.n < MINIMUM:
            raise NotEnoughRuns(f"{MINIMUM} seeds in common are needed; there are {difference.n}{self.note}")
        return difference

    def list(self, column: str = "test_error") -> str:
        """Every cell's mean, in words."""
        means = zip(self.configs, self.means(column), strict=True)
        return f"{column.replace('_', ' ')} " + ", ".join(f"{label(config)} {mean}" for config, mean in means)
