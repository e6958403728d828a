"""Checkpoints of a run: write them atomically, and read the newest usable one without executing code from it.

torch is imported when a checkpoint is read or written, so that --help is fast.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reproduce import record
from reproduce.config import SCHEMA, Config
from reproduce.errors import UserError, is_out_of_memory

T = TypeVar("T")
NEWEST, PREVIOUS, DAMAGED, BEST = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt", "best.pt"
BEST_BY = {"full": "test_error", "val": "held_out_error"}
"""The field of a row that selects the best evaluation, by split."""


def checkpoint_identity(config: Config, fingerprint: str) -> dict[str, Any]:
    """Return the fields that tie a checkpoint to its run. fingerprint: SHA-256 of the data."""
    return {"schema": SCHEMA, "config": config.describe(), "data": fingerprint}


def save_checkpoint(folder: Path, state: dict[str, Any], is_best: bool = False):
    """Write a dict of tensors, numbers and strings as the newest checkpoint and, if it is the best, as best.pt.

    Raises:
        OSError: it cannot be written; both older checkpoints remain.
    """
    import torch

    content = io.BytesIO()
    torch.save(state, content)
    if is_best:  # first: if the process is killed in between, the resumed run writes it again
        record.write_atomically(folder / BEST, content.getvalue())
    record.write_atomically(folder / NEWEST, content.getvalue(), previous=folder / PREVIOUS)


def load_checkpoint(folder: Path, identity: dict[str, Any], parse: Callable[[dict[str, Any]], T]) -> T | None:
    """Return parse(checkpoint) for the newest usable checkpoint, or None if there is no checkpoint.

    If the newest one is damaged or belongs to another run, it is renamed, with a warning, and the previous one is used.
    parse: raises LookupError, ValueError or msgspec's errors if the checkpoint does not fit.

    Raises:
        UserError: there are checkpoints, but none is usable.
    """
    problems: list[str] = []
    for path in (folder / NEWEST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            parsed = parse(read_checkpoint(path, identity))
        except (msgspec.MsgspecError, LookupError, ValueError) as error:
            problems.append(str(error) if isinstance(error, UserError) else f"{path} is damaged ({error})")
            continue
        if problems:
            os.replace(folder / NEWEST, folder / DAMAGED)
            warnings.warn(f"{problems[0]}; renamed to {DAMAGED}, resuming from {PREVIOUS}", stacklevel=2)
        return parsed
    if problems:
        raise UserError(f"{' and '.join(problems)}: remove {folder} to start over")
    return None


def read_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint, with tensors on the CPU, without executing code from it.

    identity: from `checkpoint_identity`, or a part of it.

    Raises:
        UserError: the file is damaged or belongs to another run.
        OSError: the file cannot be read.
    """
    import torch

    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            if archive.testzip() is not None:
                raise ValueError("wrong CRC-32")  # torch.load does not check it
        content.seek(0)
        state = torch.load(content, map_location="cpu", weights_only=True)
        differing = [field for field, value in identity.items() if state.get(field) != value]
    except Exception as error:  # a damaged file can fail in any way
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path} is damaged ({type(error).__name__})") from None
    if differing:
        raise UserError(f"{path} belongs to another run (its {differing[0]} differs)")
    return state
