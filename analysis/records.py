"""Run folders and published numbers as frames: a row per run, a long frame of curves, a row per published number."""

import math
import shlex
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from reproduce.config import PAPER_ITERATIONS, Config, UserError, write_flags
from reproduce.record import list_folders, read_config, read_metrics, read_responses, read_result, read_sessions

RECORDS = Path("experiments/records")
CONFIG_FIELDS = [field.name for field in fields(Config)]
HE, BLOG, IDENTITY = "He et al. 2015", "a blog reproduction", "Identity Mappings (arXiv:1603.05027)"
"""Sources in paper.csv."""
PRECISIONS = ["fp32", "tf32", "bf16"]
"""In the order in which they are preferred where a cell exists in several."""
STUCK_ERROR = 80.0
"""Training error in percent; section 4.2 takes a start to have succeeded below it."""
RESULT_FIELDS = [
    "status", "iteration", "test_error", "mean_of_last_five_test_error", "best_test_error", "held_out_error",
    "train_error", "train_loss", "parameters", "warmup_ended", "seconds", "images_per_second", "peak_memory",
]  # fmt: skip
RUN_COLUMNS = [*CONFIG_FIELDS, "folder", "cell", *RESULT_FIELDS, "responses", "sessions"]
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


def load(records: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reads every run folder <net>-<key>/seed<k> below `records`.

    Returns:
        runs: one row per run. The fields of its Config; `folder`; `cell`, the same for all seeds and precisions;
            `status` (finished, diverged or unfinished); `iteration`, the last one it reached; the fields of
            result.json, errors in percent, missing where there is none; `responses`, the standard deviations of the
            3x3 layers; `sessions`, the content of environment.json.
        curves: one row per evaluation of every run, with the run's `folder`.

    Raises:
        UserError: a folder's content contradicts itself, or cannot be read.
    """
    rows, curves = [], []
    for folder in list_folders(records):
        try:
            row, curve = read_run(folder, records)
        except (ValueError, KeyError, TypeError) as error:
            reason = error if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
            raise UserError(f"{folder} cannot be read as a run, restore or remove it: {reason}") from None
        rows.append(row)
        curves += curve
    return pd.DataFrame(rows, columns=pd.Index(RUN_COLUMNS)), pd.DataFrame(curves, columns=pd.Index(CURVE_COLUMNS))


def read_run(folder: Path, records: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One run's row and its evaluations."""
    name, config = folder.relative_to(records).as_posix(), read_config(folder)
    # A record that lies under another's name would enter the wrong cell.
    if config is None or name != config.folder.as_posix():
        raise ValueError("its config contradicts the folder's name")
    curve = [row | {"folder": name} for row in read_metrics(folder)]
    result = read_result(folder) or {"status": "unfinished"}
    if result["status"] == "finished" and not math.isfinite(result["test_error"] + result["train_error"]):
        raise ValueError("its result has an error that is not finite")
    reached = curve[-1] if curve else {"iteration": 0, "seconds": 0.0}
    progress = {"iteration": result.get("iterations", reached["iteration"]), "seconds": reached["seconds"]}
    extra = {
        "folder": name,
        "cell": name_cell(config),
        "responses": read_responses(folder),
        "sessions": read_sessions(folder),
    }
    return progress | result | extra | asdict(config), curve


@cache
def name_cell(config: Config) -> str:
    """The same for configs that differ in nothing but the seed and the precision."""
    return replace(config, seed=Config().seed, precision=Config().precision).key


def select(runs: pd.DataFrame, config: Config, free: Iterable[str] = ()) -> pd.DataFrame:
    """The runs that equal `config` in every field but the seed, the precision and those named in `free`."""
    if not free:
        return runs[runs["cell"] == name_cell(config)]
    chosen = pd.Series(True, index=runs.index)
    for name, value in asdict(config).items():
        if name not in ("seed", "precision", *free):
            chosen &= runs[name] == value
    return runs[chosen]


def cells(runs: pd.DataFrame) -> list[Config]:
    """The distinct configs of some runs, seed and precision set to the defaults."""
    default = Config()
    distinct = configs(runs.drop_duplicates("cell"))
    return [replace(config, seed=default.seed, precision=default.precision) for config in distinct]


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["status"] == "finished"]


