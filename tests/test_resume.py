"""A run that is stopped or killed anywhere and started again ends as if nothing had happened, to the bit."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reproduce import record, train
from reproduce.config import SCHEMA, Config, RunOptions
from reproduce.errors import UserError
from reproduce.sampling import Data
from reproduce.step import Training
from tests.conftest import CPU, QUICK, assert_equal, train_alone
from tests.fake_records import SESSION
from tests.outcome import read_outcome, without_times

MACHINE = RunOptions(eval_every=6, checkpoint_every=4)


def run(config: Config, data: Data, out: Path, chunk_iterations: int = 10) -> train.Ending:
    with record.open_run_folder(config, out) as folder:
        return train_alone(config, MACHINE, data, replace(CPU, chunk_iterations=chunk_iterations), folder)


@pytest.fixture(scope="module")
def unbroken(synthetic: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("unbroken")
    assert run(QUICK, synthetic, out) == "finished"
    return read_outcome(out / QUICK.folder)


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


@pytest.mark.parametrize(
    ("at", "number"), [(3, signal.SIGINT), *((at, signal.SIGTERM) for at in (1, 3, 4, 6, 11, 12, 13, 17, 18, 19, 23))]
)
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
    assert_equal(read_outcome(tmp_path / QUICK.folder), unbroken)


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
    assert_equal(read_outcome(tmp_path / QUICK.folder), unbroken)


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
    assert_equal(read_outcome(tmp_path / QUICK.folder), unbroken)


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
    assert_equal(read_outcome(tmp_path / "stopped" / config.folder), read_outcome(tmp_path / "unbroken" / config.folder))


def test_stopped_within_a_warmup_window(synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(QUICK, warmup="error", iterations=120, lr=0.2)
    assert run(config, synthetic, tmp_path / "unbroken") == "finished"
    interrupt(monkeypatch, 57, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run(config, synthetic, tmp_path / "stopped", chunk_iterations=1) == "stopped"
    assert run(config, synthetic, tmp_path / "stopped") == "finished"
    assert_equal(read_outcome(tmp_path / "stopped" / config.folder), read_outcome(tmp_path / "unbroken" / config.folder))


# The best checkpoint beside the last ------------------------------------------------------------------------------------


RESTLESS = replace(QUICK, schedule="constant", lr=0.3, seed=1)
"""Its error goes up and down."""
EVERY_ROW = replace(MACHINE, eval_every=3, keep_best=True)


def train_keeping_best(config: Config, data: Data, out: Path, options: RunOptions = EVERY_ROW) -> train.Ending:
    with record.open_run_folder(config, out) as folder:
        return train_alone(config, options, data, replace(CPU, chunk_iterations=3), folder)


def best_of(folder: Path) -> dict[str, Any]:
    best = record.read_checkpoint(folder / record.BEST, {"schema": SCHEMA})
    assert isinstance(best, dict), best
    return without_times(best)


@pytest.fixture(scope="module")
def with_best(synthetic: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an unbroken run leaves, and its best checkpoint, which is neither the first nor the last."""
    out = tmp_path_factory.mktemp("best")
    assert train_keeping_best(RESTLESS, synthetic, out) == "finished"
    best = best_of(out / RESTLESS.folder)
    assert 3 < best["history"]["iteration"] < 24
    return read_outcome(out / RESTLESS.folder), best


def test_the_best_checkpoint_is_that_of_the_first_lowest_error(with_best: tuple[dict[str, Any], dict[str, Any]]):
    ended, best = with_best
    errors = {row["test_error"]: row["iteration"] for row in reversed(ended["metrics"])}
    assert best["history"]["iteration"] == best["rows"][-1]["iteration"] == errors[min(errors)]
    assert ended["result.json"]["best_test_error"] == min(errors) < ended["result.json"]["test_error"]


