"""The content of a run folder, to compare two runs."""

import json
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from reproduce import record
from reproduce.config import SCHEMA
from reproduce.schema import Finished

VARYING = {"seconds", "training_seconds", "images_per_second", "data_folder"}
"""Fields that differ between two equal runs."""


def drop_varying(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: drop_varying(value) for name, value in content.items() if name not in VARYING}
    return [drop_varying(value) for value in content] if isinstance(content, list) else content


def read_outcome(folder: Path) -> dict[str, Any]:
    """Return the content of a run folder that two equal runs share.

    Raises:
        UserError: a file is damaged.
    """
    checkpoint = record.read_checkpoint(folder / record.NEWEST, {"schema": SCHEMA})
    files = {name: json.loads((folder / name).read_text()) for name in (record.CONFIG, record.RESULT, record.RESPONSES)}
    files[record.PREDICTIONS] = (folder / record.PREDICTIONS).read_text()
    return drop_varying(files | {"metrics": to_builtins(record.read_metrics(folder)), "checkpoint": checkpoint})


def read_finished(folder: Path) -> Finished:
    """Return the result of a run that has finished."""
    result = record.read_result(folder)
    assert isinstance(result, Finished)
    return result
