"""The signals that ask a process to stop, gathered for whoever can stop in order."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def collect_stop_signals(answer: str = "", insist: bool = False) -> Iterator[list[int]]:
    """A list that receives the signals SIGTERM, SIGINT and SIGHUP, instead of this process ending by them.

    SIGHUP says that the terminal was closed; where it is ignored, as under nohup, it stays so.
    answer: said on stderr to the first of them, at once; insist: whether a second SIGINT raises KeyboardInterrupt.
    """
    requests: list[int] = []

    def note(number: int, _: object):
        requests.append(number)
        if answer and len(requests) == 1:
            with suppress(OSError):  # Past sys.stderr: the signal may have come while that is being written to.
                os.write(2, f"\n{answer}\n".encode())
        if insist and requests.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, note)
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
