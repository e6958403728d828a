"""Read and write run folders (docs/run-folder.md). A run can be killed at any moment: every file is replaced atomically.

Each `read_` function returns None or an empty list if its file is missing, and raises UserError if it is damaged. result.json
is written last. Imports no torch; checkpoints are in checkpoints.py.
"""

import json
import math
import os
import shlex
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from filelock import FileLock, Timeout

from reproduce.config import SCHEMA, Config, RunOptions, format_flags
from reproduce.errors import RunLocked, UserError
from reproduce.schema import Diverged, Finished, Responses, Result, Row, Session, Sessions, decode_json

T = TypeVar("T")
CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"
RESPONSES, RESULT, PREDICTIONS, CONFUSION = "responses.json", "result.json", "predictions.txt", "confusion.csv"
RIGHT, WRONG = "0123456789", "abcdefghij"
"""Characters of predictions.txt for classes 0 to 9: RIGHT for correct predictions, WRONG for misclassified images."""


# Writing ----------------------------------------------------------------------------------------------------------------


def write_atomically(path: Path, content: bytes, previous: Path | None = None):
    """Write a file completely or not at all. previous: where to move the old file; by default it is replaced.

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
        error.filename = str(path)  # the OS names the temporary file, or none if the disk is full
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any):
    write_atomically(path, (json.dumps(content, indent=2, default=msgspec.to_builtins) + "\n").encode())


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
    public_options = replace(options, data=config.dataset_info.default_data, initial=initial, out=RunOptions.out)
    session = {
        "command": shlex.join(["python", "reproduce/run.py", *format_flags(config, public_options)]),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": describe_git(),
        "eval_every": options.eval_every,
    }
    write_json(folder / ENVIRONMENT, [*read_sessions(folder), msgspec.convert(session | details, Session)])


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
        UserError: the folder cannot be locked, or its config.json is damaged or describes another run.
        OSError: the folder cannot be created or written.
    """
    folder = out / config.folder
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder, process = FileLock(folder / ".lock", timeout=0), folder / ".holder", "another process"
    try:
        lock.acquire()
    except Timeout:
        with suppress(OSError):  # the holder may have ended
            process = holder.read_text() or process
        raise RunLocked(
            f"{folder} is locked by {process}: wait for it, choose another --out, or remove {folder / '.lock'} if it has died"
        ) from None
    except OSError as error:
        raise UserError(f"{folder} cannot be locked ({error.strerror}): choose an --out on a local disk") from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M}")
        found = read_config(folder)
        if found is None:
            write_json(folder / CONFIG, describe_config(config))
        elif found != config:
            raise UserError(f"{folder / CONFIG} describes another run: choose another --out")
        yield folder
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


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
    responses: Responses | None
    predictions: str | None
    confusion: list[list[int]] | None


def read_record(folder: Path) -> Record:
    """Read a run folder and check its files against each other; the run may still be training.

    Raises:
        UserError: a file is damaged, missing, or contradicts another one.
    """
    result = read_result(folder)  # read first: it is written last, so the other files are complete
    config = read_config(folder)
    if config is None:
        raise damage_error(folder / CONFIG, "is missing")
    if folder.resolve().parts[-2:] != config.folder.parts:
        raise UserError(
            f"{folder / CONFIG} describes the run {config.folder}: rename the folder to that, or move it if it is a copy"
        )
    record = Record(
        config=config,
        sessions=read_sessions(folder),
        rows=read_metrics(folder),
        result=result,
        responses=read_file(folder / RESPONSES, partial(decode_json, schema=Responses)),
        predictions=read_predictions(folder),
        confusion=read_file(folder / CONFUSION, decode_confusion),
    )
    for name, problem in find_contradictions(record):
        raise damage_error(folder / name, problem)
    return record


