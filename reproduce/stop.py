"""The signals that ask a process to stop, gathered for whoever can stop in order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that receives the signals SIGTERM and SIGINT, instead of this process ending by them."""
    requests: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _: requests.append(number))
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
