"""Run folders as DataFrames: one row per run, and one row per evaluation."""

import math
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import pandas as pd
from msgspec import structs, to_builtins

from reproduce.config import Config, Precision
from reproduce.dataset import DATASETS
from reproduce.errors import UserError
from reproduce.record import list_run_folders, read_record
from reproduce.schema import Finished, Row

RECORDS = Path("experiments/records")
PRECISIONS = get_args(Precision)
"""Precisions, most preferred first."""
STUCK_ERROR = 80.0
"""A run is stuck at or above this training error in % (section 4.2 ends the warm-up below it)."""
CONFIG_FIELDS = [field.name for field in fields(Config)]
RESULT_FIELDS = ["status", "iteration", *(name for name in Finished.__struct_fields__ if name != "iterations")]
RECORD_COLUMNS = ["responses", "mean_response", "small_scales", "predictions", "confusion", "sessions"]
RUN_COLUMNS = [*CONFIG_FIELDS, "folder", "configuration", *RESULT_FIELDS, *RECORD_COLUMNS]
CURVE_COLUMNS = ["folder", *Row.__struct_fields__]


def load_records(records: Path, folders: Iterable[Path] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the run folders NET-KEY/seedN in `records`, or only `folders` of them.

    Returns:
        runs: one row per run, with the fields of Config and of a finished result (missing without one), and `folder`;
            `configuration`, the same for all seeds and precisions of a configuration; `status` (finished, diverged or
            unfinished); `iteration`, the last one reached; `responses`, the standard deviation of each 3x3 layer, and
            `mean_response`, their mean; `small_scales`, for each threshold, the fraction of each BN layer's scales below
            it; `predictions`, one character per test image (see record.write_predictions); `confusion`, test images by true and
            predicted class; `sessions`, the content of environment.json.
        curves: one row per evaluation, with the fields of metrics.jsonl and the run's `folder`.

    Raises:
        UserError: `records` is missing, or a run folder is damaged.
    """
    if not records.is_dir():
        raise UserError(f"there is no folder {records}: set --records to the folder that contains the run folders")
    rows, curves = [], []
    for folder in list_run_folders(records) if folders is None else folders:
        row, curve = read_run(folder)
        rows.append(row)
        curves += curve
    return pd.DataFrame(rows, columns=pd.Index(RUN_COLUMNS)), pd.DataFrame(curves, columns=pd.Index(CURVE_COLUMNS))


def read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of a run, and those of its evaluations."""
    record = read_record(folder)
    name = record.config.folder.as_posix()
    curve = [structs.asdict(row) | {"folder": name} for row in record.rows]
    row = asdict(record.config) | {"folder": name, "configuration": configuration_key(record.config)}
    measured = record.responses
    row |= {"responses": measured and measured.std, "mean_response": fmean(measured.std) if measured else math.nan}
    row |= {"small_scales": measured and measured.small_scales}
    row |= {"predictions": record.predictions, "confusion": record.confusion}
    row |= {"sessions": to_builtins(record.sessions), "status": "unfinished"}
    row["iteration"], row["seconds"] = (record.rows[-1].iteration, record.rows[-1].seconds) if record.rows else (0, 0.0)
    if isinstance(record.result, Finished):
        row |= structs.asdict(record.result) | {"status": "finished"}
    elif record.result is not None:
        row |= {"status": "diverged", "iteration": record.result.iteration}
    return row, curve


@cache
def configuration_key(config: Config) -> str:
    """Return the same key for all seeds and precisions of a configuration."""
    return replace(config, seed=Config().seed, precision=Config().precision).key


def select_runs(runs: pd.DataFrame, config: Config, free: Iterable[str] = ()) -> pd.DataFrame:
    """Return the runs that equal `config` in every field except the seed, the precision and those in `free`."""
    if not free:
        return runs[runs["configuration"] == configuration_key(config)]
    fixed = {name: value for name, value in asdict(config).items() if name not in ("seed", "precision", *free)}
    return runs[(runs[list(fixed)] == pd.Series(fixed)).all(axis="columns")]


def group_configurations(runs: pd.DataFrame) -> list[Config]:
    """Return the distinct configurations, with the default seed and precision."""
    default, distinct = Config(), to_configs(runs.drop_duplicates("configuration"))
    return [replace(config, seed=default.seed, precision=default.precision) for config in distinct]


def finished_runs(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["status"] == "finished"]


def select_finished(runs: pd.DataFrame, config: Config, free: Iterable[str] = ()) -> pd.DataFrame:
    """Return the finished runs that `select_runs` returns."""
    return finished_runs(select_runs(runs, config, free))


def keep_recorded(runs: pd.DataFrame, configs: Iterable[Config]) -> list[Config]:
    """Return the configurations with finished runs."""
    return [config for config in configs if len(select_finished(runs, config))]


def stuck_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the finished runs that never started to learn. They stay in every mean and are counted separately."""
    return runs[(runs["status"] == "finished") & (runs["train_error"] >= STUCK_ERROR)]


def comparable_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs on all training images with the length of the published results (64,000 iterations on CIFAR-10)."""
    lengths = runs["dataset"].map({name: info.published_iterations for name, info in DATASETS.items()})
    return runs[(runs["iterations"] == lengths) & (runs["split"] == "full")]


def to_configs(runs: pd.DataFrame) -> list[Config]:
    """Return the Config of each run."""
    rows: list[dict[str, Any]] = runs[CONFIG_FIELDS].astype(object).to_dict("records")  # pyright: ignore
    return [Config(**row) for row in rows]
