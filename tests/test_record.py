"""The run folder under damage: checkpoints, metrics, locks, full disks."""

import errno
import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from reproduce import record
from reproduce.cli import format_error
from reproduce.config import Config, RunOptions
from reproduce.errors import UserError
from tests.conftest import assert_equal
from tests.fake_records import SESSION, make_curve

RECORDS = Path(__file__).parents[1] / "experiments" / "records"
IDENTITY = record.checkpoint_identity(Config(), "fingerprint")
SESSION_PARTS = {name: value for name, value in SESSION.items() if name not in ("command", "began", "git")}


def state(iteration: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(iteration)
    return IDENTITY | {"iteration": iteration, "network": {"weight": torch.randn(40, 40, generator=generator)}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with two checkpoints, of iterations 1 and 2."""
    record.save_checkpoint(tmp_path, state(1))
    record.save_checkpoint(tmp_path, state(2))
    return tmp_path


def load(folder: Path) -> dict[str, Any]:
    loaded = record.load_checkpoint(folder, IDENTITY, lambda state: None)
    assert loaded is not None
    return loaded


def test_the_newest_checkpoint_and_its_predecessor_are_kept(folder: Path):
    assert_equal(load(folder), state(2))
    record.save_checkpoint(folder, state(3))
    assert_equal(load(folder), state(3))
    (folder / record.NEWEST).unlink()
    assert_equal(load(folder), state(2))
    assert sorted(path.name for path in folder.iterdir()) == [record.PREVIOUS]


def test_no_checkpoint_is_none(tmp_path: Path):
    assert record.load_checkpoint(tmp_path, IDENTITY, lambda state: None) is None


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("pathlib.Path.read_bytes", OSError(116, "Stale file handle")),
        ("torch.load", RuntimeError("not enough memory: 9 bytes")),
    ],
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_a_damaged_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
):
    def fail(*_: Any, **__: Any):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(type(error), match=str(error.args[-1])):
            load(folder)
    assert_equal(load(folder), state(2))


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path):
    path.write_bytes(b"")


def flip(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def replace_by_tensor(path: Path):
    torch.save(torch.ones(3), path)


def replace_by_other_run(path: Path):
    torch.save(state(7) | record.checkpoint_identity(Config(depth=32), "fingerprint"), path)


def replace_by_program(path: Path):
    torch.save({"call": Path.cwd}, path)


DAMAGES = [truncate, empty, flip, replace_by_tensor, replace_by_other_run, replace_by_program]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_newest_checkpoint_falls_back_with_a_warning(folder: Path, damage: Any):
    damage(folder / record.NEWEST)
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is .*goes on from checkpoint\.previous\.pt"):
        assert_equal(load(folder), state(1))
    # The bad one is set aside, so that the next save cannot push it over the good one.
    assert (folder / record.DAMAGED).exists()
    record.save_checkpoint(folder, state(3))
    truncate(folder / record.NEWEST)
    with pytest.warns(UserWarning):
        assert_equal(load(folder), state(1))


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_a_usable_checkpoint_the_run_is_refused_and_nothing_touched(folder: Path, damage: Any):
    for name in (record.NEWEST, record.PREVIOUS):
        damage(folder / name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="to start the run over"):
        record.load_checkpoint(folder, IDENTITY, lambda state: None)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_flipped_bit_is_ever_taken_for_the_state(folder: Path):
    """Wherever the bit is, what is loaded is the newest state or its predecessor, exactly."""
    good = (folder / record.NEWEST).read_bytes()
    previous = (folder / record.PREVIOUS).read_bytes()
    generator, fallen_back = random.Random(0), 0
    for _ in range(200):
        content = bytearray(good)
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        (folder / record.NEWEST).write_bytes(content)
        (folder / record.PREVIOUS).write_bytes(previous)
        loaded = load(folder)
        fallen_back += loaded["iteration"] == 1
        assert_equal(loaded, state(loaded["iteration"]))
    assert fallen_back > 100


# Full disks and read-only folders -------------------------------------------------------------------------------------


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_both_checkpoints(folder: Path, monkeypatch: pytest.MonkeyPatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        record.save_checkpoint(folder, state(3))
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert_equal(load(folder), state(2))


def test_a_row_torn_by_a_full_disk_is_dropped(tmp_path: Path):
    first, second = make_curve(2, 1.0, 8.0, 2)
    record.append_metrics(tmp_path, first)
    record.append_metrics(tmp_path, second)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"iterat')
    assert record.read_metrics(tmp_path) == [first, second]
    record.restore_metrics(tmp_path, [first])
    record.append_metrics(tmp_path, second)
    assert (tmp_path / "metrics.jsonl").read_text() == f"{json.dumps(first)}\n{json.dumps(second)}\n"


# Predictions ----------------------------------------------------------------------------------------------------------


def test_predictions_are_digits_where_right_and_letters_where_wrong(tmp_path: Path):
    assert record.read_predictions(tmp_path) is None
    record.write_predictions(tmp_path, [0, 9, 3, 3] * 60, [True, True, False, True] * 60, 12)
    assert record.read_predictions(tmp_path) is None, "of twelve classes, though only some of ten were given"
    record.write_predictions(tmp_path, [0, 9, 3, 3] * 60, [True, True, False, True] * 60, 10)
    lines = (tmp_path / record.PREDICTIONS).read_text().splitlines()
    assert [len(line) for line in lines] == [100, 100, 40] and lines[2] == "09d3" * 10
    assert record.read_predictions(tmp_path) == "09d3" * 60
    (tmp_path / record.PREDICTIONS).write_text("09x3")
    with pytest.raises(UserError, match="predictions.txt is damaged"):
        record.read_predictions(tmp_path)


def test_confusions_are_counted_by_true_and_given_class(tmp_path: Path):
    assert record.read_confusion(tmp_path) is None
    record.write_confusion(tmp_path, [0, 1, 2, 2], [0, 1, 1, 2], 3)
    assert (tmp_path / record.CONFUSION).read_text() == "1,0,0\n0,1,1\n0,0,1\n"
    assert record.read_confusion(tmp_path) == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    for content in ("", "1,0\n", "1,0\n0\n", "1,0\n0,x\n", "1,0\n0,-1\n"):
        (tmp_path / record.CONFUSION).write_text(content)
        with pytest.raises(UserError, match="confusion.csv is damaged"):
            record.read_confusion(tmp_path)


# Identity and lock ----------------------------------------------------------------------------------------------------


def test_a_folder_of_another_config_is_refused(tmp_path: Path):
    with record.open_run_folder(Config(), tmp_path) as folder:
        path = folder / "config.json"
    path.write_text(json.dumps(record.describe_config(Config(momentum=0.8))))
    with (
        pytest.raises(UserError, match=r"describes another run \(key, momentum differing\)"),
        record.open_run_folder(Config(), tmp_path),
    ):
        pass


@pytest.mark.parametrize("name", ["config.json", "result.json", "environment.json"])
def test_a_damaged_description_is_refused(tmp_path: Path, name: str):
    with record.open_run_folder(Config(), tmp_path) as folder:
        (folder / name).write_text('{"depth": 2')
    with pytest.raises(UserError, match=f"{name} is damaged"), record.open_run_folder(Config(), tmp_path):
        record.read_result(folder)
        record.add_session(folder, Config(), RunOptions(), {})


def test_two_holders_of_one_folder(tmp_path: Path):
    with record.open_run_folder(Config(), tmp_path):
        with record.open_run_folder(Config(seed=1), tmp_path):
            pass
        with pytest.raises(UserError, match="another process"), record.open_run_folder(Config(), tmp_path):
            pass
    with record.open_run_folder(Config(), tmp_path):
        pass


def test_every_session_is_recorded(tmp_path: Path):
    record.add_session(tmp_path, Config(depth=44), RunOptions(time_limit=60.0), SESSION_PARTS | {"device": "cpu"})
    record.add_session(tmp_path, Config(depth=44), RunOptions(), SESSION_PARTS | {"device": "npu"})
    sessions = json.loads((tmp_path / "environment.json").read_text())
    assert [session["device"] for session in sessions] == ["cpu", "npu"]
    commands = [session["command"] for session in sessions]
    assert commands == [f"python reproduce/run.py --depth 44{rest}" for rest in (" --time-limit 60.0", "")]


def test_a_recorded_command_names_no_folder_of_the_machine(tmp_path: Path):
    record.add_session(tmp_path, Config(), RunOptions(data=str(tmp_path / "data"), out=tmp_path), SESSION_PARTS)
    elsewhere = RunOptions(data="synthetic", out=Path("elsewhere"))
    record.add_session(tmp_path, Config(dataset="synthetic"), elsewhere, SESSION_PARTS)
    first, second = (session["command"] for session in json.loads((tmp_path / "environment.json").read_text()))
    assert (first, second) == ("python reproduce/run.py", "python reproduce/run.py --data synthetic")
    for number, data in enumerate((str(tmp_path / "MNIST"), "mnist")):
        record.add_session(tmp_path, Config(dataset="mnist"), RunOptions(data=data, out=tmp_path), SESSION_PARTS)
        sessions = json.loads((tmp_path / "environment.json").read_text())
        assert sessions[2 + number]["command"] == "python reproduce/run.py --data mnist"


# Keys -----------------------------------------------------------------------------------------------------------------


def test_the_key_names_everything_but_the_seed():
    default = Config()
    assert default.key == Config(seed=5, lr=0.1, warmup="none").key
    others = [
        Config(depth=32), Config(residual=False), Config(shortcut="B"), Config(block="bn-after-add"),
        Config(optimizer="adam"), Config(lr=0.2), Config(momentum=0.8), Config(weight_decay=0), Config(batch_size=64),
        Config(iterations=100), Config(warmup="error"), Config(augment=False), Config(split="val"),
        Config(precision="bf16"), Config(normalization="channel-mean"), Config(initialization="fan-out"),
        Config(last_layer="uniform"), Config(decay="weights"), Config(bn_statistics="population"),
        Config(bn_batch="halves"), Config(last_batch="drop"), Config(dataset="synthetic"),
        Config(family="resnet18"), Config(schedule="cosine"), Config(trainable="head"), Config(initial="00"),
        Config(dataset="pictures", classes="a/b", pictures="1"), Config(dataset="pictures", classes="a/b", pictures="2"),
    ]  # fmt: skip
    keys = {config.key for config in (default, *others)}
    assert len(keys) == 1 + len(others) == len(asdict(default))


KEYS = {
    "dece074e": Config(),
    "29f33bb5": Config(depth=44),
    "843053a6": Config(depth=56, residual=False),
    "33634f61": Config(depth=110),
    "65b9c68a": Config(depth=32, block="bn-after-add", precision="bf16"),
    "7389fd68": Config(depth=56, optimizer="adamw", weight_decay=0.01),
    "4b079079": Config(split="val", bn_batch="halves", dataset="synthetic", iterations=100),
}


def test_keys_are_what_the_records_are_named_by():
    assert {config.key: config for config in KEYS.values()} == KEYS, "records of earlier runs would no longer be found"


@dataclass(frozen=True)
class Wider(Config):
    """As Config may be one day: a field more, whose default changes nothing."""

    label_smoothing: float = 0.0


def test_a_field_to_come_moves_no_key_and_keeps_every_record_readable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "Config", Wider)
    for key, config in KEYS.items():
        assert Wider(**asdict(config)).key == key
        assert Wider(**asdict(config), label_smoothing=0.1).key not in KEYS
    folders = record.list_run_folders(RECORDS)
    assert len(folders) >= 11
    for folder in folders:
        config = record.read_config(folder)
        assert isinstance(config, Wider) and config.folder == folder.relative_to(RECORDS)
    for path in (RECORDS.parents[1] / "weights").glob("*.safetensors"):
        assert isinstance(record.read_weights_header(path)[0], Wider)


def test_a_field_to_come_is_recorded_where_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "Config", Wider)
    for config, recorded in ((Wider(), False), (Wider(label_smoothing=0.1), True)):
        with record.open_run_folder(config, tmp_path) as folder:
            assert ("label_smoothing" in json.loads((folder / record.CONFIG).read_text())) == recorded
            assert record.read_config(folder) == config


# A full disk --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("result.json", lambda folder: record.write_result(folder, {"status": "finished"})),
        ("metrics.jsonl", lambda folder: record.append_metrics(folder, {"iteration": 2})),
        ("checkpoint.pt", lambda folder: record.save_checkpoint(folder, {"iteration": 2})),
    ],
)
def test_a_full_disk_is_named_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Path], None]
):
    record.append_metrics(tmp_path, {"iteration": 1})
    record.save_checkpoint(tmp_path, {"iteration": 1})
    record.write_result(tmp_path, {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def open_full(path: Path, mode: str) -> Any:
        open(path, mode).close()
        return open("/dev/full", mode)

    monkeypatch.setattr(record, "open", open_full, raising=False)
    with pytest.raises(OSError) as caught:
        write(tmp_path)
    assert format_error(caught.value) == f"cannot read or write {tmp_path / name}: No space left on device"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
