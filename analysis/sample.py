"""Cells to be compared: the finished runs of each in one precision, and the spread that their comparison goes by."""

import math
from collections.abc import Sequence

import pandas as pd

from analysis.estimates import MINIMUM, Contrast, Estimate, Finding, Term, all_of, contrast, estimate, increases
from analysis.markdown import format_label
from analysis.paper import find_spread
from analysis.records import PRECISIONS, finished_runs, select_runs, stuck_runs
from reproduce.config import Config

SEEDS = {1: "one seed", 2: "two seeds"}


class NotEnoughRuns(Exception):
    """Some cell has no finished run; the message says what there is."""


def choose_precision(runs: pd.DataFrame, configs: Sequence[Config]) -> str:
    """The one precision to compare the cells in: where all have MINIMUM runs, else where all have one, else where most do.

    Cells of different precision are never compared or pooled; of equals the one with more runs is taken, then the one in which
    more cells were tried, then fp32.
    """
    every = [select_runs(runs, config) for config in configs]

    def rank(precision: str) -> tuple[bool, bool, int, int, int, int]:
        cells = [cell[cell["precision"] == precision] for cell in every]
        counts = [min(len(finished_runs(cell)), MINIMUM) for cell in cells]
        several, some = counts.count(MINIMUM), len(cells) - counts.count(0)
        return several == len(cells), some == len(cells), some, several, sum(counts), sum(len(cell) > 0 for cell in cells)

    return max(PRECISIONS, key=rank)  # the first of equals


class Sample:
    """The finished runs of several configs in one precision, a frame each.

    The spread of single runs is each cell's own where all have MINIMUM runs, else the published one for all (see
    paper.find_spread). `is_published`: whether there is one; the responses of layers, for instance, have none.

    Raises:
        NotEnoughRuns: a config has none.
    """

    def __init__(self, runs: pd.DataFrame, *configs: Config, precision: str | None = None):
        self.configs, self.precision = configs, precision or choose_precision(runs, configs)
        every = [select_runs(runs[runs["precision"] == self.precision], config) for config in configs]
        self.cells = [finished_runs(cell) for cell in every]
        self.seeds = min(len(cell) for cell in self.cells)
        """Of the cell that has fewest, in the claim's other samples, too (see share_spread)."""
        self.is_published = all(math.isfinite(find_spread(config)) for config in configs)
        self.diverged = sum(int((cell["status"] == "diverged").sum()) for cell in every)
        self.stuck = sum(len(stuck_runs(cell)) for cell in self.cells)
        if self.seeds == 0:
            counts = ", ".join(
                f"{format_label(config)} n={len(cell)}" for config, cell in zip(configs, self.cells, strict=True)
            )
            raise NotEnoughRuns(f"a finished run of each cell is needed; there are: {counts}{self.note}")

    @property
    def note(self) -> str:
        """What stands behind its numbers: the precision, how many runs where they are few, and what is wrong with them."""
        notes = [self.precision]
        if self.seeds in SEEDS:
            notes.append(SEEDS[self.seeds] + format_spread_source(self))
        notes += [f"{self.diverged} diverged and in no mean"] * bool(self.diverged)
        notes += [f"{self.stuck} stuck and in the means"] * bool(self.stuck)
        return f" [{'; '.join(notes)}]"

    def means(self, column: str = "test_error") -> list[Estimate]:
        return [estimate(cell[column].astype(float)) for cell in self.cells]

    def term(self, position: int, column: str = "test_error") -> Term:
        """The cell at a position as a term of a comparison."""
        mean = self.means(column)[position]
        if self.seeds >= MINIMUM:
            return Term(mean.n, mean.mean, mean.std)
        in_points = column in ("test_error", "train_error")
        return Term(mean.n, mean.mean, find_spread(self.configs[position]) if in_points else math.inf, known=True)

    def contrast(self, weights: dict[int, float], column: str = "test_error") -> Contrast:
        """The weighted sum of the means of the cells at these positions."""
        return contrast([self.term(position, column) for position in weights], list(weights.values()))

    def mean(self, position: int, column: str = "test_error") -> Contrast:
        return self.contrast({position: 1}, column)

    def difference(self, first: int, second: int, column: str = "test_error") -> Contrast:
        """The cell at `first` minus the cell at `second`."""
        return self.contrast({first: 1, second: -1}, column)

    def increases(self, column: str = "test_error") -> Finding:
        """Whether the means rise from every cell to the next."""
        return all_of(*(increases(self.difference(i + 1, i, column)) for i in range(len(self.cells) - 1)))

    def list(self, column: str = "test_error") -> str:
        """Every cell's mean, in words."""
        means = zip(self.configs, self.means(column), strict=True)
        name = column.replace("train_", "training_").replace("_", " ")
        return f"{name} " + ", ".join(f"{format_label(config)} {mean}" for config, mean in means)


def pooled_published_std(*samples: Sample):
    """Makes several samples one in this: where one of them has too few runs, the spread is the published one for all."""
    for sample in samples:
        sample.seeds = min(other.seeds for other in samples)


def format_spread_source(sample: Sample) -> str:
    """What to add to a number where the spread of a run is not the cells' own but published."""
    return ", spread as published" if sample.seeds < MINIMUM and sample.is_published else ""


def format_difference(runs: pd.DataFrame, first: Config, second: Config) -> str:
    """The test error of first - second, in the precision that serves both best."""
    try:
        sample = Sample(runs, first, second)
    except NotEnoughRuns:
        return "-"
    counts = ", ".join(str(len(cell)) for cell in sample.cells)
    return f"{sample.difference(0, 1)}, n={counts}{format_spread_source(sample)}, {sample.precision}"
