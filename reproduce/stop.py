"""The signals that ask a process to stop, gathered for whoever can stop in order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests(received: list[int] | None = None) -> Iterator[list[int]]:
    """A list that receives the signals SIGTERM and SIGINT, instead of this process ending by them.

    received: the list to use, where others hold it before the signals are caught; by default a new one.
    """
    requests = [] if received is None else received
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _: requests.append(number))
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