def find_contradictions(record: Record) -> Iterator[tuple[str, str]]:
    """Yield the name of each file that contradicts another one, and a description of the problem."""
    config, rows, result = record.config, record.rows, record.result
    info = config.dataset_info
    if any(session.data.sha256 != info.sha256 for session in record.sessions if info.sha256):
        yield ENVIRONMENT, f"contradicts config.json (the images are not those of {info.title})"
    iterations = [row.iteration for row in rows]
    end = result.iteration if isinstance(result, Diverged) else config.iterations
    if iterations != sorted(set(iterations)) or not max(iterations, default=0) <= end <= config.iterations:
        yield METRICS, "is damaged (its iterations must increase and not exceed the end of the run)"
    if any((row.held_out_error is None) != (config.split == "full") for row in rows):
        yield METRICS, f"is damaged (held_out_error is for split val, and the split is {config.split})"
    # If eval_every changed between sessions, only common multiples are guaranteed to have a row.
    periods = [session.eval_every or config.iterations for session in record.sessions] or [config.iterations]
    reached = end if result else max(iterations, default=0)
    due = {*range(0, reached + 1, math.lcm(*periods)), *([end] if isinstance(result, Finished) else [])} - {0}
    if missing := due - set(iterations):
        yield METRICS, f"lacks the row of iteration {min(missing)}"
    if not isinstance(result, Finished):
        return
    expected = summarize_rows(rows) | {"iterations": config.iterations}
    if config.family == "6n+2":
        expected["parameters"] = expected_parameters(config)
    if differing := [name for name, value in expected.items() if getattr(result, name) != value]:
        yield RESULT, f"contradicts another file in {', '.join(differing)}"
    measured = [] if record.responses is None else [record.responses.std, *(record.responses.small_scales or {}).values()]
    layers = config.depth - 1  # all but the linear one
    if bool(measured) != (config.family == "6n+2") or any(len(values) != layers for values in measured):
        yield RESPONSES, f"does not match the layers of {config.net}" if measured else "is missing"
    classes, counted = len(info.class_names), {}
    if record.predictions is not None:
        counted[PREDICTIONS] = sum(map(record.predictions.count, WRONG)), len(record.predictions)
        if not set(record.predictions) <= set(RIGHT[:classes] + WRONG[:classes]):
            yield PREDICTIONS, f"is damaged (the dataset has {classes} classes)"
    if record.confusion is not None:
        images = sum(map(sum, record.confusion))
        counted[CONFUSION] = images - sum(row[i] for i, row in enumerate(record.confusion)), images
        if len(record.confusion) != classes:
            yield CONFUSION, f"is damaged (the dataset has {classes} classes)"
    for name, (wrong, images) in counted.items():
        if not math.isclose(100 * wrong / images, result.test_error):
            yield name, f"contradicts another file (it has {wrong} errors in {images} images)"


def summarize_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the fields of a finished result that follow from the evaluations."""
    last, errors = rows[-1], [row.test_error for row in rows]
    return {
        "test_error": last.test_error,
        "mean_of_last_five_test_error": sum(errors[-5:]) / len(errors[-5:]),
        "best_test_error": min(errors),
        "held_out_error": last.held_out_error,
        "train_error": last.train_error,
        "train_loss": last.train_loss,
    }


def expected_parameters(config: Config) -> int:
    """Return the number of parameters of a 6n+2 network; the order of BN, ReLU and addition does not affect it."""
    channels, classes = config.dataset_info.channels, len(config.dataset_info.class_names)
    count, inputs = 9 * channels * 16 + 2 * 16, 16
    for outputs in (16, 32, 64):
        for _ in range((config.depth - 2) // 6):
            count += 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs
            if config.shortcut == "C" or (config.shortcut == "B" and inputs != outputs):
                count += inputs * outputs + 2 * outputs
            inputs = outputs
    return count + (inputs + 1) * classes


def damage_error(path: Path, problem: str) -> UserError:
    return UserError(f"{path} {problem}: restore it or remove {path.parent} to start over")


def read_file(path: Path, decode: Callable[[bytes], T]) -> T | None:
    """Return the decoded content of a file, or None if it is missing; `decode` raises ValueError if the content is damaged."""
    if not path.is_file():
        return None
    try:
        return decode(path.read_bytes())
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise damage_error(path, f"is damaged ({error})") from None


def is_run_folder(path: Path) -> bool:
    """Whether `path` holds a run, even one that has lost its config.json."""
    return any((path / name).is_file() for name in (CONFIG, METRICS, RESULT))


def list_run_folders(out: Path) -> list[Path]:
    """Return the run folders below `out`, sorted."""
    return sorted(filter(is_run_folder, out.glob("*/seed*")))


def describe_config(config: Config) -> dict[str, Any]:
    """Return the content of config.json and of the config in a weights file."""
    return {"schema": SCHEMA, "key": config.key} | config.describe()


def parse_config(described: dict[str, Any]) -> Config:
    """Inverse of `describe_config`.

    Raises:
        ValueError: the content was edited, or written by another version of this repository.
    """
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
    return read_file(folder / CONFIG, lambda content: parse_config(decode_json(content, dict[str, Any])))


def read_result(folder: Path) -> Result | None:
    return read_file(folder / RESULT, partial(decode_json, schema=Result))


def read_sessions(folder: Path) -> list[Session]:
    return read_file(folder / ENVIRONMENT, partial(decode_json, schema=Sessions)) or []


def read_metrics(folder: Path) -> list[Row]:
    return read_file(folder / METRICS, msgspec.json.Decoder(Row).decode_lines) or []


def read_predictions(folder: Path) -> str | None:
    return read_file(folder / PREDICTIONS, decode_predictions)


def decode_predictions(content: bytes) -> str:
    characters = "".join(content.decode().split())
    if not characters or set(characters) - set(RIGHT + WRONG):
        raise ValueError("it must contain only 0-9 and a-j")
    return characters


def decode_confusion(content: bytes) -> list[list[int]]:
    rows = [[int(count) for count in line.split(",")] for line in content.decode().splitlines()]
    if not any(map(any, rows)) or any(len(row) != len(rows) or min(row) < 0 for row in rows):
        raise ValueError("it must be a square matrix of counts, not all 0")
    return rows
