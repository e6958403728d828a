"""Read and write run folders. A run can be killed at any moment and resumed: every file is replaced atomically.

config.json              the config, its schema version and key
environment.json         one object per session: command, commit, versions, device, flags, SHA-256 of the data
metrics.jsonl            one object per evaluation
checkpoint.pt            the newest checkpoint; checkpoint.previous.pt is the one before
best.pt                  with --keep-best, the checkpoint of the best evaluation
responses.json           standard deviation of each 3x3 layer's response (Fig. 7), for the 6n+2 nets
predictions.txt          the predicted class of each test image after the last iteration, for up to 10 classes
confusion.csv            test images by true class (rows) and predicted class (columns)
result.json              written last, when the run has finished or diverged

Each `read_` function returns None or an empty list if its file is missing, and raises UserError if it is damaged. torch is
imported only for checkpoints.
"""

import io
import json
import math
import os
import shlex
import subprocess
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from reproduce.config import SCHEMA, Config, RunOptions, format_flags
from reproduce.errors import RunLocked, UserError, is_out_of_memory
from reproduce.schema import Diverged, Finished, Responses, Result, Row, Session, Sessions, convert, decode_json

T = TypeVar("T")
CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"
RESPONSES, RESULT, PREDICTIONS, CONFUSION = "responses.json", "result.json", "predictions.txt", "confusion.csv"
NEWEST, PREVIOUS, DAMAGED, BEST = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt", "best.pt"
RIGHT, WRONG = "0123456789", "abcdefghij"
"""Characters of predictions.txt: the predicted class of an image, by whether it is its true class."""
BEST_BY = {"full": "test_error", "val": "held_out_error"}
"""The field of a row that selects the best evaluation, by split."""


# Writing ----------------------------------------------------------------------------------------------------------------


def write_atomically(path: Path, content: bytes, previous: Path | None = None):
    """Write a file completely or not at all. `previous` receives the file that was there before.

    Raises:
        OSError: the file cannot be written; the old one is untouched and no temporary file remains.
    """
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)  # not the temporary file; a full disk sets none
        raise
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, content: Any):
    write_atomically(path, (json.dumps(content, indent=2, default=msgspec.to_builtins) + "\n").encode())


def write_result(folder: Path, result: Result):
    write_json(folder / RESULT, result)


def write_responses(folder: Path, std: list[float], images: int):
    write_json(folder / RESPONSES, Responses(images, std))


def write_metrics(folder: Path, rows: Sequence[Row]):
    lines = [json.dumps(row, default=msgspec.to_builtins) + "\n" for row in rows]
    write_atomically(folder / METRICS, "".join(lines).encode())


def write_predictions(folder: Path, predicted: Sequence[int], labels: Sequence[int], classes: int):
    """Write confusion.csv and, for up to ten classes, predictions.txt.

    predictions.txt has one character per test image, in lines of 100: the predicted class as a digit if it is right, as a
    letter (a for 0, b for 1, ...) if it is wrong. It shows the errors without the dataset.
    """
    counts = Counter(zip(labels, predicted, strict=True))
    rows = [",".join(str(counts[true, given]) for given in range(classes)) + "\n" for true in range(classes)]
    write_atomically(folder / CONFUSION, "".join(rows).encode())
    if classes <= len(RIGHT):
        characters = "".join((RIGHT if a == b else WRONG)[a] for a, b in zip(predicted, labels, strict=True))
        lines = [characters[start : start + 100] + "\n" for start in range(0, len(characters), 100)]
        write_atomically(folder / PREDICTIONS, "".join(lines).encode())


def add_session(folder: Path, config: Config, options: RunOptions, details: dict[str, Any]):
    """Append this process to environment.json; details: the other fields of Session.

    Records are published, so the command omits the user's folders (--data, --initial, --out).
    """
    initial = None if options.initial is None else Path(options.initial.name)
    public_options = replace(options, data=config.dataset_info.given, initial=initial, out=RunOptions.out)
    session = {
        "command": shlex.join(["python", "reproduce/run.py", *format_flags(config, public_options)]),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": describe_git(),
        "eval_every": options.eval_every,
    }
    write_json(folder / ENVIRONMENT, [*read_sessions(folder), convert(session | details, Session)])


