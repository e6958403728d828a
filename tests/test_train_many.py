"""Runs that take turns in one process: each ends as if it were alone, whatever becomes of the others."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reproduce import record, train_many
from reproduce.config import Config
from reproduce.errors import RunLocked, UnsupportedPrecision
from reproduce.run import main, parse
from reproduce.step import Training
from tests.conftest import QUICK, assert_equal
from tests.outcome import read_outcome
from tests.test_sweep import wait_until

FLAGS = "--depth 8 --batch-size 8 --iterations 24 --data synthetic --device cpu --eval-every 12 --checkpoint-every 4"
RUNS = {
    "residual": FLAGS,
    "seed 1": f"{FLAGS} --seed 1",
    "plain": f"{FLAGS} --no-residual --precision bf16 --eval-every 8",
    "adam": f"{FLAGS} --optimizer adam --deterministic",
    "held-out": f"{FLAGS} --split val",
}


def folder_of(line: str, out: str) -> Path:
    return Path(out) / parse(line.split())[0].folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, synthetic_folder: Path) -> dict[str, Any]:
    """What each of the runs leaves that has nothing beside it."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "data").mkdir()
    (folder / "data" / "synthetic").symlink_to(synthetic_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in RUNS.values():
            assert main([*line.split(), "--out", "alone"]) == 0
        return {name: read_outcome(folder_of(line, "alone")) for name, line in RUNS.items()}


def train(lines: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[int, tuple[int, str]], str]:
    """Exit status; per line, its own and its sentence; and what was said on stderr."""
    capsys.readouterr()
    status = train_many.train_lines([f"{line} --out together\n" for line in lines])
    said, complaints = capsys.readouterr()
    ended = [line.partition(": ") for line in said.splitlines() if line.startswith("line ")]
    numbers = [(*(int(word) for word in head.replace(",", "").split() if word.isdigit()), tail) for head, _, tail in ended]
    return status, {line: (status, sentence) for line, status, sentence in numbers}, complaints


def test_a_run_beside_others_equals_the_run_alone(alone: dict[str, Any], workplace: Path, capsys, monkeypatch):
    order: list[int] = []
    step = Training.step

    def watched(self: Training):
        order.append(id(self))
        assert torch.are_deterministic_algorithms_enabled() == (self.config.optimizer == "adam"), "each has its own flags"
        step(self)

    monkeypatch.setattr(Training, "step", watched)
    status, ended, complaints = train(list(RUNS.values()), capsys)
    assert (status, complaints) == (0, "")
    assert {number: status for number, (status, _) in ended.items()} == dict.fromkeys(range(1, len(RUNS) + 1), 0)
    assert all("final test error" in sentence for _, sentence in ended.values())
    changes = sum(a != b for a, b in zip(order, order[1:], strict=False))
    assert changes > 2 * len(RUNS), "they took turns"
    for name, line in RUNS.items():
        assert_equal(read_outcome(folder_of(line, "together")), alone[name])
    sessions = [json.loads((folder_of(line, "together") / "environment.json").read_text()) for line in RUNS.values()]
    assert [session["beside"] for (session,) in sessions] == list(range(len(RUNS)))
    assert parse(sessions[1][0]["command"].split()[2:]) == parse(RUNS["seed 1"].split())


def test_what_becomes_of_one_does_not_touch_the_others(alone: dict[str, Any], workplace: Path, capsys, monkeypatch):
    step = Training.step

    def failing(self: Training):
        if self.config.seed == 7 and self.rate > 0.05:
            raise RuntimeError("no such kernel\nand more")
        step(self)

    monkeypatch.setattr(Training, "step", failing)
    bad = [
        f"{FLAGS} --seed 7",
        f"{FLAGS} --optimizer adam --lr 1e30",
        f"{FLAGS} --depth 9",
        f"{FLAGS} --data 'nowhere",
        f"{FLAGS} --device npu",
        "--help",
        f"{FLAGS} --precision tf32",
        RUNS["seed 1"],
    ]
    with record.open_run_folder(parse(RUNS["seed 1"].split())[0], Path("together")):
        status, ended, complaints = train([RUNS["residual"], *bad, RUNS["plain"]], capsys)
    assert [ended[number][0] for number in range(1, 11)] == [
        0,
        1,
        3,
        2,
        2,
        2,
        2,
        UnsupportedPrecision.status,
        RunLocked.status,
        0,
    ]
    assert status in (1, 2, 3, UnsupportedPrecision.status, RunLocked.status)
    assert ended[2][1] == "RuntimeError: no such kernel"
    assert "diverged at iteration" in ended[3][1]
    assert ended[4][1].startswith("depth must be 6n+2") and "No closing quotation" in ended[5][1]
    assert ended[8][1].startswith("precision tf32 needs") and "another process is training into" in ended[9][1]
    assert "Traceback" in complaints and "in failing" in complaints
    for name in ("residual", "plain"):
        assert_equal(read_outcome(folder_of(RUNS[name], "together")), alone[name])


def test_all_are_stopped_with_a_checkpoint_and_go_on_from_there(alone: dict[str, Any], workplace: Path, capsys, monkeypatch):
    step, count = Training.step, 0

    def counted(self: Training):
        nonlocal count
        count += 1
        if count == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    monkeypatch.setattr(Training, "step", counted)
    names = ["residual", "seed 1"]
    lines = [RUNS[name] for name in names]
    status, ended, _ = train(lines, capsys)
    assert status == 75 and {status for status, _ in ended.values()} == {75}
    assert set(ended) == {1, 2}
    assert all((folder_of(line, "together") / record.NEWEST).exists() for line in lines)
    assert train(lines, capsys)[0] == 0
    for name, line in zip(names, lines, strict=True):
        assert_equal(read_outcome(folder_of(line, "together")), alone[name])
    _, ended, _ = train(lines[:1], capsys)
    assert ended[1][0] == 0 and ended[1][1].startswith("already ended, nothing to do: residual8: final test error")


def test_lines_are_taken_as_they_come(workplace: Path, capsys):
    """The second line comes when the first run has ended."""
    first = folder_of(RUNS["residual"], "together")

    def lines() -> Iterator[str]:
        yield f"{RUNS['residual']} --out together"
        wait_until(lambda: (first / "result.json").exists())
        yield "\n"
        yield f"{RUNS['seed 1']} --out together"

    assert train_many.train_lines(lines()) == 0
    assert "line 3, exit status 0: " in capsys.readouterr().out, "the empty line counts"
    assert (folder_of(RUNS["seed 1"], "together") / "result.json").exists()


def test_runs_that_see_the_same_images_share_them(synthetic_folder: Path, monkeypatch):
    from reproduce.sampling import load_data_cached

    cpu = torch.device("cpu")
    data = load_data_cached(QUICK, synthetic_folder, cpu)
    for alike in (replace(QUICK, seed=3), replace(QUICK, depth=14, precision="bf16", residual=False)):
        assert load_data_cached(alike, synthetic_folder, cpu) is data
    others: list[Config] = [replace(QUICK, split="val"), replace(QUICK, split="val", seed=1)]
    others.append(replace(QUICK, normalization="channel-mean"))
    assert len({id(load_data_cached(other, synthetic_folder, cpu)) for other in (QUICK, *others)}) == 4
