"""The run folder: what a run leaves behind, written so that a crash at any moment leaves a usable state.

The only module that knows the names and the form of its files; it is read without torch, but for checkpoints.

config.json              the config, with its schema version and key
environment.json         one object per session: git commit, command, versions, device, flags, fingerprint of the data
metrics.jsonl            one object per evaluation
checkpoint.pt            the newest checkpoint; checkpoint.previous.pt is the one before
best.pt                  with --keep-best, the checkpoint of the best evaluation; never the result
responses.json           standard deviation of every 3x3 layer's response (Fig. 7), of the 6n+2 nets
predictions.txt          the class given to every test image at the last iteration
confusion.csv            how many of each true class, a row, were given each class, a column
result.json              written last: its presence means that the run has ended, finished or diverged
"""

import io
import json
import os
import shlex
import shutil
import subprocess
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from reproduce.config import SCHEMA, Config, RunOptions, format_flags
from reproduce.errors import OutOfMemory, RunLocked, UserError, is_out_of_memory
from reproduce.schema import (
    Responses,
    Row,
    Sessions,
    find_contradiction,
    find_end_problem,
    find_gap,
    find_missing_layers,
    validate,
    validate_result,
)

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"
RESPONSES, RESULT, PREDICTIONS, CONFUSION = "responses.json", "result.json", "predictions.txt", "confusion.csv"
RIGHT, WRONG = "0123456789", "abcdefghij"
"""A predicted class in predictions.txt."""
NEWEST, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"
BEST = "best.pt"
BEST_BY = {"full": "test_error", "val": "held_out_error"}
"""Of each split, the column of the metrics by which an evaluation is the best."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within, an error in writing names the file that was to be written: a full disk's names none, others a temporary one."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def write_atomically(path: Path, content: bytes):
    """Writes a file whole or not at all: temporary file, fsync, rename, fsync of the folder.

    Raises:
        OSError: it could not be written; what was there before is untouched and no temporary file remains.
    """
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with naming(path), open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any):
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a file of the run folder, None where it is missing.

    Raises:
        UserError: it is not JSON; what is written here always is, so somebody else has damaged it.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"is damaged ({error})") from None


def read_checked(path: Path, validate: Callable[[Any], str | None]) -> Any:
    """As `read_json`, of content with which there is no problem."""
    content = read_json(path)
    if content is None and not path.is_file():
        return None
    if (problem := validate(content)) is not None:
        raise damaged(path, f"is damaged ({problem})")
    return content


def damaged(path: Path, what: str) -> UserError:
    """What is wrong with a file of a run folder, and the least that has to be done about it."""
    folder, restored = path.parent, "and the run's own command restores"
    ended = (folder / RESULT).exists()
    if not any(is_whole(folder / name) for name in (NEWEST, PREVIOUS)):
        remedy = f"restore it, or remove {folder} to start the run over"
    elif path.name == ENVIRONMENT:
        remedy = "remove that file alone, and nothing is lost but what it told of earlier sessions"
    elif path.name == RESULT or not ended:
        remedy = f"set that file alone aside, {restored} it from the checkpoint"
    else:
        remedy = f"set it and {RESULT} aside, {restored} both from the checkpoint"
    return UserError(f"{path} {what}: {remedy}")


def is_whole(path: Path) -> bool:
    """Whether there is a checkpoint, and undamaged: it is a zip file, with a CRC-32 of every member."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged file can fail in any way
        return False


# What a run is, and what came of it --------------------------------------------------------------------------------------


def describe_config(config: Config) -> dict[str, Any]:
    """What config.json and the weights files hold."""
    return {"schema": SCHEMA, "key": config.key} | config.describe()


def parse_config(described: Any, source: Path) -> Config:
    """The config that `describe_config` has described.

    Raises:
        UserError: it is of another version of this repository, or was edited.
    """
    try:
        config = Config(**{name: value for name, value in described.items() if name not in ("schema", "key")})
    except AttributeError:
        config, reason = None, "it is no object"
    except (TypeError, ValueError, ArithmeticError) as error:
        config, reason = None, str(error)
    else:
        reason = f"{', '.join(diff_fields(described, describe_config(config)))} differing from what it says"
    if config is None or described != describe_config(config):
        raise UserError(
            f"{source} is of another version of this repository: its config does not read as one of today's ({reason})"
        )
    return config


