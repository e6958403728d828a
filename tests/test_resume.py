"""A run that is stopped or killed anywhere and started again ends equal to an unbroken run, to the bit."""

import math
import mmap
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from reproduce import config as configs
from reproduce import optimizer, record, step, train
from reproduce.config import SCHEMA, Config, RunOptions
from reproduce.errors import UserError
from reproduce.sampling import Data
from reproduce.schema import Finished
from reproduce.step import Training
from tests.conftest import CPU, QUICK, assert_equal, train_alone
from tests.outcome import drop_varying, read_outcome

OPTIONS = RunOptions(eval_every=6, checkpoint_every=4)


def run(config: Config, data: Data, out: Path, chunk_iterations: int = 10, options: RunOptions = OPTIONS) -> train.Ending:
    with record.open_run_folder(config, out) as folder:
        return train_alone(config, options, data, replace(CPU, chunk_iterations=chunk_iterations), folder)


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, action: Callable[[], object]):
    """Call `action` once, during the chunk that contains iteration `at`."""
    train_chunk, pending = Training.train_chunk, [at]

    def interrupted(self: Training, start: int, stop: int, rates: list[float]) -> Any:
        done = yield from train_chunk(self, start, stop, rates)
        if pending and start < at <= stop:
            pending.clear()
            action()
        return done

    monkeypatch.setattr(Training, "train_chunk", interrupted)


class Killed(BaseException):
    pass


