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


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy, torch or torch_npu ran out of memory."""
    phrases = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    is_phrase = isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in phrases)
    return isinstance(error, MemoryError) or is_phrase


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Convert out-of-memory errors to OutOfMemory with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "out of memory: stop other processes, or use a lower --batch-size (run.py) or --per-device (sweep.py)"
        ) from None
