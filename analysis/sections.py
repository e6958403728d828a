"""Helpers shared by the sections of RESULTS.md: the runs of a section, differences, verdicts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.claims import judge
from analysis.estimates import Interval, estimate
from analysis.markdown import (
    format_estimates,
    format_net,
    format_not_run,
    format_table,
    group_labels,
    join_words,
)
from analysis.records import comparable_runs, keep_recorded, select_finished, select_runs
from analysis.sample import Sample, choose_precision
from reproduce.config import Config


def choose_runs(runs: pd.DataFrame, configs: Sequence[Config]) -> tuple[pd.DataFrame, str]:
    """Return the full-length runs in the precision in which to compare `configs`, and that precision."""
    full = comparable_runs(runs)
    precision = choose_precision(full, configs)
    return full[full["precision"] == precision], precision


def mean_error(runs: pd.DataFrame, config: Config, column: str = "test_error") -> float:
    """Return the mean of a configuration's finished runs, NaN without any."""
    return estimate(select_finished(runs, config)[column].astype(float)).mean


def list_means(runs: pd.DataFrame, configs: Sequence[Config], column: str = "test_error") -> str:
    """Return "8.98, 10.37 and 15.13"."""
    return join_words([f"{mean_error(runs, config, column):.2f}" for config in configs])


def list_depths(configs: Sequence[Config]) -> str:
    """Return "20, 32 and 44"."""
    return join_words([str(config.depth) for config in configs])


def find_gap(runs: pd.DataFrame, first: Config, second: Config) -> Interval | None:
    """Return the test error of `first` minus `second`, None without runs of both."""
    sample = Sample(runs, first, second)
    return sample.difference(0, 1) if sample.seeds else None


def format_gap(runs: pd.DataFrame, first: Config, second: Config) -> str:
    """Return the test error of `first` minus `second` with its 95% interval, empty without runs of both."""
    return str(find_gap(runs, first, second) or "")


def format_verdicts(runs: pd.DataFrame, *names: str) -> str:
    """Return "[C1](#claims): suggests (one seed)" for each claim; `runs` are all runs."""
    return "; ".join(f"[{name}](#claims): {judge(name, runs).words}" for name in names)


def increases(values: Sequence[float]) -> bool:
    """Return whether each value is greater than the one before it."""
    return bool((np.diff(values) > 0).all())


def format_differences(runs: pd.DataFrame, configs: Sequence[Config], reference: Config, experiment: str) -> str:
    """Return a table of test errors and their differences from `reference`, and which of the experiment's runs are missing.

    Empty if no configuration except `reference` has a run.
    """
    ours, precision = choose_runs(runs, [reference, *configs])
    known = keep_recorded(ours, configs)
    if not known:
        return ""
    gaps = {config: format_gap(ours, config, reference) for config in known} | {reference: ""}
    rows = [[group_labels([config]), format_estimates(select_runs(ours, config)), gap] for config, gap in gaps.items()]
    table = format_table(["network", "test error", f"difference from {format_net(reference)}"], rows)
    command = f"python experiments/sweep.py {experiment} --precision {precision}"
    return f"""{table}

Test error in %, {precision}. {format_not_run(ours, configs, command)}"""