def die():
    raise Killed


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def stop_at(at: int, config: Config, data: Data, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stop a run after `at` iterations and return its folder."""
    with monkeypatch.context() as patch:
        interrupt(patch, at, terminate)
        assert run(config, data, out, chunk_iterations=1) == "stopped"
    return out / config.folder


def assert_resumes_equal(config: Config, data: Data, out: Path, at: int, monkeypatch: pytest.MonkeyPatch):
    assert run(config, data, out / "unbroken") == "finished"
    folder = stop_at(at, config, data, out / "stopped", monkeypatch)
    assert run(config, data, out / "stopped") == "finished"
    assert_equal(read_outcome(folder), read_outcome(out / "unbroken" / config.folder))


@pytest.fixture(scope="module")
def unbroken(synthetic: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("unbroken")
    assert run(QUICK, synthetic, out) == "finished"
    return read_outcome(out / QUICK.folder)


# Stopped and killed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 4, 6, 12, 13, 18, 23])
def test_stopped(unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int):
    """After the first iteration, a checkpoint, an evaluation, around both milestones (12 and 18), before the last iteration."""
    folder = stop_at(at, QUICK, synthetic, tmp_path, monkeypatch)
    assert record.read_checkpoint(folder / record.NEWEST, {"schema": SCHEMA})["history"]["iteration"] == at
    assert not (folder / record.RESULT).exists()
    assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(read_outcome(folder), unbroken)


@pytest.mark.parametrize("at", [2, 7, 13, 24])
def test_killed_during_a_chunk(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    """Iterations and rows after the last checkpoint are lost and computed again."""
    interrupt(monkeypatch, at, die)
    with pytest.raises(Killed):
        run(QUICK, synthetic, tmp_path, chunk_iterations=3)
    assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(read_outcome(tmp_path / QUICK.folder), unbroken)


@pytest.mark.parametrize("call", range(1, 21))
def test_killed_after_writing_a_file(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
):
    write, calls = record.write_atomically, []

    def write_and_die(*arguments: Any, **more: Any):
        write(*arguments, **more)
        calls.append(arguments)
        if len(calls) == call:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(record, "write_atomically", write_and_die)
        try:
            run(QUICK, synthetic, tmp_path)
        except Killed:
            assert run(QUICK, synthetic, tmp_path) == "finished"
    assert len(calls) >= min(call, 15)
    assert_equal(read_outcome(tmp_path / QUICK.folder), unbroken)


@pytest.mark.parametrize(
    ("config", "at"),
    [
        (replace(QUICK, optimizer="adam"), 13),
        (replace(QUICK, optimizer="adamw", decay="weights"), 13),
        (replace(QUICK, residual=False, precision="bf16", momentum=0.0), 13),
        (replace(QUICK, bn_statistics="population", split="val"), 13),
        (replace(QUICK, warmup="error", iterations=120, lr=0.2), 57),
    ],
    ids=["adam", "adamw", "bf16 without momentum", "population", "within a warm-up window"],
)
def test_all_state_is_restored(synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config, at: int):
    few = replace(synthetic, train=replace(synthetic.train, labels=synthetic.train.labels[:500]))
    few = replace(few, validation=synthetic.test if config.split == "val" else None)
    assert_resumes_equal(config, few, tmp_path, at, monkeypatch)


def test_a_new_optimizer_resumes(synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Added as docs/extending.md says: its name in config.py and a branch in `make_optimizer`."""
    make = optimizer.make_optimizer

    def make_with_rmsprop(config: Config, network: torch.nn.Module, rate: torch.Tensor, device: Any) -> torch.optim.Optimizer:
        if config.optimizer == "rmsprop":  # pyright: ignore[reportUnnecessaryComparison]
            return torch.optim.RMSprop(network.parameters(), lr=rate, momentum=config.momentum, foreach=False)
        return make(config, network, rate, device)

    monkeypatch.setitem(Config.__annotations__, "optimizer", Literal["sgd", "adam", "adamw", "rmsprop"])
    monkeypatch.setattr(configs, "field_types", configs.field_types.__wrapped__)
    monkeypatch.setitem(configs.DEFAULT_LR, "rmsprop", 1e-3)
    for module in (optimizer, step):
        monkeypatch.setattr(module, "make_optimizer", make_with_rmsprop)
    config: Config = replace(QUICK, optimizer="rmsprop", lr=None)  # pyright: ignore[reportArgumentType]
    assert config.lr == 1e-3
    assert_resumes_equal(config, synthetic, tmp_path, 13, monkeypatch)
    state = torch.load(tmp_path / "stopped" / config.folder / record.NEWEST)["optimizer"][0]
    assert state.keys() == {"step", "square_avg", "momentum_buffer"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"residual": False}, {"optimizer": "adam"}, {"split": "val", "warmup": "error"}],
    ids=["residual", "plain", "adam", "val with best.pt"],
)
def test_a_chain_of_kills(synthetic: Data, tmp_path: Path, changes: dict[str, Any]):
    """25 SIGKILLs at random moments, over as many runs as it takes, each run equal to the unbroken one."""
    config = replace(QUICK, iterations=80, **changes)
    options = RunOptions(eval_every=20, checkpoint_every=10, keep_best=config.split == "val")
    data = replace(synthetic, validation=synthetic.test) if config.split == "val" else synthetic
    is_training, generator, kills = mmap.mmap(-1, 1), random.Random(0), 0

    def start(out: Path) -> int:
        is_training[0] = 0
        if process := os.fork():
            return process
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            is_training[0] = 1
            status = 0 if run(config, data, out, options=options) == "finished" else 1
        finally:
            os._exit(status)

    began = time.monotonic()
    assert os.waitpid(start(tmp_path / "unbroken"), 0)[1] == 0
    length, expected, number = time.monotonic() - began, read_outcome(tmp_path / "unbroken" / config.folder), 0
    while kills < 25:
        process = start(tmp_path / str(number))
        time.sleep(generator.uniform(0, length))
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(process, signal.SIGKILL)
            kills += 1
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert status in (0, -signal.SIGKILL)
        if status == 0:
            assert_equal(read_outcome(tmp_path / str(number) / config.folder), expected)
            number += 1
    assert os.waitpid(start(tmp_path / str(number)), 0)[1] == 0
    assert_equal(read_outcome(tmp_path / str(number) / config.folder), expected)


# The best checkpoint ----------------------------------------------------------------------------------------------------

UNSTEADY = replace(QUICK, schedule="constant", lr=0.3, seed=1)
"""The test error of this run goes up and down."""
KEEP_BEST = replace(OPTIONS, eval_every=3, keep_best=True)


def read_best(folder: Path) -> dict[str, Any]:
    return drop_varying(record.read_checkpoint(folder / record.BEST, {"schema": SCHEMA}))


