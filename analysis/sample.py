"""Samples: the finished runs of several configurations in one precision, and their standard deviations."""

import math
from collections.abc import Sequence

import pandas as pd

from analysis.estimates import MINIMUM, Estimate, Interval, combine, estimate
from analysis.markdown import format_label
from analysis.paper import published_std
from analysis.records import PRECISIONS, finished_runs, select_runs, stuck_runs
from reproduce.config import Config

SEEDS = {1: "one seed", 2: "two seeds"}


class NotEnoughRuns(Exception):
    """A configuration has no finished run. `present` of `total` have one."""

    def __init__(self, present: int, total: int, numbers: str):
        super().__init__(numbers)
        self.present, self.total = present, total


def choose_precision(runs: pd.DataFrame, configs: Sequence[Config]) -> str:
    """Return the precision in which to compare configurations.

    Prefer the precision in which every configuration has MINIMUM runs, or else every one has a run, or else most have one. Ties
    go to the precision with more runs, then with more configurations tried, then to fp32.
    """
    every = [select_runs(runs, config) for config in configs]

    def rank(precision: str) -> tuple[bool, bool, int, int, int, int]:
        cells = [cell[cell["precision"] == precision] for cell in every]
        counts = [min(len(finished_runs(cell)), MINIMUM) for cell in cells]
        several, some = counts.count(MINIMUM), len(cells) - counts.count(0)
        return several == len(cells), some == len(cells), some, several, sum(counts), sum(len(cell) > 0 for cell in cells)

    return max(PRECISIONS, key=rank)  # the first of equals


class Sample:
    """The finished runs of several configurations, a frame each in `cells`.

    Uses our own standard deviations if every configuration has MINIMUM seeds, else published ones.

    precisions: of each configuration; by default one for all (see `choose_precision`).
    leave_out_widest: without the largest published standard deviation of each network.

    Raises:
        NotEnoughRuns: a configuration has none.
    """

    def __init__(
        self,
        runs: pd.DataFrame,
        *configs: Config,
        precisions: Sequence[str] | None = None,
        leave_out_widest: bool = False,
    ):
        self.configs, self.leave_out_widest = configs, leave_out_widest
        self.uses_published = False
        self.precisions = precisions or [choose_precision(runs, configs)] * len(configs)
        every = [select_runs(runs[runs["precision"] == p], c) for p, c in zip(self.precisions, configs, strict=True)]
        self.cells = [finished_runs(cell) for cell in every]
        self.diverged = [int((cell["status"] == "diverged").sum()) for cell in every]
        self.stuck = sum(len(stuck_runs(cell)) for cell in self.cells)
        counts = [len(cell) for cell in self.cells]
        self.seeds = min(counts)
        """Smallest number of seeds of a configuration."""
        if self.seeds == 0:
            listed = ", ".join(f"{format_label(config)} n={n}" for config, n in zip(configs, counts, strict=True))
            raise NotEnoughRuns(len(counts) - counts.count(0), len(counts), f"finished runs: {listed}{self.note}")

    @property
    def note(self) -> str:
        """Return " [bf16; one seed, published standard deviations]"."""
        notes = list(dict.fromkeys(self.precisions))
        if self.seeds in SEEDS:
            notes.append(SEEDS[self.seeds] + (", published standard deviations" if self.uses_published else ""))
        if any(self.diverged):
            notes.append(f"{sum(self.diverged)} diverged, not in the means")
        if self.stuck:
            notes.append(f"{self.stuck} stuck, in the means")
        return f" [{'; '.join(notes)}]"

    def mean(self, position: int, column: str = "test_error") -> Estimate:
        """Return the mean of a configuration; training errors get the published standard deviation of test errors."""
        own = estimate(self.cells[position][column].astype(float))
        if self.seeds >= MINIMUM:
            return own
        in_points = column in ("test_error", "train_error")
        std = published_std(self.configs[position], self.leave_out_widest) if in_points else math.inf
        self.uses_published |= math.isfinite(std)
        return Estimate(own.n, own.mean, std, published=True)

    def combine(self, weights: dict[int, float], column: str = "test_error") -> Interval:
        """Return the weighted sum of the means of the configurations at these positions."""
        return combine([self.mean(position, column) for position in weights], list(weights.values()))

    def difference(self, first: int, second: int, column: str = "test_error") -> Interval:
        """Return the configuration at `first` minus the one at `second`."""
        return self.combine({first: 1, second: -1}, column)

    def steps(self, column: str = "test_error") -> list[Interval]:
        """Return the difference of each configuration from the one before it."""
        return [self.difference(i + 1, i, column) for i in range(len(self.cells) - 1)]

    def list(self, column: str = "test_error") -> str:
        """Return "test error residual20 8.51 ± 0.18 (n=2), residual32 7.40 (n=1)"."""
        cells = zip(self.configs, self.cells, strict=True)
        means = ", ".join(f"{format_label(config)} {estimate(cell[column].astype(float))}" for config, cell in cells)
        return f"{column.replace('train_', 'training_').replace('_', ' ')} {means}"
