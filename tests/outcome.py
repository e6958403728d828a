"""The content of a run folder, to compare two runs."""

import json
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from reproduce import checkpoints, record
from reproduce.config import SCHEMA

VARYING = {"seconds", "training_seconds", "images_per_second", "data_folder"}
"""Fields that differ between two equal runs."""


def drop_varying(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: drop_varying(value) for name, value in content.items() if name not in VARYING}
    return [drop_varying(value) for value in content] if isinstance(content, list) else content


def read_outcome(folder: Path) -> dict[str, Any]:
    """Return the content of a run folder that two equal runs share."""
    outcome: dict[str, Any] = {"metrics": to_builtins(record.read_metrics(folder))}
    for name in (record.CONFIG, record.RESULT, record.RESPONSES):
        outcome[name] = json.loads((folder / name).read_text())
    for name in (record.PREDICTIONS, record.CONFUSION):
        outcome[name] = (folder / name).read_text()
    for name in (checkpoints.NEWEST, checkpoints.BEST):
        if (folder / name).exists():
            outcome[name] = checkpoints.read_checkpoint(folder / name, {"schema": SCHEMA})
    return drop_varying(outcome)
