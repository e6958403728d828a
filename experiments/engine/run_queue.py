"""The pending runs of a sweep, and the outcomes of those that were started."""

import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from experiments.engine.status import format_state, has_ended, read_state
from reproduce.config import Config
from reproduce.errors import ABORTED, STOPPED, RunLocked
from reproduce.progress import BAR, print_line

RETRY_INTERVAL = 5.0
"""Seconds until a retry of a run that another process was training."""
BAR_INTERVAL = 1.0
"""Seconds between updates of the progress bar."""


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

    common_error: the user error that stopped the queue; set when runs of two configurations, or
    two of the only configuration, fail with the same message.
    failures: the message for each failed run. iterations: how far each run has been trained; an ended one completely. bar: the
    sum of the iterations, on a terminal.
    """

    def __init__(self, runs: Sequence[Config], out: Path):
        self.runs, self.out = runs, out
        self.common_error: str | None = None
        self.failures: dict[Config, str] = {}
        self.taken: set[Config] = set()
        self.retry_at: dict[Config, float] = {}
        self.iterations = {
            config: config.iterations if has_ended(config, out) else read_state(config, out).iteration for config in runs
        }
        total, done = sum(config.iterations for config in runs), sum(self.iterations.values())
        style = {"bar_format": f"{BAR}, {{remaining}} left", "dynamic_ncols": True, "leave": False}
        self.bar = tqdm(total=total, initial=done, disable=None, **style)
        self.update_at = 0.0

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
            print_line(f"{config.folder}: another process is training it")
        self.retry_at[config] = time.monotonic() + RETRY_INTERVAL
        self.taken.discard(config)

    def record_outcome(self, config: Config, status: int, message: str, stopping: bool):
        """Record the outcome of a run.

        status: exit status reported by train_many.py, or that of the worker process if it died. stopping: the sweep is
        stopping, so a worker may have been aborted or killed before it could report.
        """
        killed, ended = status < 0 or status == ABORTED, has_ended(config, self.out)
        if ended:
            self.iterations[config] = config.iterations
        if ended or status == STOPPED or (stopping and killed):
            print_line(format_state(config, self.out))
        elif status == RunLocked.status:
            self.retry_later(config)
        else:
            is_only = len({run.key for run in self.runs}) == 1
            others = [failure for failed, failure in self.failures.items() if is_only or failed.key != config.key]
            if status == 2 and message in others:
                self.common_error = message
            self.failures[config] = message
            print_line(f"{config.folder}: failed: {message.splitlines()[0]}")

    def update_bar(self, active: Sequence[Config]):
        """Show how far the active runs have been trained."""
        if self.bar.disable or time.monotonic() < self.update_at:
            return
        self.update_at = time.monotonic() + BAR_INTERVAL
        self.iterations |= {config: read_state(config, self.out).iteration for config in active}
        self.bar.n = sum(self.iterations.values())
        self.bar.set_description_str(f"{len(active)} in training")
