"""Concurrent runs in one process: each computes what it computes alone, even if others fail."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from reproduce import record, train_many
from reproduce.errors import RunLocked, UnsupportedPrecision
from reproduce.run import Outcome, main, parse
from reproduce.step import Training
from tests.conftest import QUICK_FLAGS, assert_equal, interrupt, wait_until
from tests.outcome import read_outcome

FLAGS = f"{QUICK_FLAGS} --eval-every 12 --checkpoint-every 4"
RUNS = {
    "residual": FLAGS,
    "seed 1": f"{FLAGS} --seed 1",
    "plain": f"{FLAGS} --no-residual --precision bf16 --eval-every 8",
    "adam": f"{FLAGS} --optimizer adam --deterministic",
}


def folder_of(line: str, out: str) -> Path:
    return Path(out) / parse(line.split())[0].folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, synthetic_folder: Path) -> dict[str, Any]:
    """The outcome of each run when trained alone."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "data").mkdir()
    (folder / "data" / "synthetic").symlink_to(synthetic_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in RUNS.values():
            assert main([*line.split(), "--out", "alone"]) == 0
        return {name: read_outcome(folder_of(line, "alone")) for name, line in RUNS.items()}


def train(lines: Sequence[str]) -> tuple[int, dict[int, Outcome]]:
    """Train the lines and return the exit status and, by line number, each run's outcome."""
    path = Path("outcomes.jsonl")
    path.unlink(missing_ok=True)
    status = train_many.train_lines([f"{line} --out together\n" for line in lines], path)
    outcomes = [json.loads(line) for line in path.read_text().splitlines()]
    return status, {outcome["line"]: Outcome(outcome["status"], outcome["message"]) for outcome in outcomes}


def test_interleaved_runs_equal_runs_alone(alone: dict[str, Any], workplace: Path, capsys, monkeypatch):
    order: list[int] = []
    step = Training.step

    def watched(self: Training):
        order.append(id(self))
        assert torch.are_deterministic_algorithms_enabled() == (self.config.optimizer == "adam"), "each run has its own flags"
        step(self)

    monkeypatch.setattr(Training, "step", watched)
    status, outcomes = train(list(RUNS.values()))
    printed = capsys.readouterr()
    assert (status, printed.err) == (0, "")
    for number in range(1, len(RUNS) + 1):
        assert outcomes[number].status == 0 and "final test error" in outcomes[number].message
        assert f"line {number}, exit status 0: {outcomes[number].message}\n" in printed.out
    switches = sum(a != b for a, b in zip(order, order[1:], strict=False))
    assert switches > 2 * len(RUNS), "the runs were not interleaved"
    for name, line in RUNS.items():
        assert_equal(read_outcome(folder_of(line, "together")), alone[name])
    sessions = [json.loads((folder_of(line, "together") / "environment.json").read_text()) for line in RUNS.values()]
    assert [session["beside"] for (session,) in sessions] == list(range(len(RUNS)))


def test_a_failing_run_leaves_the_others_alone(alone: dict[str, Any], workplace: Path, capsys, monkeypatch):
    step = Training.step

    def failing(self: Training):
        if self.config.seed == 7 and self.rate > 0.05:
            raise RuntimeError("no such kernel\nand more")
        step(self)

    monkeypatch.setattr(Training, "step", failing)
    expected = {
        RUNS["residual"]: (0, "final test error"),
        f"{FLAGS} --seed 7": (1, "RuntimeError: no such kernel"),
        f"{FLAGS} --optimizer adam --lr 1e30": (3, "diverged at iteration"),
        f"{FLAGS} --data 'nowhere": (2, "No closing quotation"),
        "--help": (2, "describes no run"),
        f"{FLAGS} --precision tf32": (UnsupportedPrecision.status, "tf32"),
        RUNS["seed 1"]: (RunLocked.status, f"locked by process {os.getpid()} on"),
        RUNS["plain"]: (0, "final test error"),
    }
    with record.open_run_folder(parse(RUNS["seed 1"].split())[0], Path("together")):
        status, outcomes = train(list(expected))
    assert status != 0
    for number, (expected_status, part) in enumerate(expected.values(), start=1):
        assert outcomes[number].status == expected_status and part in outcomes[number].message
    assert "in failing" in capsys.readouterr().err, "the traceback is printed"
    for name in ("residual", "plain"):
        assert_equal(read_outcome(folder_of(RUNS[name], "together")), alone[name])


def test_unwritable_outcomes_are_refused_before_a_run_starts(workplace: Path):
    with pytest.raises(FileNotFoundError):
        train_many.train_lines([f"{RUNS['residual']} --out together"], Path("nowhere/outcomes"))
    assert not Path("together").exists()


def test_a_signal_stops_all_runs_and_they_resume(alone: dict[str, Any], workplace: Path, monkeypatch):
    interrupt(monkeypatch, 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
    names = ["residual", "seed 1"]
    lines = [RUNS[name] for name in names]
    status, outcomes = train(lines)
    assert status == 75 and [outcomes[number].status for number in (1, 2)] == [75, 75]
    assert train(lines)[0] == 0
    for name in names:
        assert_equal(read_outcome(folder_of(RUNS[name], "together")), alone[name])


def test_runs_start_as_their_lines_arrive(workplace: Path, capsys):
    """The last line arrives after the first run has finished."""
    first = folder_of(RUNS["residual"], "together")

    def lines() -> Iterator[str]:
        yield f"{RUNS['residual']} --out together"
        wait_until(lambda: (first / "result.json").exists())
        yield "\n"
        yield f"{RUNS['seed 1']} --out together"

    assert train_many.train_lines(lines()) == 0
    assert "line 3, exit status 0: " in capsys.readouterr().out, "empty lines count"
    assert (folder_of(RUNS["seed 1"], "together") / "result.json").exists()
