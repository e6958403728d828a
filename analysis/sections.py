"""What the sections of RESULTS.md share: the runs of a section, differences, verdicts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.claims import judge
from analysis.estimates import Interval, estimate
from analysis.markdown import format_number, format_table, join_words
from analysis.paper import load_paper, published
from analysis.records import comparable_runs, finished_runs, select_runs
from analysis.sample import NotEnoughRuns, Sample, choose_precision
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


def format_verdicts(runs: pd.DataFrame, *names: str) -> str:
    """Return "[C1](#claims): suggests (one seed)" for each claim; `runs` are all runs."""
    return "; ".join(f"[{name}](#claims): {judge(name, runs).words}" for name in names)


def describe_trend(values: Sequence[float]) -> str:
    """Return in words whether values increase or decrease from each to the next."""
    steps = np.diff(values)
    return "increases" if (steps > 0).all() else "decreases" if (steps < 0).all() else "is not ordered"


def format_published(kind: str, depths: Sequence[int]) -> str:
    """Return the published test errors of the paper's plain or residual nets, a row per source."""
    paper = published(load_paper(), kind=kind, variant="", quantity="test error")
    rows = []
    for source, group in paper.groupby("source", sort=False):
        by_depth = {int(row["depth"]): format_number(row) for _, row in group.iterrows()}
        name = f"{source}{'†' * bool((group['comparable'] == 'no').any())}"
        rows.append([name, *(by_depth.get(depth, "-") for depth in depths), describe_protocol(group)])
    return format_table(["source", *depths, "protocol"], rows)


def describe_protocol(group: pd.DataFrame) -> str:
    """Return what the protocols of a source's rows have in common, then what holds at single depths only."""
    protocols = {int(row["depth"]): str(row["protocol"]).split("; ") for _, row in group.iterrows()}
    parts: dict[str, list[int]] = {}
    for depth, words in protocols.items():
        for word in words:
            parts.setdefault(word, []).append(depth)
    return "; ".join(
        part if len(depths) == len(protocols) else f"{part} at {join_words([str(depth) for depth in depths])} layers"
        for part, depths in parts.items()
    )
