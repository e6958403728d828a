"""Signals that ask to stop are gathered, and afterwards end the process again."""

import os
import signal

import pytest

from reproduce.stop import stop_requests


@pytest.mark.parametrize("given", [None, [signal.SIGPIPE]])
def test_requests_are_gathered_and_the_handlers_come_back(given: list[int] | None):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    received = list(given or [])
    with pytest.raises(ZeroDivisionError), stop_requests(given) as requests:
        assert requests == received
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            received.append(number)
            assert requests == received
        assert given is None or requests is given
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