def test_keeping_the_best_changes_nothing_else(unbroken: dict[str, Any], synthetic: Data, tmp_path: Path):
    options = replace(MACHINE, keep_best=True)
    assert train_keeping_best(QUICK, synthetic, tmp_path, options) == "finished"
    assert_equal(read_outcome(tmp_path / QUICK.folder), unbroken)
    folder = tmp_path / QUICK.folder
    record.read_record(folder)
    assert not list(folder.glob(".*unfinished"))


@pytest.mark.parametrize("at", [4, 8, 13, 17, 22, 24])
def test_the_best_checkpoint_survives_a_kill(
    with_best: tuple[dict[str, Any], dict[str, Any]], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    def die():
        raise Killed

    interrupt(monkeypatch, at, die)
    with pytest.raises(Killed):
        train_keeping_best(RESTLESS, synthetic, tmp_path)
    assert train_keeping_best(RESTLESS, synthetic, tmp_path) == "finished"
    assert_equal([read_outcome(tmp_path / RESTLESS.folder), best_of(tmp_path / RESTLESS.folder)], list(with_best))


@pytest.mark.parametrize("name", ["append_metrics", "save_checkpoint", "save_best"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_the_best_checkpoint_survives_a_kill_between_two_files(
    with_best: tuple[dict[str, Any], dict[str, Any]],
    synthetic: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    call: int,
):
    write, calls = getattr(record, name), []

    def dying(*arguments: Any):
        if name != "save_best":
            write(*arguments)
        calls.append(arguments)
        if len(calls) == call:
            raise Killed
        if name == "save_best":
            write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(record, name, dying)
        with pytest.raises(Killed):
            train_keeping_best(RESTLESS, synthetic, tmp_path)
    assert train_keeping_best(RESTLESS, synthetic, tmp_path) == "finished"
    assert_equal([read_outcome(tmp_path / RESTLESS.folder), best_of(tmp_path / RESTLESS.folder)], list(with_best))


def test_who_asks_for_the_best_too_late_is_told(
    synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = stop_at(13, synthetic, tmp_path, monkeypatch)
    monkeypatch.setattr(train, "ends_best", lambda config, rows: False)
    assert train_keeping_best(QUICK, synthetic, tmp_path) == "finished"
    assert (
        f"best.pt is kept from the next evaluation on that is better than those of {folder} so far" in capsys.readouterr().out
    )
    assert not (folder / record.BEST).exists()


# Damage between two sessions --------------------------------------------------------------------------------------------


def stop_at(at: int, synthetic: Data, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was stopped after so many iterations, with a checkpoint of every fourth."""
    with monkeypatch.context() as patch:
        interrupt(patch, at, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run(QUICK, synthetic, out, chunk_iterations=1) == "stopped"
    return out / QUICK.folder


def edit_checkpoint(folder: Path, edit: Any):
    state = torch.load(folder / record.NEWEST, weights_only=True)
    edit(state)
    torch.save(state, folder / record.NEWEST)


def lose_momentum(state: dict[str, Any]):
    state["optimizer"][3] = {}


MISFITS = {
    "no network": lambda state: state.pop("network"),
    "a tensor too few": lambda state: state["network"].popitem(),
    "a tensor of another shape": lambda state: state["network"].update({"conv.weight": torch.ones(3)}),
    "a tensor that is none": lambda state: state["network"].update({"conv.weight": "none"}),
    "no history": lambda state: state.pop("history"),
    "a history of other fields": lambda state: state["history"].update(epoch=3),
    "a history that lacks a field": lambda state: state["history"].pop("wrong"),
    "a history of text": lambda state: state["history"].update(iteration="13"),
    "a history past the end": lambda state: state["history"].update(iteration=25),
    "a loss that is not finite": lambda state: state["history"].update(loss=math.nan),
    "no optimizer": lambda state: state.pop("optimizer"),
    "a parameter too few": lambda state: state["optimizer"].pop(),
    "no momentum": lose_momentum,
    "a momentum of another shape": lambda state: state["optimizer"][0].update(momentum_buffer=torch.ones(3)),
    "a row too few": lambda state: state["rows"].pop(),
    "a row of text": lambda state: state["rows"][0].update(test_error="low"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_checkpoint_that_does_not_fit_falls_back(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misfit: str
):
    folder = stop_at(13, synthetic, tmp_path, monkeypatch)
    edit_checkpoint(folder, MISFITS[misfit])
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged \(.*goes on from checkpoint\.previous\.pt"):
        assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(read_outcome(folder), unbroken)


def keep_rows(count: int, tail: str = "") -> Any:
    def damage(folder: Path):
        lines = (folder / record.METRICS).read_text().splitlines(keepends=True)
        (folder / record.METRICS).write_text("".join(lines[:count]) + tail)

    return damage


METRICS_DAMAGES = {
    "lost": lambda folder: (folder / record.METRICS).unlink(),
    "empty": keep_rows(0),
    "torn": keep_rows(1, '{"iteration": 12, "test_'),
    "without its last row": keep_rows(1),
    "not to be read": keep_rows(1, "{\n"),
}


@pytest.mark.parametrize("result", ["lost", "not begun"])
@pytest.mark.parametrize("damage", METRICS_DAMAGES)
def test_rows_that_are_lost_come_back_from_the_checkpoint(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, result: str
):
    """Both when the run is under way and when all that it lacks is its result."""
    if result == "lost":
        assert run(QUICK, synthetic, tmp_path) == "finished"
        folder = tmp_path / QUICK.folder
        (folder / record.RESULT).unlink()
    else:
        folder = stop_at(13, synthetic, tmp_path, monkeypatch)
    METRICS_DAMAGES[damage](folder)
    with pytest.warns(UserWarning, match=r"metrics\.jsonl (lacked rows of|was damaged).* restored it"):
        assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(read_outcome(folder), unbroken)


def make_old(folder: Path):
    """The checkpoint as versions without rows have left it."""
    edit_checkpoint(folder, lambda state: state.pop("rows"))
    (folder / record.PREVIOUS).unlink()
    write_session(folder)


def write_session(folder: Path):
    command = f"python reproduce/run.py --eval-every {MACHINE.eval_every}"
    record.write_json(folder / record.ENVIRONMENT, [SESSION | {"command": command}])


def test_an_old_checkpoint_goes_on_with_the_rows_of_its_file(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = stop_at(13, synthetic, tmp_path, monkeypatch)
    make_old(folder)
    assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(read_outcome(folder), unbroken)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("lost", "lacks the row of iteration 6"),
        ("empty", "lacks the row of iteration 6"),
        ("torn", "lacks the row of iteration 12"),
        ("without its last row", "lacks the row of iteration 12"),
        ("not to be read", "is damaged .line 2"),
    ],
)
def test_an_old_checkpoint_without_its_rows_is_refused(
    synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, sentence: str
):
    folder = stop_at(13, synthetic, tmp_path, monkeypatch)
    make_old(folder)
    METRICS_DAMAGES[damage](folder)
    with pytest.raises(UserError, match=rf"metrics\.jsonl {sentence}"):
        run(QUICK, synthetic, tmp_path)


def test_rows_without_any_checkpoint_are_not_thrown_away(
    unbroken: dict[str, Any], synthetic: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = stop_at(13, synthetic, tmp_path, monkeypatch)
    for name in (record.NEWEST, record.PREVIOUS):
        (folder / name).unlink()
    before = (folder / record.METRICS).read_bytes()
    with pytest.raises(UserError, match=r"has rows until iteration 12, and there is no checkpoint: put checkpoint\.pt back"):
        run(QUICK, synthetic, tmp_path)
    assert (folder / record.METRICS).read_bytes() == before
    # A row that was there before the first checkpoint could be is of a run that was killed then: it starts over.
    record.write_metrics(folder, [record.read_metrics(folder)[0] | {"iteration": MACHINE.checkpoint_every}])
    assert run(QUICK, synthetic, tmp_path) == "finished"
    assert_equal(read_outcome(folder), unbroken)
