"""The run folder: what a run leaves behind, written so that a crash at any moment leaves a usable state.

The only module that knows the names and the form of its files; it is read without torch, but for checkpoints.

config.json              the config, with its schema version and key
environment.json         one object per session: git commit, command, versions, device, flags, fingerprint of the data
metrics.jsonl            one object per evaluation
checkpoint.pt            the newest checkpoint; checkpoint.previous.pt is the one before
responses.json           standard deviation of every 3x3 layer's response (Fig. 7)
predictions.txt          the class given to every test image at the last iteration
result.json              written last: its presence means that the run has ended, finished or diverged
"""

import io
import json
import os
import shlex
import subprocess
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from reproduce.config import SCHEMA, Config, Locked, Machine, UserError, write_flags

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"
RESPONSES, RESULT, PREDICTIONS = "responses.json", "result.json", "predictions.txt"
RIGHT, WRONG = "0123456789", "abcdefghij"
"""A predicted class in predictions.txt."""
NEWEST, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"


def write_atomically(path: Path, content: bytes):
    """Writes a file whole or not at all: temporary file, fsync, rename, fsync of the folder.

    Raises:
        OSError: it could not be written; what was there before is untouched and no temporary file remains.
    """
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with open(temporary, "wb") as file:
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
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): remove {path.parent} to start the run over") from None


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
    except (AttributeError, TypeError, UserError):
        config = None
    if config is None or described != describe_config(config):
        raise UserError(f"{source} is of another version of this repository: its config does not read as one of today's")
    return config


def read_config(folder: Path) -> Config | None:
    """The config of a run's folder, None where there is no config.json.

    Raises:
        UserError: as for `read_json` and `parse_config`.
    """
    described = read_json(folder / CONFIG)
    return None if described is None else parse_config(described, folder)


def list_folders(out: Path) -> list[Path]:
    """The run folders below `out`, in the order of their names."""
    return [path.parent for path in sorted(out.glob(f"*/seed*/{CONFIG}"))]


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a run that has ended, else None. Needs neither the lock nor torch."""
    return read_json(folder / RESULT)


def write_result(folder: Path, result: dict[str, Any]):
    write_json(folder / RESULT, result)


def read_responses(folder: Path) -> list[float] | None:
    """The standard deviation of every 3x3 layer's response, first layer first; None before the run has finished."""
    content = read_json(folder / RESPONSES)
    return None if content is None else content["std"]


def write_responses(folder: Path, std: list[float], images: int):
    """std: as `read_responses` gives it, taken over so many images."""
    write_json(folder / RESPONSES, {"images": images, "std": std})


def read_predictions(folder: Path) -> str | None:
    """A character for every test image, as `write_predictions` has them, without the line ends; None where there is no file."""
    path = folder / PREDICTIONS
    return path.read_text().replace("\n", "") if path.is_file() else None


def write_predictions(folder: Path, predicted: Sequence[int], right: Sequence[bool]):
    """The class, 0 to 9, that each test image is given, in lines of 100: a digit where it is right, a letter (a for 0, b for
    1, ...) where it is wrong. So both the answer and the mistakes can be read, without the labels of the data set."""
    characters = "".join((RIGHT if is_right else WRONG)[c] for c, is_right in zip(predicted, right, strict=True))
    lines = [characters[start : start + 100] + "\n" for start in range(0, len(characters), 100)]
    write_atomically(folder / PREDICTIONS, "".join(lines).encode())


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """One object per session that has trained the run, see `add_session`."""
    return read_json(folder / ENVIRONMENT) or []


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
def open_folder(config: Config, out: Path) -> Iterator[Path]:
    """Makes the run's folder below `out`, or takes up the one that is there, and holds its lock.

    Raises:
        Locked: another process holds it.
        UserError: it belongs to another config.
        OSError: it cannot be made or written.
    """
    folder = out / config.folder
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Locked(f"another process is training into {folder}: wait for it, or choose another --out") from None
    try:
        path = folder / CONFIG
        found = read_json(path)
        if found is None:
            write_json(path, describe_config(config))
        elif found != describe_config(config):
            raise UserError(f"{path} describes another run: choose another --out")
        yield folder
    finally:
        lock.release()


def add_session(folder: Path, config: Config, machine: Machine, session: dict[str, Any]):
    """Appends one session to environment.json, with the command and the state of the code.

    The command leaves out the folders of --data and --out: they say nothing of the run, and records are published.
    """
    data = machine.data if config.dataset == "synthetic" else Machine.data
    command = shlex.join(["python", "reproduce/run.py", *write_flags(config, replace(machine, data=data, out=Machine.out))])
    about = {"command": command, "began": datetime.now(UTC).isoformat(timespec="seconds"), "git": describe_code()}
    write_json(folder / ENVIRONMENT, [*read_sessions(folder), about | session])


@cache
def describe_code() -> dict[str, Any] | None:
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
    """The whole rows of metrics.jsonl; a row torn by a crash is left out."""
    path = folder / METRICS
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def append_metrics(folder: Path, row: dict[str, Any]):
    with open(folder / METRICS, "a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut_metrics(folder: Path, iteration: int):
    """Drops the rows past an iteration, which the run is about to write again."""
    rows = [row for row in read_metrics(folder) if row["iteration"] <= iteration]
    write_atomically(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())


# Checkpoints ----------------------------------------------------------------------------------------------------------


def identify(config: Config, fingerprint: str) -> dict[str, Any]:
    """What a checkpoint must hold to be of this run; fingerprint: of the data that it saw."""
    return {"schema": SCHEMA, "config": config.describe(), "data": fingerprint}


def save_checkpoint(folder: Path, state: dict[str, Any]):
    """Writes a dict of tensors, numbers and strings as the newest checkpoint and keeps its predecessor.

    Raises:
        OSError: it could not be written; both older checkpoints are still there.
    """
    import torch

    content = io.BytesIO()
    torch.save(state, content)
    unfinished = folder / ".checkpoint.unfinished"
    write_atomically(unfinished, content.getvalue())
    if (folder / NEWEST).exists():
        os.replace(folder / NEWEST, folder / PREVIOUS)
    os.replace(unfinished, folder / NEWEST)


def load_checkpoint(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The newest undamaged checkpoint, its tensors on the CPU, or None where there is none at all.

    A newest one that is damaged or of another run is set aside with a warning, and its predecessor taken. identity: of
    `identify`.

    Raises:
        UserError: there are checkpoints, but none that can be used.
    """
    reasons = []
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        state = read_checkpoint(path, identity)
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
    """The content of a checkpoint, or what is wrong with it. A checkpoint is a zip file, with a CRC-32 of every member."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            return f"is damaged ({damaged} has a wrong checksum)"
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        return f"is damaged ({type(error).__name__})"
    if not isinstance(state, dict):
        return "is not a checkpoint"
    differing = [field for field, value in identity.items() if state.get(field) != value]
    return f"is of another run (its {differing[0]} differs)" if differing else state
