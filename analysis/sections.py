"""What the sections of RESULTS.md share: the runs of a section, differences, verdicts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.claims import Verdict, judge
from analysis.estimates import Interval, estimate
from analysis.markdown import format_number, format_table, join_words
from analysis.paper import load_paper, published
from analysis.records import comparable_runs, finished_runs, select_runs
from analysis.sample import SEEDS, NotEnoughRuns, Sample, choose_precision
from reproduce.config import Config


def choose_runs(runs: pd.DataFrame, configs: Sequence[Config]) -> tuple[pd.DataFrame, str]:
    """Return the full-length runs in the precision in which most of `configs` have runs, and that precision."""
    full = comparable_runs(runs)
    precision = choose_precision(full, configs)
    return full[full["precision"] == precision], precision


def mean_error(runs: pd.DataFrame, config: Config, column: str = "test_error") -> float:
    """Return the mean of a configuration's finished runs, NaN without any."""
    return estimate(finished_runs(select_runs(runs, config))[column].astype(float)).mean


def list_means(runs: pd.DataFrame, configs: Sequence[Config], column: str = "test_error") -> str:
    """Return "8.98, 10.37 and 15.13" of the configurations with finished runs."""
    means = [mean_error(runs, config, column) for config in configs]
    return join_words([f"{mean:.2f}" for mean in means if not np.isnan(mean)])


def find_gap(runs: pd.DataFrame, first: Config, second: Config) -> Interval | None:
    """Return the test error of `first` minus `second`, None without runs of both."""
    try:
        return Sample(runs, first, second).difference(0, 1)
    except NotEnoughRuns:
        return None


def format_gap(runs: pd.DataFrame, first: Config, second: Config) -> str:
    """Return the test error of `first` minus `second` with its 95% interval, empty without runs of both."""
    return str(find_gap(runs, first, second) or "")


def format_verdict(verdict: Verdict) -> str:
    """Return "C1: suggests, one seed"."""
    words = f"{verdict.name}: {', '.join([verdict.verdict, *filter(None, [SEEDS.get(verdict.seeds)])])}"
    other = f"; without the widest published standard deviation: {verdict.without_widest}"
    return words + other * bool(verdict.without_widest)


def format_verdicts(runs: pd.DataFrame, *names: str) -> str:
    """Return the verdicts on claims; `runs` are all runs."""
    return "; ".join(format_verdict(judge(name, runs)) for name in names)


def describe_trend(values: Sequence[float]) -> str:
    """Return in words whether values rise or fall from each to the next."""
    steps = np.diff(values)
    return "rises at every step" if (steps > 0).all() else "falls at every step" if (steps < 0).all() else "is not ordered"


def format_published(kind: str, depths: Sequence[int]) -> str:
    """Return the published test errors of the paper's plain or residual nets, a row per source."""
    paper = published(load_paper(), kind=kind, variant="")
    rows = []
    for (source, quantity), group in paper.groupby(["source", "quantity"], sort=False):
        if quantity in ("test error", "best test error"):
            by_depth = {int(row["depth"]): format_number(row) for _, row in group.iterrows()}
            name = f"{source}{' (best)' * (quantity == 'best test error')}"
            rows.append([name, *(by_depth.get(depth, "") for depth in depths), group["protocol"].iloc[0]])
    return format_table(["source", *depths, "protocol"], rows)
