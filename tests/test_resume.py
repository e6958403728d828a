"""A run that is stopped or killed anywhere and started again ends as if nothing had happened, to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reproduce import record, train
from reproduce.config import SCHEMA, Config, Machine
from reproduce.data import Data
from reproduce.step import Training
from tests.conftest import CPU, QUICK, assert_equal, train_alone

RUN = Path(__file__).parents[1] / "reproduce" / "run.py"
MACHINE = Machine(eval_every=6, checkpoint_every=4)
TIMES = {"seconds", "training_seconds", "images_per_second"}


def without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: without_times(value) for name, value in content.items() if name not in TIMES}
    return [without_times(value) for value in content] if isinstance(content, list) else content


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that a run leaves, apart from times and sessions."""
    checkpoint = record.read_checkpoint(folder / record.NEWEST, {"schema": SCHEMA})
    assert isinstance(checkpoint, dict), checkpoint
    files = {name: json.loads((folder / name).read_text()) for name in ("config.json", "result.json", "responses.json")}
    files["predictions.txt"] = (folder / "predictions.txt").read_text()
    return without_times(files | {"metrics": record.read_metrics(folder), "checkpoint": checkpoint})


def run(config: Config, data: Data, out: Path, chunk_iterations: int = 10) -> train.Ending:
    with record.open_folder(config, out) as folder:
        return train_alone(config, MACHINE, data, replace(CPU, chunk_iterations=chunk_iterations), folder)


@pytest.fixture(scope="module")
def unbroken(synthetic: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("unbroken")
    assert run(QUICK, synthetic, out) == "finished"
    return outcome(out / QUICK.folder)


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, action: Any):
    """Does something while the chunk that holds iteration `at` is in training, once."""
    train_chunk, pending = Training.train_chunk, [at]

    def interrupted(self: Training, start: int, stop: int, rates: list[float]) -> Any:
        done = yield from train_chunk(self, start, stop, rates)
        if pending and start < at <= stop:
            pending.clear()
            action()
        return done

    monkeypatch.setattr(Training, "train_chunk", interrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [1, 3, 4, 6, 11, 12, 13, 17, 18, 19, 23])
def test_stopped_after_an_iteration(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, number: int
):
    """The first iteration, mid-chunk, a chunk's end, around both milestones (12 and 18), before the last iteration."""
    interrupt(monkeypatch, at, lambda: os.kill(os.getpid(), number))
    assert run(QUICK, synthetic, tmp_path, chunk_iterations=1) == "stopped"
    checkpoint = record.read_checkpoint(tmp_path / QUICK.folder / record.NEWEST, {"schema": SCHEMA})
    assert isinstance(checkpoint, dict) and checkpoint["history"]["iteration"] == at
    assert not (tmp_path / QUICK.folder / "result.json").exists()
    assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(outcome(tmp_path / QUICK.folder), unbroken)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [2, 5, 7, 13, 24])
def test_killed_within_a_chunk(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    """What was trained since the last checkpoint is lost, the rows written meanwhile are cut, and all of it comes again."""

    def die():
        raise Killed

    interrupt(monkeypatch, at, die)
    with pytest.raises(Killed):
        run(QUICK, synthetic, tmp_path, chunk_iterations=3)
    assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(outcome(tmp_path / QUICK.folder), unbroken)


@pytest.mark.parametrize("name", ["append_metrics", "save_checkpoint", "write_json"])
def test_killed_between_two_files(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    write, calls = getattr(record, name), []

    def dying(*arguments: Any):
        write(*arguments)
        calls.append(arguments)
        if len(calls) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(record, name, dying)
        with pytest.raises(Killed):
            run(QUICK, synthetic, tmp_path)
    assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(outcome(tmp_path / QUICK.folder), unbroken)


@pytest.mark.parametrize(
    "config",
    [
        replace(QUICK, optimizer="adam"),
        replace(QUICK, optimizer="adamw", decay="weights"),
        replace(QUICK, residual=False, precision="bf16", momentum=0.0),
        replace(QUICK, bn_statistics="population", split="val"),
    ],
    ids=["adam", "adamw", "bf16", "population"],
)
def test_every_kind_of_state_is_taken_up(synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config):
    few = replace(synthetic, train=replace(synthetic.train, labels=synthetic.train.labels[:500]))
    few = replace(few, held_out=synthetic.test if config.split == "val" else None)
    assert run(config, few, tmp_path / "unbroken") == "finished"
    interrupt(monkeypatch, 13, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run(config, few, tmp_path / "stopped", chunk_iterations=1) == "stopped"
    assert run(config, few, tmp_path / "stopped") == "finished"
    assert_equal(outcome(tmp_path / "stopped" / config.folder), outcome(tmp_path / "unbroken" / config.folder))


def test_stopped_within_a_warmup_window(synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(QUICK, warmup="error", iterations=120, lr=0.2)
    assert run(config, synthetic, tmp_path / "unbroken") == "finished"
    interrupt(monkeypatch, 57, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run(config, synthetic, tmp_path / "stopped", chunk_iterations=1) == "stopped"
    assert run(config, synthetic, tmp_path / "stopped") == "finished"
    assert_equal(outcome(tmp_path / "stopped" / config.folder), outcome(tmp_path / "unbroken" / config.folder))


def test_killed_for_real_at_random_moments(workplace: Path):
    """SIGKILL to the process, twice, with checkpoints every other iteration; then to the end."""
    flags = "--depth 8 --batch-size 16 --iterations 80 --eval-every 40 --checkpoint-every 2 --data synthetic".split()
    command = [sys.executable, str(RUN), *flags, "--device", "cpu", "--deterministic"]
    config = Config(depth=8, batch_size=16, iterations=80, dataset="synthetic")
    subprocess.run([*command, "--out", "unbroken"], check=True, capture_output=True)
    generator, folder = random.Random(0), workplace / "killed" / config.folder
    for _ in range(2):
        process = subprocess.Popen([*command, "--out", "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = newest(folder)
        while newest(folder) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed: train longer"
    last = subprocess.run([*command, "--out", "killed"], check=True, capture_output=True, text=True)
    assert "resuming" in last.stdout
    assert_equal(outcome(folder), outcome(workplace / "unbroken" / config.folder))
    assert len(json.loads((folder / "environment.json").read_text())) == 3


def newest(folder: Path) -> int:
    path = folder / record.NEWEST
    return path.stat().st_mtime_ns if path.exists() else 0
