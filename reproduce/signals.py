"""Collect stop signals: SIGTERM, SIGINT and SIGHUP."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def collect_stop_signals(message: str = "", abort: bool = False, stop_signals: list[int] | None = None) -> Iterator[list[int]]:
    """Append SIGTERM, SIGINT and SIGHUP (closed terminal; not on Windows) to the yielded list instead of ending the process.

    Ignored signals stay ignored, as SIGHUP under nohup.

    message: printed to stderr at the first signal. abort: a second SIGINT raises KeyboardInterrupt. stop_signals: the list to
    fill, by default a new one.
    """
    stop_signals = [] if stop_signals is None else stop_signals

    def handle(number: int, _: object):
        stop_signals.append(number)
        if message and len(stop_signals) == 1:
            with suppress(OSError):  # not through sys.stderr, which the signal may have interrupted
                os.write(2, f"\n{message}\n".encode())
        if abort and stop_signals.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, handle)
    try:
        yield stop_signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
