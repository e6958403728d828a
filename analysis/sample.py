"""Cells fit to be compared: enough runs of each, in one precision that may stand for the paper's."""

import pandas as pd

from analysis.estimates import Estimate, Truth, all_of, differences, estimate, grows, within
from analysis.markdown import label
from analysis.records import choose_precision, comparable, finished, select, stuck
from experiments.precision import NETS
from reproduce.config import Config

MINIMUM = 3
"""Finished runs per cell that a comparison takes."""
NEUTRAL_WITHIN = 0.5
"""Points: what the mean difference of a neutral precision is shown not to exceed."""


def precision_effects(runs: pd.DataFrame, precision: str) -> list[pd.Series]:
    """Of each of the experiment's nets, the test error in a precision less that in fp32, by seed."""
    done = finished(comparable(runs))
    here, full = (done[done["precision"] == which] for which in (precision, Config().precision))
    return [differences(select(here, net), select(full, net)) for net in NETS]


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
    """Whether a run of those nets diverged in a precision whose twin in fp32 finished."""
    lost, full = runs[runs["status"] == "diverged"], finished(runs[runs["precision"] == Config().precision])
    lost = lost[lost["precision"] == precision]
    return any(select(lost, net)["seed"].isin(select(full, net)["seed"]).any() for net in NETS)


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
