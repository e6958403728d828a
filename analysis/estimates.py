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


# Precisions that may stand for the paper's -----------------------------------------------------------------------------

NEUTRAL_ON = (Config(depth=20), Config(depth=56))
"""The nets on which a precision is compared with fp32."""
NEUTRAL_WITHIN = 0.5
"""Points: what the mean difference of a neutral precision is shown not to exceed."""


def precision_effects(runs: pd.DataFrame, precision: str) -> list[pd.Series]:
    """Of each net of NEUTRAL_ON, the test error in a precision less that in fp32, by seed."""
    done = finished(comparable(runs))
    here, full = (done[done["precision"] == which] for which in (precision, Config().precision))
    return [differences(select(here, net), select(full, net)) for net in NEUTRAL_ON]


def is_neutral(runs: pd.DataFrame, precision: str) -> Truth:
    """Whether a precision is shown to give the test errors of fp32 (the rule stands in template.md)."""
    if precision == Config().precision:
        return True
    effects = precision_effects(runs, precision)
    both = mean_effect(effects)
    if len(both) < MINIMUM:
        return None
    each = [True if abs(estimate(effect).mean) < NEUTRAL_WITHIN else None for effect in effects]
    return all_of(within(estimate(both), NEUTRAL_WITHIN), *each, not diverges(comparable(runs), precision))


def mean_effect(effects: list[pd.Series]) -> pd.Series:
    """The mean over the nets by seed, over the seeds that all of them have."""
    return pd.concat(effects, axis=1, join="inner").mean(axis=1)


def diverges(runs: pd.DataFrame, precision: str) -> bool:
    """Whether a run of NEUTRAL_ON diverged in a precision whose twin in fp32 finished."""
    lost, full = runs[runs["status"] == "diverged"], finished(runs[runs["precision"] == Config().precision])
    lost = lost[lost["precision"] == precision]
    return any(select(lost, net)["seed"].isin(select(full, net)["seed"]).any() for net in NEUTRAL_ON)


def admitted(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that may stand beside the paper's: comparable ones, in fp32 or a precision shown to be neutral."""
    runs = comparable(runs)
    return runs[runs["precision"].isin([precision for precision in runs["precision"].unique() if is_neutral(runs, precision)])]


class NotEnoughRuns(Exception):
    """Some cell of a claim has too few finished runs; the message says what there is."""


class Sample:
    """The finished runs of several configs in one precision, fp32 or one shown to be neutral, a frame each.

    Raises:
        NotEnoughRuns: a config has fewer than MINIMUM.
    """

    def __init__(self, runs: pd.DataFrame, *configs: Config):
        every_run, runs = comparable(runs), admitted(runs)
        self.configs, self.precision = configs, choose_precision(runs, configs, MINIMUM)
        every = [select(runs[runs["precision"] == self.precision], config) for config in configs]
        self.cells = [finished(cell) for cell in every]
        self.diverged = sum(int((cell["status"] == "diverged").sum()) for cell in every)
        self.stuck = sum(len(stuck(cell)) for cell in every)
        self.note = f" [{self.precision}"
        self.note += f"; {self.diverged} diverged and in no mean" if self.diverged else ""
        self.note += f"; {self.stuck} stuck and in the means]" if self.stuck else "]"
        if any(len(cell) < MINIMUM for cell in self.cells):
            counts = ", ".join(f"{label(config)} n={len(cell)}" for config, cell in zip(configs, self.cells, strict=True))
            left_out = every_run.drop(runs.index)
            others = sorted(set(pd.concat([select(left_out, config) for config in configs])["precision"]))
            neutral = "".join(f"; {precision} is not shown to be neutral" for precision in others)
            raise NotEnoughRuns(f"{MINIMUM} finished runs of each cell are needed; there are: {counts}{self.note}{neutral}")

    def means(self, column: str = "test_error") -> list[Estimate]:
        return [estimate(cell[column].astype(float)) for cell in self.cells]

    def differences(self, first: int, second: int, column: str = "test_error") -> pd.Series:
        """The cell at `first` minus the cell at `second`, by seed."""
        return differences(self.cells[first], self.cells[second], column)

    def difference(self, first: int, second: int, column: str = "test_error") -> Estimate:
        """The estimate of `differences`."""
        return self.estimate(self.differences(first, second, column))

    def estimate(self, by_seed: pd.Series) -> Estimate:
        """Summarises values by seed.

        Raises:
            NotEnoughRuns: there are fewer than MINIMUM.
        """
        if len(by_seed) < MINIMUM:
            raise NotEnoughRuns(f"{MINIMUM} seeds in common are needed; there are {len(by_seed)}{self.note}")
        return estimate(by_seed)

    def rises(self, column: str = "test_error") -> Truth:
        """Whether the means rise from every cell to the next."""
        return all_of(*(grows(self.difference(i + 1, i, column)) for i in range(len(self.cells) - 1)))

    def list(self, column: str = "test_error") -> str:
        """Every cell's mean, in words."""
        means = zip(self.configs, self.means(column), strict=True)
        name = column.replace("train_", "training_").replace("_", " ")
        return f"{name} " + ", ".join(f"{label(config)} {mean}" for config, mean in means)
