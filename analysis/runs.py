"""List the recorded runs, as a table or for a program of yours.

    python analysis/runs.py --net residual20
    python analysis/runs.py --full --csv > runs.csv

With pandas, `analysis.records.load(Path("experiments/records"))` gives the same runs and their curves as frames.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.cli import Parser, run_script
from analysis.markdown import format_label
from analysis.records import PRECISIONS, comparable_runs, load_records, to_configs

COLUMNS = ("folder", "net", "precision", "iterations", "status", "test_error", "train_error", "seconds")


def choose_runs(runs: pd.DataFrame, net: str | None, precision: str | None, full: bool) -> pd.DataFrame:
    """Those of a net (residual20), a precision and, where `full`, the length and data of the paper; with a column `net`."""
    named = runs.assign(net=[format_label(config) for config in to_configs(runs)])
    chosen = comparable_runs(named) if full else named
    if net is not None:
        chosen = chosen[np.array([config.net == net for config in to_configs(chosen)], dtype=bool)]
    return chosen if precision is None else chosen[chosen["precision"] == precision]


def write_text(chosen: pd.DataFrame) -> str:
    """Aligned columns, errors in percent."""
    numbers = {"test_error": "{:.2f}", "train_error": "{:.2f}", "seconds": "{:.0f}"}
    shown = chosen[list(COLUMNS)].copy()
    for column, form in numbers.items():
        shown[column] = ["-" if pd.isna(value) else form.format(value) for value in shown[column]]
    return shown.to_string(index=False)


def main(arguments: Sequence[str]) -> int:
    """Prints the runs.

    Raises:
        UserError: a record is damaged.
    """
    parser = Parser(__doc__)
    parser.add_argument("--net", help="only this net, as residual20 or plain56")
    parser.add_argument("--precision", choices=PRECISIONS, help="only this precision")
    parser.add_argument("--full", action="store_true", help="only 64,000 iterations on all of CIFAR-10's training images")
    parser.add_argument("--csv", action="store_true", help="comma-separated values with every field of config and result")
    options = parser.parse_args(list(arguments))
    chosen = choose_runs(load_records(options.records)[0], options.net, options.precision, options.full)
    if options.csv:
        print(chosen.drop(columns=["sessions", "predictions", "confusion", "responses"]).to_csv(index=False), end="")
    else:
        print(write_text(chosen) if len(chosen) else "no such run is recorded")
    return 0


if __name__ == "__main__":
    run_script(main)
