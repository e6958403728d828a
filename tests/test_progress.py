"""Output during training, under a fake clock."""

import errno
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reproduce.config import Config
from reproduce.progress import FIRST_LINE, LINE_INTERVAL, Progress, print_line
from reproduce.schema import Row

CONFIG = Config(depth=20, batch_size=100, iterations=1000)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Progress, float], list[str]]:
    """Return a function that shows a chunk of ten iterations taking so many seconds, and returns the printed lines."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def train(progress: Progress, seconds: float) -> list[str]:
        nonlocal now
        now += seconds
        progress.show_chunk([2.0] * 10, [40] * 10, seconds)
        return capsys.readouterr().out.splitlines()

    return train


def row(test_error: float) -> Row:
    return Row(iteration=1, learning_rate=0.1, train_loss=1.5, train_error=50.0, test_error=test_error, seconds=1.0)


def test_training_continues_without_output_if_stdout_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Gone(io.TextIOWrapper):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    gone = Gone(io.FileIO(tmp_path / "log", "w"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        print_line("a line")
    assert os.fstat(gone.fileno()).st_rdev == os.stat(os.devnull).st_rdev
    gone.buffer.close()


def test_regular_lines_estimate_the_remaining_time(train, capsys):
    progress = Progress(CONFIG, 500, [])
    assert train(progress, FIRST_LINE - 1) == []
    (line,) = train(progress, 1)  # 20 iterations in 10 s; 480 are left
    assert line.startswith("residual20 seed 0  iteration 520/1000  loss 2.000  training error 40.0%  ")
    assert "  0:04:00 left, until " in line
    assert train(progress, LINE_INTERVAL - 1) == [] and len(train(progress, 2)) == 1
    progress.show_row(row(60.0))  # postpones the next line
    capsys.readouterr()
    assert train(progress, LINE_INTERVAL - 1) == [] and len(train(progress, 1)) == 1


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_a_bar_with_one_remaining_time(train, monkeypatch, columns: int):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = Progress(Config(depth=1202), 0, [])
    progress.bar.dynamic_ncols, progress.bar.ncols = None, columns
    assert train(progress, LINE_INTERVAL) == []  # 10 of 64,000 iterations
    for state in ("loss 2.000", "evaluating"):
        progress.show_state(state)
        bar = str(progress.bar)
        assert len(bar) == columns and f"10/64000, {state}, 21 images/s, 4 days, 10:39:00 left" in bar
        assert len(bar.split("|")[1]) >= 8


def test_the_best_test_error_includes_earlier_sessions(train, capsys):
    progress = Progress(CONFIG, 100, [row(30.0), row(40.0)])
    train(progress, 1)
    for test_error in (35.0, 25.0, 25.5):
        progress.show_row(row(test_error))
    printed = [line.partition("test error ")[2].partition(")")[0] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["35.00% (best so far 30.00%", "25.00% (best so far", "25.50% (best so far 25.00%"]
