"""The pending runs of a sweep, and the outcomes of those that were started."""

import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.engine.dashboard import Dashboard
from experiments.engine.status import format_state, has_ended
from reproduce.config import Config
from reproduce.errors import ABORTED, STOPPED, RunLocked

RETRY_INTERVAL = 5.0
"""Seconds until a retry of a run that another process was training."""


def is_locked(folder: Path) -> bool:
    """Whether another process is training into a run folder."""
    if not folder.is_dir():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True


class RunQueue:
    """The runs of a sweep, in order; `take_run` skips those that have ended.

    common_error: the user error that stopped the queue; set when two runs fail with the same message.
    failures: the message for each failed run.
    """

    def __init__(self, runs: Sequence[Config], out: Path, dashboard: Dashboard):
        self.runs, self.out, self.dashboard = runs, out, dashboard
        self.common_error: str | None = None
        self.failures: dict[Config, str] = {}
        self.taken: set[Config] = set()
        self.retry_at: dict[Config, float] = {}

    def take_run(self) -> Config | None:
        """Return the next run to start, None if there is none now."""
        for config in self.runs if self.common_error is None else []:
            if config in self.taken or time.monotonic() < self.retry_at.get(config, 0):
                continue
            if has_ended(config, self.out):
                self.taken.add(config)
            elif is_locked(self.out / config.folder):
                self.retry_later(config)
            else:
                self.taken.add(config)
                return config
        return None

    def retry_later(self, config: Config):
        """Postpone a run that another process is training."""
        if config not in self.retry_at:
            self.dashboard.print_event(f"{config.folder}: another process is training it")
        self.retry_at[config] = time.monotonic() + RETRY_INTERVAL
        self.taken.discard(config)

    def record_outcome(self, config: Config, status: int, message: str, stopping: bool):
        """Record the outcome of a run.

        status: exit status reported by train_many.py, or that of the worker process if it died. stopping: the sweep is
        stopping, so a worker may have been aborted or killed before it could report.
        """
        killed = status < 0 or status == ABORTED
        if has_ended(config, self.out) or status == STOPPED or (stopping and killed):
            self.dashboard.print_event(format_state(config, self.out))
        elif status == RunLocked.status:
            self.retry_later(config)
        else:
            if status == 2 and message in self.failures.values():
                self.common_error = message
            self.failures[config] = message
            self.dashboard.print_event(f"{config.folder}: failed: {message.splitlines()[0]}")