@pytest.fixture(scope="module")
def with_best(synthetic: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of an unbroken run and its best checkpoint, which is neither the first nor the last."""
    out = tmp_path_factory.mktemp("best")
    assert run(UNSTEADY, synthetic, out, 3, KEEP_BEST) == "finished"
    best = read_best(out / UNSTEADY.folder)
    assert 3 < best["history"]["iteration"] < 24
    return read_outcome(out / UNSTEADY.folder), best


def test_the_best_checkpoint_has_the_first_lowest_error(with_best: tuple[dict[str, Any], dict[str, Any]]):
    outcome, best = with_best
    errors = {row["test_error"]: row["iteration"] for row in reversed(outcome["metrics"])}
    assert best["history"]["iteration"] == best["rows"][-1]["iteration"] == errors[min(errors)]
    assert outcome["result.json"]["best_test_error"] == min(errors) < outcome["result.json"]["test_error"]


def test_keeping_the_best_changes_nothing_else(unbroken: dict[str, Any], synthetic: Data, tmp_path: Path):
    assert run(QUICK, synthetic, tmp_path, 3, replace(OPTIONS, keep_best=True)) == "finished"
    assert_equal(read_outcome(tmp_path / QUICK.folder), unbroken)
    assert not list((tmp_path / QUICK.folder).glob(".*unfinished"))


@pytest.mark.parametrize("place", [("chunk", 8), ("chunk", 22), *(("file", call) for call in range(4, 24, 2))])
def test_the_best_checkpoint_survives_a_kill(
    with_best: tuple[dict[str, Any], dict[str, Any]],
    synthetic: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[str, int],
):
    write, remaining = record.write_atomically, [place[1]]

    def write_and_die(*arguments: Any, **more: Any):
        write(*arguments, **more)
        remaining[0] -= 1
        if remaining[0] == 0:
            raise Killed

    with monkeypatch.context() as patch:
        if place[0] == "chunk":
            interrupt(patch, place[1], die)
        else:
            patch.setattr(record, "write_atomically", write_and_die)
        with pytest.raises(Killed):
            run(UNSTEADY, synthetic, tmp_path, 3, KEEP_BEST)
    assert run(UNSTEADY, synthetic, tmp_path, 3, KEEP_BEST) == "finished"
    assert_equal([read_outcome(tmp_path / UNSTEADY.folder), read_best(tmp_path / UNSTEADY.folder)], list(with_best))


# Damage between two sessions --------------------------------------------------------------------------------------------

MISFITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a missing tensor": lambda state: state["network"].popitem(),
    "a tensor of another shape": lambda state: state["network"].update({"conv.weight": torch.ones(3)}),
    "a history without a field": lambda state: state["history"].pop("wrong"),
    "a history past the end": lambda state: state["history"].update(iteration=25),
    "a loss of NaN": lambda state: state["history"].update(loss=math.nan),
    "a missing parameter": lambda state: state["optimizer"].pop(),
    "no momentum": lambda state: state["optimizer"][3].clear(),
    "a missing row": lambda state: state["rows"].pop(),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_the_previous_checkpoint_replaces_one_that_does_not_fit(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misfit: str
):
    folder = stop_at(13, QUICK, synthetic, tmp_path, monkeypatch)
    state = torch.load(folder / record.NEWEST, weights_only=True)
    MISFITS[misfit](state)
    torch.save(state, folder / record.NEWEST)
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged \(.*resuming from checkpoint\.previous\.pt"):
        assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(read_outcome(folder), unbroken)


def test_a_checkpoint_is_not_damaged_if_memory_runs_out(synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = stop_at(13, QUICK, synthetic, tmp_path, monkeypatch)
    content = (folder / record.NEWEST).read_bytes()

    def fail(*_: Any, **more: Any):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        with pytest.raises(RuntimeError, match="allocate memory"):
            run(QUICK, synthetic, tmp_path)
    assert (folder / record.NEWEST).read_bytes() == content and not (folder / record.DAMAGED).exists()


def test_metrics_are_restored_from_the_checkpoint(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = stop_at(13, QUICK, synthetic, tmp_path, monkeypatch)
    (folder / record.METRICS).write_bytes(b"")
    assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(read_outcome(folder), unbroken)


def test_a_run_evaluated_again_at_its_end_has_a_consistent_record(synthetic: Data, tmp_path: Path):
    """Another device than the one that wrote the last checkpoint may find another test error."""
    assert run(QUICK, synthetic, tmp_path) == "finished"
    folder = tmp_path / QUICK.folder
    (folder / record.RESULT).unlink()
    state = torch.load(folder / record.NEWEST)
    state["rows"][-1]["test_error"] += 1
    torch.save(state, folder / record.NEWEST)
    assert run(QUICK, synthetic, tmp_path) == "finished"
    assert isinstance(record.read_record(folder).result, Finished)


def test_a_run_whose_checkpoints_are_lost_is_not_started_over(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = stop_at(13, QUICK, synthetic, tmp_path, monkeypatch)
    for name in (record.NEWEST, record.PREVIOUS):
        (folder / name).unlink()
    before = (folder / record.METRICS).read_bytes()
    with pytest.raises(UserError, match="reaches iteration 12, but there is no checkpoint"):
        run(QUICK, synthetic, tmp_path)
    assert (folder / record.METRICS).read_bytes() == before
    record.write_metrics(folder, [])
    assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(read_outcome(folder), unbroken)
