"""Errors that the user can correct; each message is one sentence."""


class UserError(ValueError):
    """Something that whoever started the run can mend; the message is one sentence that says how."""


class RunLocked(UserError):
    """Another process is training into the run's folder.

    status: what reproduce/train_many.py gives as the exit status, where reproduce/run.py has its 2 for every UserError.
    """

    status = 4


class UnsupportedPrecision(UserError):
    """The device does not compute in the precision asked for; status: as for `RunLocked`."""

    status = 5


class OutOfMemory(UserError):
    """What is to be trained does not fit into the device's memory; status: as for `RunLocked`."""

    status = 6


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether an error says that memory is lacking, in the words of Python, numpy, torch or torch_npu."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
