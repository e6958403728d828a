"""Signals that ask to stop are gathered, and afterwards end the process again."""

import os
import signal

import pytest

from reproduce.stop import stop_requests


def test_requests_are_gathered_and_the_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    sent = []
    with pytest.raises(ZeroDivisionError), stop_requests() as requests:
        assert requests == []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            sent.append(number)
            assert requests == sent
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
