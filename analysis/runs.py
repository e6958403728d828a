"""List the recorded runs.

    python analysis/runs.py --net residual20
    python analysis/runs.py --full --csv > runs.csv

In Python, `analysis.records.load_records(Path("experiments/records"))` returns the runs and their curves as DataFrames.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
import tyro

from analysis.markdown import format_label
from analysis.records import RECORDS, comparable_runs, load_records, to_configs
from reproduce.cli import parse_args, run_cli
from reproduce.config import Precision

FORMATS = {"test_error": "{:.2f}", "train_error": "{:.2f}", "seconds": "{:.0f}"}
COLUMNS = ["folder", "net", "precision", "iterations", "status", *FORMATS]


@dataclass(frozen=True)
class ListOptions:
    """Which runs to list."""

    records: Path = RECORDS
    """Folder that contains the run folders."""
    net: Annotated[str | None, tyro.conf.arg(metavar="NET", help_behavior_hint="")] = None
    """Only this net, such as residual20 or plain56."""
    precision: Annotated[Precision | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Only this precision."""
    full: bool = False
    """Only runs of full length on all training images."""
    csv: bool = False
    """Print comma-separated values with every field of config and result."""


def filter_runs(runs: pd.DataFrame, options: ListOptions) -> pd.DataFrame:
    """Apply the filters, and add a column `net` that describes the configuration."""
    configs = to_configs(runs)
    runs = runs.assign(net=[format_label(config) for config in configs])
    if options.net is not None:
        runs = runs.loc[[config.net == options.net for config in configs]]
    if options.precision is not None:
        runs = runs[runs["precision"] == options.precision]
    return comparable_runs(runs) if options.full else runs


def format_runs(runs: pd.DataFrame) -> str:
    """Format the runs as aligned columns, errors in percent."""
    shown = runs[COLUMNS].copy()
    for column, form in FORMATS.items():
        shown[column] = ["-" if pd.isna(value) else form.format(value) for value in shown[column]]
    return shown.to_string(index=False)


def main(arguments: Sequence[str]) -> int:
    options = parse_args(ListOptions, arguments, "runs.py", __doc__, tyro.conf.FlagCreatePairsOff)
    runs = filter_runs(load_records(options.records)[0], options)
    if options.csv:
        print(runs.drop(columns=["sessions", "predictions", "confusion", "responses"]).to_csv(index=False), end="")
    else:
        print(format_runs(runs) if len(runs) else "no matching run is recorded")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
