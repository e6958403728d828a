"""Run folders as frames: a row per run, and a long frame of curves."""

from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from msgspec import to_builtins

from reproduce.config import Config, Precision
from reproduce.dataset import DATASETS
from reproduce.errors import UserError
from reproduce.record import list_run_folders, read_record

RECORDS = Path("experiments/records")
CONFIG_FIELDS = [field.name for field in fields(Config)]
PRECISIONS = get_args(Precision)
"""In the order in which they are preferred where a cell exists in several."""
STUCK_ERROR = 80.0
"""Training error in percent; section 4.2 takes a start to have succeeded below it."""
RESULT_FIELDS = [
    "status", "iteration", "test_error", "mean_of_last_five_test_error", "best_test_error", "held_out_error",
    "train_error", "train_loss", "parameters", "warmup_ended", "seconds", "images_per_second", "peak_memory",
]  # fmt: skip
RUN_COLUMNS = [*CONFIG_FIELDS, "folder", "cell", *RESULT_FIELDS, "responses", "predictions", "confusion", "sessions"]
CURVE_COLUMNS = [
    "folder",
    "iteration",
    "learning_rate",
    "train_loss",
    "train_error",
    "test_error",
    "held_out_error",
    "seconds",
]


def load_records(records: Path, folders: Iterable[Path] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reads every run folder <net>-<key>/seed<k> below `records`, or those named.

    Returns:
        runs: one row per run. The fields of its Config; `folder`; `cell`, the same for all seeds and precisions;
            `status` (finished, diverged or unfinished); `iteration`, the last one it reached; the fields of
            result.json, errors in percent, missing where there is none; `responses`, the standard deviations of the
            3x3 layers; `predictions`, a character per test image (see record.write_predictions); `confusion`, its counts;
            `sessions`, the content of environment.json.
        curves: one row per evaluation of every run, with the run's `folder`.

    Raises:
        UserError: there is no folder `records`, or a run folder's content contradicts itself or cannot be read.
    """
    if not records.is_dir():
        raise UserError(f"there is no folder {records}: --records names the folder of the run folders")
    rows, curves = [], []
    for folder in list_run_folders(records) if folders is None else folders:
        row, curve = read_run(folder, records)
        rows.append(row)
        curves += curve
    return pd.DataFrame(rows, columns=pd.Index(RUN_COLUMNS)), pd.DataFrame(curves, columns=pd.Index(CURVE_COLUMNS))


def read_run(folder: Path, records: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One run's row and its evaluations."""
    record = read_record(folder)
    config, name = record.config, folder.relative_to(records).as_posix()
    curve = [to_builtins(row) | {"folder": name} for row in record.rows]
    result = {"status": "unfinished"} if record.result is None else to_builtins(record.result)
    reached = curve[-1] if curve else {"iteration": 0, "seconds": 0.0}
    progress = {"iteration": result.get("iterations", reached["iteration"]), "seconds": reached["seconds"]}
    extra = {
        "folder": name,
        "cell": configuration_key(config),
        "responses": record.responses,
        "predictions": record.predictions,
        "confusion": record.confusion,
        "sessions": to_builtins(record.sessions),
    }
    return progress | result | extra | asdict(config), curve


@cache
def configuration_key(config: Config) -> str:
    """The same for configs that differ in nothing but the seed and the precision."""
    return replace(config, seed=Config().seed, precision=Config().precision).key


def select_runs(runs: pd.DataFrame, config: Config, free: Iterable[str] = ()) -> pd.DataFrame:
    """The runs that equal `config` in every field but the seed, the precision and those named in `free`."""
    if not free:
        return runs[runs["cell"] == configuration_key(config)]
    chosen = pd.Series(True, index=runs.index)
    for name, value in asdict(config).items():
        if name not in ("seed", "precision", *free):
            chosen &= runs[name] == value
    return runs[chosen]


def group_configurations(runs: pd.DataFrame) -> list[Config]:
    """The distinct configs of some runs, seed and precision set to the defaults."""
    default = Config()
    distinct = to_configs(runs.drop_duplicates("cell"))
    return [replace(config, seed=default.seed, precision=default.precision) for config in distinct]


def finished_runs(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["status"] == "finished"]


def stuck_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs that never got off the ground. They stay in every mean; they are counted beside it."""
    return runs[(runs["status"] == "finished") & (runs["train_error"] >= STUCK_ERROR)]


def comparable_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that follow what is published in length and data: the paper (64,000 iterations on all of CIFAR-10's training
    images) or, on other data, what its `iterations` in config.DATA_SETS say."""
    lengths = runs["dataset"].map({name: dataset_info.iterations for name, dataset_info in DATASETS.items()})
    return runs[(runs["iterations"] == lengths) & (runs["split"] == "full")]


def to_configs(runs: pd.DataFrame) -> list[Config]:
    """The Config of each run."""
    rows: list[dict[str, Any]] = runs[CONFIG_FIELDS].astype(object).to_dict("records")  # pyright: ignore
    return [Config(**row) for row in rows]