def diff_fields(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The fields that only one of them has, or that have another value."""
    return [name for name in one | other if name not in one or name not in other or one[name] != other[name]]


def read_config(folder: Path) -> Config | None:
    """The config of a run's folder, None where there is no config.json.

    Raises:
        UserError: as for `read_json` and `parse_config`.
    """
    path = folder / CONFIG
    described = read_json(path)
    return parse_config(described, path) if path.is_file() else None


def list_run_folders(out: Path) -> list[Path]:
    """The run folders below `out`, in the order of their names; one that has lost its config.json is one as well."""
    return sorted({path.parent for name in (CONFIG, METRICS, RESULT) for path in out.glob(f"*/seed*/{name}")})


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a run that has ended (Finished or Diverged of content.py), else None. Needs neither the lock nor torch.

    Raises:
        UserError: it is damaged.
    """
    return read_checked(folder / RESULT, validate_result)


def write_result(folder: Path, result: dict[str, Any]):
    write_json(folder / RESULT, result)


def read_responses(folder: Path) -> list[float] | None:
    """The standard deviation of every 3x3 layer's response, first layer first; None before the run has finished.

    Raises:
        UserError: it is damaged.
    """
    content = read_checked(folder / RESPONSES, lambda content: validate(content, Responses))
    return None if content is None else content["std"]


def write_responses(folder: Path, std: list[float], images: int):
    """std: as `read_responses` gives it, taken over so many images."""
    write_json(folder / RESPONSES, {"images": images, "std": std})


def read_predictions(folder: Path) -> str | None:
    """A character for every test image, as `write_predictions` has them, without the line ends; None where there is no file.

    Raises:
        UserError: it holds something else.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        return None
    characters = path.read_bytes().decode(errors="replace").replace("\n", "")
    if not characters or set(characters) - set(RIGHT + WRONG):
        raise damaged(path, "is damaged (it holds more than digits and the letters a to j, or nothing)")
    return characters


def write_predictions(folder: Path, predicted: Sequence[int], right: Sequence[bool], classes: int):
    """The class, 0 to 9, that each test image is given, in lines of 100: a digit where it is right, a letter (a for 0, b for
    1, ...) where it is wrong. So both the answer and the mistakes can be read, without the labels of the data set.

    Of more classes than digits nothing is written: evaluate.py tells their mistakes from the checkpoint."""
    if classes > len(RIGHT):
        return
    characters = "".join((RIGHT if is_right else WRONG)[c] for c, is_right in zip(predicted, right, strict=True))
    lines = [characters[start : start + 100] + "\n" for start in range(0, len(characters), 100)]
    write_atomically(folder / PREDICTIONS, "".join(lines).encode())


def read_confusion(folder: Path) -> list[list[int]] | None:
    """How many test images of each true class, a row, were given each class; None where there is no file.

    Raises:
        UserError: it holds something else.
    """
    path = folder / CONFUSION
    if not path.is_file():
        return None
    try:
        rows = [[int(count) for count in line.split(",")] for line in path.read_bytes().decode().splitlines()]
    except ValueError:
        rows = []
    if not rows or any(len(row) != len(rows) or min(row) < 0 for row in rows):
        raise damaged(path, "is damaged (it holds no square of counts)")
    return rows


def write_confusion(folder: Path, predicted: Sequence[int], labels: Sequence[int], classes: int):
    """Counts the predicted classes of the test images by their true ones, see `read_confusion`."""
    counts = Counter(zip(labels, predicted, strict=True))
    rows = [",".join(str(counts[true, given]) for given in range(classes)) + "\n" for true in range(classes)]
    write_atomically(folder / CONFUSION, "".join(rows).encode())


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """One object per session that has trained the run, see `add_session`.

    Raises:
        UserError: it is damaged.
    """
    return read_checked(folder / ENVIRONMENT, lambda content: validate(content, Sessions)) or []


class Record(NamedTuple):
    """What a run's folder says of it; see the readers of each."""

    result: dict[str, Any] | None
    rows: list[dict[str, Any]]
    responses: list[float] | None
    sessions: list[dict[str, Any]]


def read_record(folder: Path, config: Config) -> Record:
    """All that the folder of a run of this config says of it, each file by itself and beside the others.

    Raises:
        UserError: a file is damaged, is missing or contradicts another.
    """
    result = read_result(folder)  # first: of a run in training meanwhile, the others are complete once it is there
    rows, responses, sessions = read_metrics(folder), read_responses(folder), read_sessions(folder)
    found = read_config(folder)
    if found is None and (rows or result):
        raise damaged(folder / CONFIG, "is missing")
    if found not in (None, config):
        raise UserError(f"{folder / CONFIG} describes another run ({', '.join(diff_configs(found, config))} differing)")
    reached = rows[-1]["iteration"] if rows else 0
    if result is not None:
        reached = result["iteration"] if result["status"] == "diverged" else config.iterations
    for path, problem in (
        (folder / RESULT, find_contradiction(result, config)),
        (folder / METRICS, find_gap(rows, config, sessions, reached) or find_end_problem(rows, result)),
        (folder / RESPONSES, find_missing_layers(responses, result, config)),
    ):
        if problem is not None:
            raise damaged(path, problem)
    return Record(result, rows, responses, sessions)


def diff_configs(one: Config | None, other: Config) -> list[str]:
    return diff_fields({} if one is None else describe_config(one), describe_config(other))


def read_weights_header(path: Path) -> tuple[Config, dict[str, Any]]:
    """Config and result in the header of a weights file of reproduce/export.py.

    Raises:
        UserError: it is none.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        described, result = json.loads(metadata["config"]), json.loads(metadata["result"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a weights file of this repository ({type(error).__name__}: {error})") from None
    return parse_config(described, path), result


@contextmanager
def open_run_folder(config: Config, out: Path) -> Iterator[Path]:
    """Makes the run's folder below `out`, or takes up the one that is there, and holds its lock.

    Where memory is lacking before there is a new checkpoint, it is left as it was found.

    Raises:
        Locked: another process holds it.
        UserError: it belongs to another config.
        OSError: it cannot be made or written.
    """
    folder = out / config.folder
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunLocked(f"another process is training into {folder}: wait for it, or choose another --out") from None
    files = [folder / name for name in (CONFIG, ENVIRONMENT, METRICS)]
    before = {path: path.read_bytes() for path in files if path.is_file()}, modification_time(folder / NEWEST)
    try:
        path = folder / CONFIG
        found = read_config(folder)
        if found is None:
            write_json(path, describe_config(config))
        elif found != config:
            differing = ", ".join(diff_configs(found, config))
            raise UserError(f"{path} describes another run ({differing} differing): choose another --out")
        yield folder
    except OutOfMemory:
        if modification_time(folder / NEWEST) == before[1]:
            for path in files:
                if path in before[0]:
                    write_atomically(path, before[0][path])
                else:
                    path.unlink(missing_ok=True)
            if made:
                shutil.rmtree(folder)
            with suppress(OSError):  # of one that is not empty
                for path in made[1:]:
                    path.rmdir()
        raise
    finally:
        lock.release()


def modification_time(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def add_session(folder: Path, config: Config, options: RunOptions, session: dict[str, Any]):
    """Appends one session to environment.json, with the command and the state of the code.

    The command leaves out the folders of --data, --initial and --out: they say nothing of the run, and records are published.
    """
    initial = None if options.initial is None else Path(options.initial.name)
    elsewhere = replace(options, data=config.dataset_info.given, initial=initial, out=RunOptions.out)
    command = shlex.join(["python", "reproduce/run.py", *format_flags(config, elsewhere)])
    about = {"command": command, "began": datetime.now(UTC).isoformat(timespec="seconds"), "git": describe_git()}
    write_json(folder / ENVIRONMENT, [*read_sessions(folder), about | session])


@cache
def describe_git() -> dict[str, Any] | None:
    """The commit, and whether this package differs from it; None outside a git checkout.

    Looked at once: what a process runs is what was there when it began.
    """

    def git(*arguments: str) -> str:
        package = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=package, check=True, capture_output=True, text=True).stdout

    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.CalledProcessError):
        return None


# Metrics --------------------------------------------------------------------------------------------------------------


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl (Row of content.py); a last one that a crash has torn is left out.

    Raises:
        UserError: a row is damaged, or not later than the one before it.
    """
    path = folder / METRICS
    *lines, _ = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"is damaged (line {number}: {error})") from None
        problem = validate(row, Row)
        if problem is None and rows and row["iteration"] <= rows[-1]["iteration"]:
            problem = f"iteration {row['iteration']} after {rows[-1]['iteration']}"
        if problem is not None:
            raise damaged(path, f"is damaged (line {number}: {problem})")
        rows.append(row)
    return rows


