"""Everything a run leaves behind, in a form that two runs can be compared by."""

import json
from pathlib import Path
from typing import Any

from reproduce import record
from reproduce.config import SCHEMA
from reproduce.errors import UserError

TIMES = {"seconds", "training_seconds", "images_per_second"}
"""Fields that differ between any two runs."""


def without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: without_times(value) for name, value in content.items() if name not in TIMES}
    return [without_times(value) for value in content] if isinstance(content, list) else content


def read_outcome(folder: Path) -> dict[str, Any]:
    """Return the content of a run folder without times and sessions.

    Raises:
        UserError: a file is damaged.
    """
    checkpoint = record.read_checkpoint(folder / record.NEWEST, {"schema": SCHEMA})
    if isinstance(checkpoint, str):
        raise UserError(f"{folder / record.NEWEST} {checkpoint}")
    files = {name: json.loads((folder / name).read_text()) for name in (record.CONFIG, record.RESULT, record.RESPONSES)}
    files[record.PREDICTIONS] = (folder / record.PREDICTIONS).read_text()
    return without_times(files | {"metrics": record.read_metrics(folder), "checkpoint": checkpoint})
