"""List the recorded runs.

    python analysis/runs.py --net residual20
    python analysis/runs.py --full --format csv > runs.csv

In Python, `analysis.records.load_records(Path("experiments/records"))` returns the runs and their curves as DataFrames.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pandas as pd
import tyro

from analysis.markdown import format_label, format_table
from analysis.records import RECORD_COLUMNS, RECORDS, comparable_runs, load_records, to_configs
from reproduce.cli import parse_args, run_cli
from reproduce.config import Precision

DIGITS = {"test_error": 2, "train_error": 2, "hours": 1}


@dataclass(frozen=True)
class ListOptions:
    """Which runs to list, and how."""

    records: Path = RECORDS
    """Folder that contains the run folders."""
    net: Annotated[str | None, tyro.conf.arg(metavar="NET", help_behavior_hint="")] = None
    """Only this net, such as residual20 or plain56."""
    precision: Annotated[Precision | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Only this precision."""
    full: bool = False
    """Only runs of full length on all training images."""
    format: Literal["text", "csv", "markdown", "latex"] = "text"
    """text cuts lines at the width of the terminal; csv has every field of config and result."""


def filter_runs(runs: pd.DataFrame, options: ListOptions) -> pd.DataFrame:
    """Apply the filters, and add the columns `hours` and `recipe`, a label of the configuration."""
    configs = to_configs(runs)
    runs = runs.assign(hours=runs["seconds"] / 3600, recipe=[format_label(config) for config in configs])
    if options.net is not None:
        runs = runs.loc[[config.net == options.net for config in configs]]
    if options.precision is not None:
        runs = runs[runs["precision"] == options.precision]
    return comparable_runs(runs) if options.full else runs


def format_runs(runs: pd.DataFrame, form: str) -> str:
    """Return a line per run, errors in percent."""
    if form == "csv":
        return runs.drop(columns=RECORD_COLUMNS).to_csv(index=False).rstrip()
    if runs.empty:
        return "no matching run is recorded"
    shown = runs[["folder", "precision", "iterations", "status", *DIGITS, "recipe"]].copy()
    for column, digits in DIGITS.items():
        shown[column] = ["-" if pd.isna(value) else f"{value:.{digits}f}" for value in shown[column]]
    if form == "markdown":
        return format_table(shown.columns.tolist(), shown.to_numpy().tolist())
    if form == "latex":
        style = shown.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
        return style.to_latex(hrules=True).rstrip()
    for column in ("folder", "recipe"):
        shown[column] = shown[column].str.ljust(shown[column].str.len().max())
    return shown.to_string(index=False, justify="left")


def main(arguments: Sequence[str]) -> int:
    options = parse_args(ListOptions, arguments, "runs.py", __doc__, tyro.conf.FlagCreatePairsOff)
    text = format_runs(filter_runs(load_records(options.records)[0], options), options.format)
    width = shutil.get_terminal_size().columns if options.format == "text" and sys.stdout.isatty() else None
    print(*(line[:width].rstrip() for line in text.splitlines()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
