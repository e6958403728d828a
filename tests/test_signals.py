"""Signals that ask to stop are gathered, and afterwards end the process again."""

import os
import signal

import pytest

from reproduce.signals import collect_stop_signals


def test_requests_are_gathered_and_the_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    sent = []
    with pytest.raises(ZeroDivisionError), collect_stop_signals() as requests:
        assert requests == []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            sent.append(number)
            assert requests == sent
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_first_is_answered_at_once_and_a_second_ctrl_c_ends(capfd):
    with collect_stop_signals("heard", insist=True) as requests:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert capfd.readouterr() == ("", "\nheard\n")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert len(requests) == 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("handler", "received"), [(signal.SIG_DFL, [signal.SIGHUP]), (signal.SIG_IGN, [])])
def test_a_closed_terminal_is_a_request_except_under_nohup(handler: signal.Handlers, received: list[int]):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with collect_stop_signals() as requests:
            os.kill(os.getpid(), signal.SIGHUP)
            assert requests == received
        assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)
