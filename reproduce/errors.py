"""Errors that the user can correct; each message is one sentence that says what is wrong and what to do."""


class UserError(ValueError):
    """An error that the user can correct."""


class RunLocked(UserError):
    """Another process is training this run."""

    status = 4  # reported by train_many.py; run.py exits with 2 after every UserError


class UnsupportedPrecision(UserError):
    """The device does not support the requested precision."""

    status = 5


class OutOfMemory(UserError):
    """Training does not fit into the device's memory."""

    status = 6


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Recognize the out-of-memory errors of Python, NumPy, torch and torch_npu."""
    phrases = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in phrases)
