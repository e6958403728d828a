"""A run that is stopped or killed anywhere and started again ends equal to an unbroken run, to the bit."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal
from unittest.mock import Mock

import pytest
import torch

from reproduce import checkpoints, optimizer, record, step
from reproduce import config as configs
from reproduce.config import SCHEMA, Config, RunOptions
from reproduce.errors import UserError
from reproduce.sampling import Data
from reproduce.schema import Finished, Result
from tests.conftest import CPU, QUICK, assert_equal, interrupt, train_alone
from tests.outcome import read_outcome

RUN = replace(QUICK, schedule="constant", lr=0.3, seed=1)
"""The test error of this run goes up and down."""
OPTIONS = RunOptions(eval_every=3, checkpoint_every=4, keep_best=True)


def run(config: Config, data: Data, out: Path, chunk_iterations: int = 3, options: RunOptions = OPTIONS) -> Result | None:
    with record.open_run_folder(config, out) as folder:
        return train_alone(config, options, data, replace(CPU, chunk_iterations=chunk_iterations), folder)


class Killed(BaseException):
    pass


def stop_at(at: int, config: Config, data: Data, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stop a run after `at` iterations and return its folder."""
    with monkeypatch.context() as patch:
        interrupt(patch, at, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run(config, data, out, chunk_iterations=1) is None
    return out / config.folder


def assert_resumes_equal(config: Config, data: Data, out: Path, monkeypatch: pytest.MonkeyPatch, at: int = 13):
    assert isinstance(run(config, data, out / "unbroken"), Finished)
    folder = stop_at(at, config, data, out / "stopped", monkeypatch)
    assert isinstance(run(config, data, out / "stopped"), Finished)
    assert_equal(read_outcome(folder), read_outcome(out / "unbroken" / config.folder))


@pytest.fixture(scope="module")
def unbroken(synthetic: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of an unbroken run, whose best evaluation is neither the first nor the last."""
    out = tmp_path_factory.mktemp("unbroken")
    assert isinstance(run(RUN, synthetic, out, chunk_iterations=10), Finished)
    outcome = read_outcome(out / RUN.folder)
    assert 3 < outcome[checkpoints.BEST]["history"]["iteration"] < 24
    return outcome


# Stopped and killed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 4, 6, 13, 23])
def test_stopped(unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int):
    """After the first iteration, a checkpoint, an evaluation, in between, and before the last iteration."""
    folder = stop_at(at, RUN, synthetic, tmp_path, monkeypatch)
    assert checkpoints.read_checkpoint(folder / checkpoints.NEWEST, {"schema": SCHEMA})["history"]["iteration"] == at
    assert not (folder / record.RESULT).exists()
    assert isinstance(run(RUN, synthetic, tmp_path), Finished)
    assert_equal(read_outcome(folder), unbroken)


@pytest.mark.parametrize(
    ("what", "number"), [*(("chunk", at) for at in (2, 8, 13, 22, 24)), *(("file", number) for number in range(1, 25))]
)
def test_killed(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, number: int
):
    """During a chunk or after writing a file. What follows the last checkpoint is lost and computed again."""
    write, writings = record.write_atomically, count(1)

    def write_and_die(*arguments: Any, **more: Any):
        write(*arguments, **more)
        if next(writings) == number:
            raise Killed

    with monkeypatch.context() as patch:
        if what == "chunk":
            interrupt(patch, number, Mock(side_effect=Killed))
        else:
            patch.setattr(record, "write_atomically", write_and_die)
        with pytest.raises(Killed):
            run(RUN, synthetic, tmp_path)
    assert isinstance(run(RUN, synthetic, tmp_path), Finished)
    assert_equal(read_outcome(tmp_path / RUN.folder), unbroken)


@pytest.mark.parametrize(
    ("config", "at"),
    [
        (replace(QUICK, optimizer="adamw", decay="weights"), 13),
        (replace(QUICK, residual=False, precision="bf16", momentum=0.0), 13),
        (replace(QUICK, bn_statistics="population", split="val"), 13),
        (replace(QUICK, warmup="error", iterations=120, lr=0.2), 57),
    ],
    ids=["adamw", "bf16 without momentum", "population", "within a warm-up window"],
)
def test_all_state_is_restored(synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config, at: int):
    few = replace(synthetic, train=replace(synthetic.train, labels=synthetic.train.labels[:500]))
    few = replace(few, validation=synthetic.test if config.split == "val" else None)
    assert_resumes_equal(config, few, tmp_path, monkeypatch, at)


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
    assert_resumes_equal(config, synthetic, tmp_path, monkeypatch)
    state = torch.load(tmp_path / "stopped" / config.folder / checkpoints.NEWEST)["optimizer"][0]
    assert state.keys() == {"step", "square_avg", "momentum_buffer"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"residual": False}, {"optimizer": "adam"}, {"split": "val", "warmup": "error"}],
    ids=["residual", "plain", "adam", "val"],
)
def test_a_chain_of_kills(synthetic: Data, tmp_path: Path, changes: dict[str, Any]):
    """25 SIGKILLs at random moments, over as many runs as it takes, each run equal to the unbroken one."""
    config = replace(QUICK, iterations=80, **changes)
    data = replace(synthetic, validation=synthetic.test) if config.split == "val" else synthetic
    generator, number, kills = random.Random(0), 0, 0
    began = time.monotonic()
    assert isinstance(run(config, data, tmp_path / "unbroken"), Finished)
    length, expected = time.monotonic() - began, read_outcome(tmp_path / "unbroken" / config.folder)
    while kills < 25:
        process = multiprocessing.get_context("fork").Process(target=run, args=(config, data, tmp_path / str(number)))
        process.start()
        process.join(generator.uniform(0, length))
        process.kill()
        process.join()
        if process.exitcode == 0:  # it had finished
            assert_equal(read_outcome(tmp_path / str(number) / config.folder), expected)
            number += 1
        else:
            assert process.exitcode == -signal.SIGKILL
            kills += 1
    assert isinstance(run(config, data, tmp_path / str(number)), Finished)
    assert_equal(read_outcome(tmp_path / str(number) / config.folder), expected)


# The best checkpoint ----------------------------------------------------------------------------------------------------


def test_the_best_checkpoint_has_the_first_lowest_error(unbroken: dict[str, Any]):
    best, result = unbroken[checkpoints.BEST], unbroken[record.RESULT]
    errors = {row["test_error"]: row["iteration"] for row in reversed(unbroken["metrics"])}
    assert best["history"]["iteration"] == best["rows"][-1]["iteration"] == errors[min(errors)]
    assert result["best_test_error"] == min(errors) < result["test_error"]


def test_keeping_the_best_changes_nothing_else(unbroken: dict[str, Any], synthetic: Data, tmp_path: Path):
    assert isinstance(run(RUN, synthetic, tmp_path, options=replace(OPTIONS, keep_best=False)), Finished)
    assert_equal(read_outcome(tmp_path / RUN.folder) | {checkpoints.BEST: unbroken[checkpoints.BEST]}, unbroken)


# Damage between two sessions --------------------------------------------------------------------------------------------

MISFITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a tensor of another shape": lambda state: state["network"].update({"conv.weight": torch.ones(3)}),
    "a history without a field": lambda state: state["history"].pop("wrong"),
    "no momentum": lambda state: state["optimizer"][3].clear(),
    "a missing row": lambda state: state["rows"].pop(),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_the_previous_checkpoint_replaces_one_that_does_not_fit(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misfit: str
):
    folder = stop_at(13, RUN, synthetic, tmp_path, monkeypatch)
    state = torch.load(folder / checkpoints.NEWEST, weights_only=True)
    MISFITS[misfit](state)
    torch.save(state, folder / checkpoints.NEWEST)
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged \(.*resuming from checkpoint\.previous\.pt"):
        assert isinstance(run(RUN, synthetic, tmp_path), Finished)
    assert_equal(read_outcome(folder), unbroken)


def test_a_run_evaluated_again_at_its_end_has_a_consistent_record(synthetic: Data, tmp_path: Path):
    """Another device than the one that wrote the last checkpoint may find another test error."""
    assert isinstance(run(RUN, synthetic, tmp_path), Finished)
    folder = tmp_path / RUN.folder
    (folder / record.RESULT).unlink()
    state = torch.load(folder / checkpoints.NEWEST)
    state["rows"][-1]["test_error"] += 1
    torch.save(state, folder / checkpoints.NEWEST)
    assert isinstance(run(RUN, synthetic, tmp_path), Finished)
    assert isinstance(record.read_record(folder).result, Finished)


def test_a_run_whose_checkpoints_are_lost_is_not_started_over(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = stop_at(13, RUN, synthetic, tmp_path, monkeypatch)
    for name in (checkpoints.NEWEST, checkpoints.PREVIOUS):
        (folder / name).unlink()
    with pytest.raises(UserError, match="reaches iteration 12, but there is no checkpoint"):
        run(RUN, synthetic, tmp_path)
    (folder / record.METRICS).unlink()
    assert isinstance(run(RUN, synthetic, tmp_path), Finished)
    assert_equal(read_outcome(folder), unbroken)
