"""Collecting signals, and restoring their handlers."""

import os
import signal

import pytest

from reproduce.signals import collect_stop_signals


def test_signals_are_collected_and_handlers_restored():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(ZeroDivisionError), collect_stop_signals() as stop_signals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert stop_signals == [signal.SIGINT, signal.SIGTERM, signal.SIGINT]
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_first_signal_is_acknowledged_and_a_second_ctrl_c_aborts(capfd: pytest.CaptureFixture[str]):
    with collect_stop_signals("stopping", abort=True):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert capfd.readouterr() == ("", "\nstopping\n")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("handler", "collected"), [(signal.SIG_DFL, [signal.SIGHUP]), (signal.SIG_IGN, [])])
def test_a_closed_terminal_is_a_request_except_under_nohup(handler: signal.Handlers, collected: list[int]):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with collect_stop_signals() as stop_signals:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop_signals == collected and signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)
