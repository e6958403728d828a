"""Samples: the finished runs of several configurations in one precision, and their standard deviations."""

import math
from collections.abc import Sequence

import pandas as pd

from analysis.estimates import MINIMUM, Estimate, Interval, combine, estimate
from analysis.markdown import format_label
from analysis.paper import Pooling, published_std
from analysis.records import PRECISIONS, finished_runs, select_runs, stuck_runs
from reproduce.config import Config

FEW_SEEDS = {1: "one seed", 2: "two seeds"}
"""Numbers of seeds below MINIMUM, in words."""


def choose_precision(runs: pd.DataFrame, configs: Sequence[Config]) -> str:
    """Return the precision in which to compare configurations.

    Criteria, most important first: the smallest number of finished runs of any configuration; the number of configurations with
    a finished run; the number of finished runs; the number of configurations with any run. At most MINIMUM finished runs count
    per configuration. Ties go to the first of PRECISIONS.
    """
    every = [select_runs(runs, config) for config in configs]

    def rank(precision: str) -> tuple[int, int, int, int]:
        groups = [group[group["precision"] == precision] for group in every]
        counts = [min(len(finished_runs(group)), MINIMUM) for group in groups]
        return min(counts), len(groups) - counts.count(0), sum(counts), sum(len(group) > 0 for group in groups)

    return max(PRECISIONS, key=rank)  # the first of equals


class Sample:
    """The finished runs of several configurations in the precision of `choose_precision`.

    Uses our own standard deviations if every configuration has MINIMUM seeds, else published ones.

    groups: a DataFrame per configuration. seeds: the smallest number of seeds of any configuration; if 0, there are no means.
    """

    def __init__(self, runs: pd.DataFrame, *configs: Config, pooling: Pooling = "all"):
        self.configs, self.pooling = configs, pooling
        self.precision = choose_precision(runs, configs)
        runs = runs[runs["precision"] == self.precision]
        every = [select_runs(runs, config) for config in configs]
        self.groups = [finished_runs(group) for group in every]
        self.diverged = [int((group["status"] == "diverged").sum()) for group in every]
        self.stuck = sum(len(stuck_runs(group)) for group in self.groups)
        self.counts = [len(group) for group in self.groups]
        self.seeds = min(self.counts)

    @property
    def note(self) -> str:
        """Return " [bf16; one seed; 1 diverged, not in the means]"."""
        notes = [self.precision]
        if self.seeds in FEW_SEEDS:
            notes.append(FEW_SEEDS[self.seeds])
        if any(self.diverged):
            notes.append(f"{sum(self.diverged)} diverged, not in the means")
        if self.stuck:
            notes.append(f"{self.stuck} stuck, in the means")
        return f" [{'; '.join(notes)}]"

    def mean(self, position: int, column: str = "test_error") -> Estimate:
        """Return the mean of a configuration; training errors get the published standard deviation of test errors."""
        own = estimate(self.groups[position][column].astype(float))
        if self.seeds >= MINIMUM:
            return own
        in_points = column in ("test_error", "train_error")
        std = published_std(self.configs[position], self.pooling) if in_points else math.inf
        return Estimate(own.n, own.mean, std, published=True)

    def weighted_sum(self, weights: dict[int, float], column: str = "test_error") -> Interval:
        """Return the weighted sum of the means of the configurations at these positions."""
        return combine([self.mean(position, column) for position in weights], list(weights.values()))

    def difference(self, first: int, second: int, column: str = "test_error") -> Interval:
        """Return the configuration at `first` minus the one at `second`."""
        return self.weighted_sum({first: 1, second: -1}, column)

    def format_means(self, column: str = "test_error") -> str:
        """Return "test error residual20 8.51 ± 0.18 (n=2), residual32 7.40 (n=1)"."""
        groups = zip(self.configs, self.groups, strict=True)
        means = ", ".join(f"{format_label(config)} {estimate(group[column].astype(float))}" for config, group in groups)
        return f"{column.replace('train_', 'training_').replace('_', ' ')} {means}"
