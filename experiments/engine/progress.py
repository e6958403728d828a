"""How far a run has come, seen from outside, and what became of it when its process ended. Free of torch."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from reproduce.config import Config, format_flags
from reproduce.errors import OutOfMemory, RunLocked, UnsupportedPrecision, UserError
from reproduce.record import is_run_folder, read_record, read_result
from reproduce.schema import Diverged, Result, Row


@dataclass(frozen=True)
class Progress:
    """How far a run is: iterations and test error (percent) at its last evaluation, seconds of training up to there.

    pace: seconds an iteration took between its last two evaluations, the second one included.
    damage: what is wrong with its record, where that is damaged.
    """

    state: Literal["missing", "unfinished", "finished", "diverged", "damaged"]
    iteration: int = 0
    error: float | None = None
    seconds: float = 0.0
    pace: float | None = None
    damage: str = ""


def read_progress(config: Config, out: Path) -> Progress:
    """How far a run is, from its folder alone: it may be in training meanwhile."""
    folder = out / config.folder
    if not is_run_folder(folder):
        return Progress("missing")
    try:
        record = read_record(folder)
    except UserError as error:
        return Progress("damaged", damage=str(error))
    result, rows = record.result, record.rows
    if isinstance(result, Diverged):
        return Progress("diverged", result.iteration)
    if result is not None:
        return Progress("finished", result.iterations, result.test_error, result.seconds, find_pace(rows))
    if not rows:
        return Progress("unfinished")
    return Progress("unfinished", rows[-1].iteration, rows[-1].test_error, rows[-1].seconds, find_pace(rows))


def find_pace(rows: Sequence[Row]) -> float:
    """The pace that the rows of metrics.jsonl tell, see Progress."""
    before, last = [(0, 0.0), *((row.iteration, row.seconds) for row in rows)][-2:]
    return (last[1] - before[1]) / (last[0] - before[0])


def read_ended(config: Config, out: Path) -> Result | None:
    """The result of a run that has ended; of one whose record is damaged, None."""
    try:
        return read_result(out / config.folder)
    except UserError:
        return None


def has_ended(config: Config, out: Path) -> bool:
    """Whether a run needs no more training; one whose record is damaged does, or its training tells what is wrong."""
    return read_progress(config, out).state in ("finished", "diverged")


LACKING = (UnsupportedPrecision.status, OutOfMemory.status)
"""Exit statuses of what a device cannot train, while it may train other runs."""
Verdict = Literal["ended", "left", "locked", "failed"]


def judge_ending(config: Config, out: Path, status: int, stopping: bool) -> Verdict:
    """What became of a run, from its folder and the exit status that reproduce/train_many.py gives.

    stopping: it may have been told to stop, which before its training has begun just ends it.

    Returns: "ended": finished or diverged; "left": stopped early, to be resumed; "locked": another process is training
    it.
    """
    if has_ended(config, out):
        return "ended"
    if status == RunLocked.status:
        return "locked"
    return "left" if status == 75 or (stopping and status not in (2, 3, *LACKING)) else "failed"


def describe_failure(status: int, tail: str) -> str:
    """Why a run has failed, with the exit status of reproduce/run.py, and the last lines of its output."""
    status = 2 if status in LACKING else status
    reason = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return "\n".join([reason, *(f"    {line}" for line in tail.splitlines())])


def describe_run(config: Config, out: Path) -> str:
    """A run and how far it is, in one line."""
    progress = read_progress(config, out)
    ending = {
        "missing": "not begun",
        "damaged": progress.damage,
        "unfinished": f"unfinished, last evaluated at iteration {progress.iteration} of {config.iterations}",
        "diverged": f"diverged at iteration {progress.iteration}",
        "finished": f"test error {progress.error or 0:.2f}%, trained in {format_time(progress.seconds)}",
    }
    return f"{config.folder}: {ending[progress.state]}"


def format_run(config: Config) -> str:
    """A run's folder and the flags that make it what it is, in one line."""
    return shlex.join([str(config.folder), *format_flags(config)])


def format_time(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:20:00."""
    return str(timedelta(seconds=round(seconds)))
