"""What a training tells of itself as time goes by: by a clock of the test's own."""

import errno
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reproduce.config import Config, RunOptions
from reproduce.progress import CHUNKS, FIRST_SIGN, NEXT_SIGN, Progress, format_header, print_line

CONFIG = Config(depth=20, batch_size=100, iterations=1000)
NAME = "residual20 seed 0"
Train = Callable[[float], list[str]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def train(clock: list[float], capsys: pytest.CaptureFixture[str]) -> Callable[[Progress], Train]:
    """Goes on by a chunk of ten iterations that takes so many seconds, and returns what is told."""

    def begin(progress: Progress) -> Train:
        def train(seconds: float) -> list[str]:
            clock[0] += seconds
            progress.show_chunk([2.0] * 10, [40] * 10, seconds)
            return capsys.readouterr().out.splitlines()

        return train

    return begin


def row(test_error: float) -> dict[str, float]:
    return {"learning_rate": 0.1, "train_loss": 1.5, "train_error": 50.0, "test_error": test_error}


def test_the_opening_says_what_is_trained_where_and_from_when_on():
    config, options = Config(precision="bf16", seed=3), RunOptions(data="there", deterministic=True)
    images = {"training": 45_000, "held-out": 5000, "test": 10_000}
    opening = format_header(config, options, Path("runs/a/seed3"), "cpu (Abacus), 2 threads", 269_722, images, 2000)
    assert opening.split("\n  ") == [
        "residual20 seed 3: 269,722 parameters; recipe: not the paper's in precision bf16 (the paper: fp32)",
        "on cpu (Abacus), 2 threads, bf16, deterministic kernels",
        "CIFAR-10 in there: 45,000 training, 5,000 held-out, 10,000 test",
        "runs/a/seed3: resuming at iteration 2,000, to train until iteration 64,000",
    ]


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_a_training_that_nobody_can_read_goes_on_in_silence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int):
    """A pipe or a terminal that is gone, a log on a full disk."""

    class Gone(io.TextIOWrapper):
        def flush(self):
            raise OSError(number, os.strerror(number))

    gone = Gone(io.FileIO(tmp_path / "log", "w"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        print_line("a line")
    assert os.fstat(gone.fileno()).st_rdev == os.stat(os.devnull).st_rdev, "what is still to come goes nowhere"
    gone.buffer.close()


def test_there_is_a_sign_of_life_and_an_estimated_end_before_any_evaluation(train):
    go = train(Progress(CONFIG, 500, [], threads=1))
    assert go(FIRST_SIGN - 1) == []
    (first,) = go(1)  # 20 iterations in 10 s; 480 are left
    assert (
        first.startswith(f"{NAME}  iteration 520/1000  loss 2.000  training error 40.0%  ")
        and "  0:04:00 left, until " in first
    )
    assert go(NEXT_SIGN - 1) == [] and len(go(1)) == 1


def test_an_evaluation_puts_the_next_sign_off(train, capsys):
    progress = Progress(CONFIG, 0, [], threads=1)
    go = train(progress)
    go(1)
    progress.show_row(row(60.0))
    capsys.readouterr()
    assert go(NEXT_SIGN - 1) == [] and len(go(1)) == 1


def test_on_a_terminal_the_end_is_estimated_once(train, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    go = train(Progress(CONFIG, 0, [], threads=1))
    assert [len(go(FIRST_SIGN)), *(len(go(NEXT_SIGN)) for _ in range(3))] == [1, 0, 0, 0]


def test_the_best_so_far_is_marked_earlier_sessions_included(train, capsys):
    progress = Progress(CONFIG, 100, [row(30.0), row(40.0)], threads=1)
    train(progress)(1)
    for test_error in (35.0, 25.0, 25.5):
        progress.show_row(row(test_error))
    told = [line.partition("test error ")[2].partition(")")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["35.00% (best so far 30.00%", "25.00% (best so far", "25.50% (best so far 25.00%"]


@pytest.mark.parametrize(("threads", "advised"), [(2, True), (1, False)])
def test_a_processor_that_has_become_busy_is_told_once(train, threads, advised):
    go = train(Progress(CONFIG, 0, [], threads))
    before = [line for _ in range(CHUNKS) for line in go(0.1)]
    moment = [line for _ in range(CHUNKS // 2) for line in go(1)]  # shorter than half of the window
    (line,) = [line for _ in range(CHUNKS) for line in go(1) if "only" in line]
    assert before == moment == []
    assert line.startswith(f"{NAME}  only 1000 images/s, after 10000: something else has the processor")
    assert ("all 2 threads: OMP_NUM_THREADS=1" in line) == advised
    assert not [line for _ in range(3 * CHUNKS) for line in go(5) if "only" in line]


def test_an_accelerator_that_others_share_is_no_matter(train):
    go = train(Progress(CONFIG, 0, [], threads=None))
    assert not [line for seconds in (0.1, 1.0) for _ in range(CHUNKS) for line in go(seconds) if "only" in line]


def test_a_length_without_end_is_no_error(train):
    go = train(Progress(Config(iterations=10**400), 0, [], threads=1))
    assert "no end in sight" in go(FIRST_SIGN)[0]
