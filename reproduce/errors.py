"""Exit statuses, and errors that the user can correct; each message is one sentence: what is wrong and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

FINISHED, USER_ERROR, DIVERGED, STOPPED, ABORTED = 0, 2, 3, 75, 130
"""Exit statuses of run.py. STOPPED: early, with a checkpoint."""


class UserError(ValueError):
    """An error that the user can correct."""

    status = USER_ERROR
    """Exit status that train_many.py reports for the run; every other command exits with USER_ERROR for all subclasses."""


class RunLocked(UserError):
    """Another process is training this run."""

    status = 4


class UnsupportedPrecision(UserError):
    """The device does not support the requested precision."""

    status = 5


class OutOfMemory(UserError):
    """Training does not fit into the device's memory."""

    status = 6


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Convert out-of-memory errors of Python, NumPy, torch and torch_npu to OutOfMemory with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        phrases = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
        if isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in phrases):
            raise OutOfMemory("out of memory: stop other processes, or train with a lower --batch-size") from None
        raise