def append_metrics(folder: Path, row: dict[str, Any]):
    """Adds a row, whole or, where it cannot be written (OSError), not at all."""
    path = folder / METRICS
    before = path.stat().st_size if path.is_file() else 0
    try:
        with naming(path), open(path, "a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            os.truncate(path, before)
        raise


def write_metrics(folder: Path, rows: list[dict[str, Any]]):
    write_atomically(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())


def restore_metrics(folder: Path, rows: list[dict[str, Any]]):
    """Leaves the rows that a checkpoint holds, and says so where some of them were not there any more.

    What comes after them the run is about to write again.
    """
    try:
        lost = None if read_metrics(folder)[: len(rows)] == rows else "lacked rows of its checkpoint"
    except UserError:
        lost = "was damaged"
    write_metrics(folder, rows)
    if lost is not None and rows:
        warnings.warn(f"{folder / METRICS} {lost}, which has restored it", stacklevel=2)


def require_no_later_rows(folder: Path, period: int):
    """Of a run without a checkpoint, refuses rows that only come after one: they would be lost.

    period: iterations from one checkpoint to the next.

    Raises:
        UserError: there are such rows, or they are damaged.
    """
    rows = read_metrics(folder)
    if rows and rows[-1]["iteration"] > period:
        remedy = f"put {NEWEST} back, or remove {folder} to start the run over"
        raise UserError(
            f"{folder / METRICS} has rows until iteration {rows[-1]['iteration']}, and there is no checkpoint: {remedy}"
        )


def read_metrics_until(folder: Path, config: Config, evaluated: int) -> list[dict[str, Any]]:
    """The rows until a run's last evaluation, for a checkpoint that does not hold them.

    Raises:
        UserError: some are missing or damaged.
    """
    rows = [row for row in read_metrics(folder) if row["iteration"] <= evaluated]
    gap = find_gap(rows, config, read_sessions(folder), evaluated)
    if gap is None and (rows[-1]["iteration"] if rows else 0) != evaluated:
        gap = f"lacks the row of iteration {evaluated}"
    if gap is not None:
        remedy = f"restore it, or remove {folder} to start the run over"
        raise UserError(f"{folder / METRICS} {gap}, and its checkpoint is too old to have it: {remedy}")
    return rows


# Checkpoints ----------------------------------------------------------------------------------------------------------


def checkpoint_identity(config: Config, fingerprint: str) -> dict[str, Any]:
    """What a checkpoint must hold to be of this run; fingerprint: of the data that it saw."""
    return {"schema": SCHEMA, "config": config.describe(), "data": fingerprint}


def save_checkpoint(folder: Path, state: dict[str, Any]):
    """Writes a dict of tensors, numbers and strings as the newest checkpoint and keeps its predecessor.

    Raises:
        OSError: it could not be written; both older checkpoints are still there.
    """
    unfinished = folder / ".checkpoint.unfinished"
    with naming(folder / NEWEST):
        write_atomically(unfinished, pack(state))
    if (folder / NEWEST).exists():
        os.replace(folder / NEWEST, folder / PREVIOUS)
    os.replace(unfinished, folder / NEWEST)


def save_best(folder: Path, state: dict[str, Any]):
    """As `save_checkpoint`, as the best one; after it, so that the best one is never of what is still to come."""
    write_atomically(folder / BEST, pack(state))


def pack(state: dict[str, Any]) -> bytes:
    import torch

    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def load_checkpoint(
    folder: Path, identity: dict[str, Any], find_misfit: Callable[[dict[str, Any]], str | None]
) -> dict[str, Any] | None:
    """The newest undamaged checkpoint, its tensors on the CPU, or None where there is none at all.

    A newest one that is damaged or of another run is set aside with a warning, and its predecessor taken. identity: of
    `checkpoint_identity`. find_misfit: what else keeps a checkpoint from being taken up, None where nothing does.

    Raises:
        UserError: there are checkpoints, but none that can be used.
    """
    reasons = []
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        state = read_checkpoint(path, identity)
        if isinstance(state, dict) and (misfit := find_misfit(state)) is not None:
            state = f"is damaged ({misfit})"
        if isinstance(state, str):
            reasons.append(f"{path} {state}")
            continue
        if reasons:
            os.replace(folder / NEWEST, folder / DAMAGED)
            warnings.warn(f"{reasons[0]}; it is now {DAMAGED}, and the run goes on from {PREVIOUS}", stacklevel=2)
        return state
    if reasons:
        raise UserError(f"{' and '.join(reasons)}: remove {folder} to start the run over")
    return None


def read_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any] | str:
    """The content of a checkpoint, or what is wrong with it. A checkpoint is a zip file, with a CRC-32 of every member.

    Raises:
        OSError: it cannot be read, which says nothing of what it holds.
        MemoryError, RuntimeError: memory is lacking.
    """
    import torch

    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            return f"is damaged ({damaged} has a wrong checksum)"
        content.seek(0)
        state = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        if isinstance(error, MemoryError | RuntimeError) and is_out_of_memory(error):
            raise
        return f"is damaged ({type(error).__name__})"
    if not isinstance(state, dict):
        return "is not a checkpoint"
    differing = [field for field, value in identity.items() if state.get(field) != value]
    return f"is of another run (its {differing[0]} differs)" if differing else state