def stuck(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs that never got off the ground. They stay in every mean; they are counted beside it."""
    return runs[(runs["status"] == "finished") & (runs["train_error"] >= STUCK_ERROR)]


def with_mean_response(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that have responses, with a column `mean_response`: the mean of the 3x3 layers' standard deviations."""
    runs = runs[runs["responses"].notna()]
    return runs.assign(mean_response=[math.fsum(std) / len(std) for std in runs["responses"]])


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that follow the paper in length and data (64,000 iterations on all of CIFAR-10's training images)."""
    as_paper = (runs["iterations"] == PAPER_ITERATIONS) & (runs["dataset"] == "cifar10") & (runs["split"] == "full")
    return runs[as_paper]


def choose_precision(runs: pd.DataFrame, configs: Iterable[Config], seeds: int = 1) -> str:
    """The one precision to compare the cells in: that in which most have `seeds` finished runs, then the preferred.

    Cells of different precision are never compared or pooled.
    """
    cells = [finished(select(runs, config)) for config in configs]

    def complete(precision: str) -> tuple[int, int]:
        counts = [int((cell["precision"] == precision).sum()) for cell in cells]
        return sum(count >= seeds for count in counts), sum(min(count, seeds) for count in counts)

    return max(PRECISIONS, key=complete)  # the first of equals


def configs(runs: pd.DataFrame) -> list[Config]:
    """The Config of each run."""
    rows: list[dict[str, Any]] = runs[CONFIG_FIELDS].astype(object).to_dict("records")  # pyright: ignore
    return [Config(**row) for row in rows]


def optimizer_settings(runs: pd.DataFrame, free: Iterable[str] = ()) -> dict[Config, list[Config]]:
    """The nets that Adam or AdamW has trained, each with the paper's SGD and then every recorded setting of the others.

    free: further fields in which the runs may differ from the default recipe; the configs have the default there.
    """
    found: dict[Config, set[Config]] = {}
    for config in cells(runs[runs["optimizer"] != Config().optimizer]):
        net = Config(depth=config.depth, residual=config.residual, augment=config.augment)
        config = replace(config, **{name: getattr(net, name) for name in free})
        as_sgd = replace(config, optimizer=net.optimizer, lr=net.lr, weight_decay=net.weight_decay)
        if as_sgd == net:
            found.setdefault(net, set()).add(config)
    nets = sorted(found, key=lambda net: (not net.augment, not net.residual, net.depth))
    others = {net: sorted(found[net], key=lambda c: (c.optimizer, c.lr or 0, c.weight_decay)) for net in nets}
    return {net: [net, *others[net]] for net in nets}


def departures(config: Config) -> dict[str, Any]:
    """The fields in which a config differs from the default of its depth and optimizer, the seed left out."""
    default = asdict(Config(depth=config.depth, optimizer=config.optimizer)) | {"optimizer": Config().optimizer}
    return {name: value for name, value in asdict(config).items() if name != "seed" and value != default[name]}


def command(config: Config) -> str:
    """What trains it, without the seed: the depth, and the flags that differ from the defaults."""
    flags = write_flags(replace(config, seed=0))
    depth = [] if "--depth" in flags else ["--depth", str(config.depth)]
    return shlex.join(["python", "reproduce/run.py", *depth, *flags])


def label(config: Config) -> str:
    """A cell in words, its precision left out: residual32, or residual32 (adam, no augment)."""
    words = []
    for name, value in departures(config).items():
        plain_name = name.replace("_", " ")
        if name in ("residual", "precision"):
            continue
        if isinstance(value, bool):
            words.append(plain_name if value else f"no {plain_name}")
        elif name in ("optimizer", "block", "dataset"):
            words.append(value)
        else:
            words.append(f"{plain_name} {value:g}" if isinstance(value, float | int) else f"{plain_name} {value}")
    return f"{config.net} ({', '.join(words)})" if words else config.net


@cache
def load_paper() -> pd.DataFrame:
    """paper.csv: what the paper and its reproductions report, errors in percent; columns as in the file.

    A range goes from `value` to `upto`, which is inf for "more than"; "less than" has the value 0.
    """
    text = dict.fromkeys(("source", "kind", "variant", "quantity", "where", "read_off_plot", "protocol"), "str")
    return pd.read_csv(Path(__file__).with_name("paper.csv"), dtype=text, keep_default_na=False, na_values={
        name: [""] for name in ("depth", "value", "upto", "spread", "n")
    })  # fmt: skip


def published(paper: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """The published numbers whose columns have the given values."""
    for column, value in where.items():
        paper = paper[paper[column] == value]
    return paper


def paper_value(source: str, quantity: str = "test error", column: str = "value", **where: Any) -> float:
    """The one published number that fits.

    Raises:
        ValueError: none does, or several do.
    """
    return float(published(load_paper(), source=source, quantity=quantity, **where)[column].item())
