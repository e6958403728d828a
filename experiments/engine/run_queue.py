"""What a sweep still has to train, and what became of the rest."""

import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.engine.dashboard import Dashboard
from experiments.engine.progress import describe_failure, describe_run, has_ended, judge_ending
from reproduce.config import Config

LOCK_INTERVAL = 5.0
"""Seconds between two looks at a run that another process is training."""
LOCK_PATIENCE = 30.0
"""Seconds to wait for such runs when nothing else is left: what an interrupted worker may take to let go of its
folder."""


def is_locked(folder: Path) -> bool:
    """Whether another process is training into a run's folder."""
    if not folder.is_dir():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True


class RunQueue:
    """The runs of list_runs() that have not ended and that nobody is training, first things first.

    list_runs: asked every time, since the results of some runs may decide on others.
    obstacle: what is in the way of every run: why two of them were refused in the same words. None is started then.
    failures: for every run that has failed, why; neither a run that stopped early nor one of another process is a
    failure.
    """

    def __init__(self, list_runs: Callable[[], list[Config]], out: Path, display: Dashboard):
        self.list_runs, self.out, self.display = list_runs, out, display
        self.obstacle: str | None = None
        self.failures: dict[Config, str] = {}
        self.taken: set[Config] = set()
        self.look_again: dict[Config, float] = {}
        self.latest = time.monotonic()

    def take_run(self) -> Config | None:
        """The next run to start, or None if there is none now."""
        for config in self.list_runs() if self.obstacle is None else []:
            if config in self.taken or time.monotonic() < self.look_again.get(config, 0):
                continue
            if has_ended(config, self.out):
                self.taken.add(config)
            elif is_locked(self.out / config.folder):
                self.put_off_run(config)
            else:
                self.taken.add(config)
                return config
        return None

    def put_off_run(self, config: Config):
        if config not in self.look_again:
            self.display.tell_event(f"{config.folder}: another process is training it")
        self.look_again[config] = time.monotonic() + LOCK_INTERVAL
        self.taken.discard(config)

    def note_end(self, config: Config, status: int, tail: str, stopping: bool):
        """Takes in that the process of a run that was taken has ended (see `judge_ending`)."""
        verdict = judge_ending(config, self.out, status, stopping)
        if verdict == "locked":
            return self.put_off_run(config)
        self.latest = time.monotonic()
        if verdict == "failed":
            failure = describe_failure(status, tail)
            # A precision or memory that the device lacks has a status of its own: it is in the way of some runs only.
            if status == 2 and failure in self.failures.values():
                self.obstacle = tail.splitlines()[-1].removeprefix("error: ")
            self.failures[config] = failure
            self.display.tell_event(f"{config.folder}: failed, {failure.splitlines()[0]}")
        else:
            self.display.tell_event(describe_run(config, self.out))

    def is_worth_waiting(self) -> bool:
        """Whether some runs are only put off, and the last end of another is not long ago."""
        waiting = self.obstacle is None and not self.taken.issuperset(self.look_again)
        return waiting and time.monotonic() < self.latest + LOCK_PATIENCE