@cache
def describe_git() -> dict[str, Any] | None:
    """Return the commit and whether reproduce/ differs from it; None outside a checkout.

    Cached, so later edits do not count.
    """

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", *arguments]  # a killed `git status` would leave the index locked
        return subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True).stdout

    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.CalledProcessError):
        return None


@contextmanager
def open_run_folder(config: Config, out: Path) -> Iterator[Path]:
    """Create or reopen the run's folder below `out` and hold its lock.

    Raises:
        RunLocked: another process holds the lock.
        UserError: config.json is damaged or describes another run.
        OSError: the folder cannot be created or written.
    """
    folder = out / config.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            found = read_config(folder)
            if found is None:
                write_json(folder / CONFIG, describe_config(config))
            elif found != config:
                raise UserError(f"{folder / CONFIG} describes another run: choose another --out")
            yield folder
    except Timeout:
        raise RunLocked(f"another process is training into {folder}: wait for it, or choose another --out") from None


# Reading ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """The content of a run folder, apart from checkpoints.

    predictions: one character per test image (see `write_predictions`). confusion: test images by true and predicted class.
    """

    config: Config
    sessions: list[Session]
    rows: list[Row]
    result: Result | None
    responses: list[float] | None
    predictions: str | None
    confusion: list[list[int]] | None


def read_record(folder: Path) -> Record:
    """Read a run folder and check its files against each other; the run may be training meanwhile.

    Raises:
        UserError: a file is damaged, missing, or contradicts another one.
    """
    result = read_result(folder)  # read first: it is written last, so the other files are complete
    config = read_config(folder)
    if config is None:
        raise damaged(folder / CONFIG, "is missing")
    record = Record(
        config=config,
        sessions=read_sessions(folder),
        rows=read_metrics(folder),
        result=result,
        responses=read_responses(folder),
        predictions=read_predictions(folder),
        confusion=read_confusion(folder),
    )
    if folder.resolve().parts[-2:] != config.folder.parts:
        raise damaged(folder / CONFIG, f"describes the run {config.folder}")
    for name, problem in find_contradictions(record):
        raise damaged(folder / name, problem)
    return record


def find_contradictions(record: Record) -> Iterator[tuple[str, str]]:
    """Yield each file that contradicts another one, and how."""
    config, rows, result = record.config, record.rows, record.result
    reached = rows[-1].iteration if rows else 0
    if reached > config.iterations:
        yield METRICS, f"is damaged (iteration {reached} in a run of {config.iterations})"
    if any((row.held_out_error is None) != (config.split == "full") for row in rows):
        yield METRICS, f"is damaged (held_out_error {'missing with' if config.split == 'val' else 'present without'} split val)"
    # If eval_every changed between sessions, only common multiples are guaranteed to have a row.
    periods = [session.eval_every for session in record.sessions]
    if periods and None not in periods:
        period = math.lcm(*(period for period in periods if period))
        end = result.iteration if isinstance(result, Diverged) else reached
        if missing := set(range(period, end + 1, period)) - {row.iteration for row in rows}:
            yield METRICS, f"lacks the row of iteration {min(missing)}"
    if isinstance(result, Diverged) and result.iteration > config.iterations:
        yield RESULT, f"is damaged (iteration {result.iteration} in a run of {config.iterations})"
    if not isinstance(result, Finished):
        return
    if result.iterations != config.iterations:
        yield RESULT, f"is damaged (iterations {result.iterations}, in config.json {config.iterations})"
    if result.best_test_error > result.test_error:
        yield RESULT, "is damaged (best_test_error is above test_error)"
    if reached != config.iterations:
        yield METRICS, f"lacks the row of iteration {config.iterations}"
    names = ("test_error", "held_out_error", "train_error", "train_loss")
    if differing := [name for name in names if getattr(rows[-1], name) != getattr(result, name)]:
        yield METRICS, f"contradicts result.json in its last row's {', '.join(differing)}"
    layers = config.depth - 1 if config.family == "6n+2" else None  # all but the linear one
    if (None if record.responses is None else len(record.responses)) != layers:
        yield RESPONSES, "is missing" if record.responses is None else f"is damaged (a {config.net} has other layers)"
    if record.predictions is not None:
        wrong, images = sum(character in WRONG for character in record.predictions), len(record.predictions)
        if wrong != round(result.test_error * images / 100):
            yield PREDICTIONS, f"contradicts result.json (it has {wrong} errors in {images} images)"
    if record.confusion is not None:
        images = sum(map(sum, record.confusion))
        wrong = images - sum(row[i] for i, row in enumerate(record.confusion))
        if len(record.confusion) != len(config.dataset_info.class_names):
            yield CONFUSION, f"is damaged (it has {len(record.confusion)} classes)"
        if wrong != round(result.test_error * images / 100) or len(record.predictions or "") not in (0, images):
            yield CONFUSION, f"contradicts another file (it has {wrong} errors in {images} images)"


def damaged(path: Path, problem: str) -> UserError:
    return UserError(f"{path} {problem}: restore it or remove {path.parent} to start over")


def read_json(path: Path, schema: Any = Any) -> Any:
    if not path.is_file():
        return None
    try:
        return decode_json(path.read_bytes(), schema)
    except ValueError as error:
        raise damaged(path, f"is damaged ({error})") from None


def is_run_folder(path: Path) -> bool:
    """Whether `path` holds a run, even one that has lost its config.json."""
    return any((path / name).is_file() for name in (CONFIG, METRICS, RESULT))


def list_run_folders(out: Path) -> list[Path]:
    """Return the run folders below `out`, sorted."""
    return sorted(filter(is_run_folder, out.glob("*/seed*")))


def describe_config(config: Config) -> dict[str, Any]:
    """Return the content of config.json and of the config in a weights file."""
    return {"schema": SCHEMA, "key": config.key} | config.describe()


def parse_config(described: Any) -> Config:
    """Inverse of `describe_config`.

    Raises:
        ValueError: the content was edited, or written by another version of this repository.
    """
    if not isinstance(described, dict):
        raise ValueError("the config is not an object")
    try:
        config = Config(**{name: value for name, value in described.items() if name not in ("schema", "key")})
    except (TypeError, ArithmeticError) as error:
        raise ValueError(str(error)) from None
    expected = describe_config(config)
    differing = [name for name in described | expected if described.get(name) != expected.get(name)]
    if differing:
        raise ValueError(f"{', '.join(differing)} inconsistent with the other fields")
    return config


def read_config(folder: Path) -> Config | None:
    path = folder / CONFIG
    described = read_json(path)
    try:
        return parse_config(described) if path.is_file() else None
    except ValueError as error:
        raise damaged(path, f"is damaged or was written by another version ({error})") from None


def read_result(folder: Path) -> Result | None:
    return read_json(folder / RESULT, Result)


def read_sessions(folder: Path) -> list[Session]:
    return read_json(folder / ENVIRONMENT, Sessions) or []


def read_responses(folder: Path) -> list[float] | None:
    responses = read_json(folder / RESPONSES, Responses)
    return None if responses is None else responses.std


def read_metrics(folder: Path) -> list[Row]:
    path = folder / METRICS
    *lines, _ = path.read_bytes().split(b"\n") if path.is_file() else [b""]  # older versions could leave an incomplete line
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(decode_json(line, Row))
        except ValueError as error:
            raise damaged(path, f"is damaged (line {number}: {error})") from None
        if len(rows) > 1 and rows[-1].iteration <= rows[-2].iteration:
            raise damaged(path, f"is damaged (line {number}: iteration {rows[-1].iteration} after {rows[-2].iteration})")
    return rows


def read_predictions(folder: Path) -> str | None:
    path = folder / PREDICTIONS
    if not path.is_file():
        return None
    characters = path.read_bytes().decode(errors="replace").replace("\n", "")
    if not characters or set(characters) - set(RIGHT + WRONG):
        raise damaged(path, "is damaged (it must contain only 0-9 and a-j)")
    return characters


def read_confusion(folder: Path) -> list[list[int]] | None:
    path = folder / CONFUSION
    if not path.is_file():
        return None
    try:
        rows = [[int(count) for count in line.split(",")] for line in path.read_bytes().decode().splitlines()]
    except ValueError:
        rows = []
    if not rows or any(len(row) != len(rows) or min(row) < 0 for row in rows):
        raise damaged(path, "is damaged (it is not a square matrix of counts)")
    return rows


def read_weights_header(path: Path) -> tuple[Config, dict[str, Any]]:
    """Return config and result from the header of a weights file of export.py.

    Raises:
        UserError: the file is not a weights file.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        return parse_config(json.loads(metadata["config"])), json.loads(metadata["result"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a weights file of this repository ({error})") from None


# Checkpoints ------------------------------------------------------------------------------------------------------------


def checkpoint_identity(config: Config, fingerprint: str) -> dict[str, Any]:
    """Return the fields that tie a checkpoint to its run; fingerprint: SHA-256 of the data."""
    return {"schema": SCHEMA, "config": config.describe(), "data": fingerprint}


def save_checkpoint(folder: Path, state: dict[str, Any], is_best: bool = False):
    """Write a dict of tensors, numbers and strings as the newest checkpoint and, if it is the best, as best.pt.

    Raises:
        OSError: it cannot be written; both older checkpoints are still there.
    """
    import torch

    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(folder / NEWEST, content.getvalue(), previous=folder / PREVIOUS)
    if is_best:  # afterwards, so that best.pt is never ahead of the run
        write_atomically(folder / BEST, content.getvalue())


def load_checkpoint(folder: Path, identity: dict[str, Any], parse: Callable[[dict[str, Any]], T]) -> T | None:
    """Return parse(checkpoint) for the newest usable checkpoint, or None if there is no checkpoint.

    If the newest one is damaged or belongs to another run, it is renamed, with a warning, and the previous one is used.
    parse: raises ValueError if the checkpoint does not fit.

    Raises:
        UserError: there are checkpoints, but none is usable.
    """
    problems: list[str] = []
    for path in (folder / NEWEST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            parsed = parse(read_checkpoint(path, identity))
        except UserError as error:
            problems.append(str(error))
        except ValueError as error:
            problems.append(f"{path} is damaged ({error})")
        else:
            if problems:
                os.replace(folder / NEWEST, folder / DAMAGED)
                warnings.warn(f"{problems[0]}; renamed to {DAMAGED}, resuming from {PREVIOUS}", stacklevel=2)
            return parsed
    if problems:
        raise UserError(f"{' and '.join(problems)}: remove {folder} to start over")
    return None


def read_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint, tensors on the CPU. Executes nothing that the file contains.

    identity: from `checkpoint_identity`, or a part of it.

    Raises:
        UserError: it is damaged or belongs to another run.
        OSError: it cannot be read now.
        MemoryError, RuntimeError: out of memory.
    """
    import torch

    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            if archive.testzip() is not None:  # CRC-32 of each member
                raise ValueError("wrong checksum")
        content.seek(0)
        state = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        if isinstance(error, MemoryError | RuntimeError) and is_out_of_memory(error):
            raise
        raise UserError(f"{path} is damaged ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a checkpoint")
    differing = [field for field, value in identity.items() if state.get(field) != value]
    if differing:
        raise UserError(f"{path} belongs to another run (its {differing[0]} differs)")
    return state
