"""The run folder: checkpoints under damage, predictions, identity, lock, sessions, damaged and old records."""

import errno
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from reproduce import checkpoints, model_card, record
from reproduce.config import Config, RunOptions
from reproduce.errors import RunLocked, UserError
from tests.conftest import assert_equal, build
from tests.fake_records import SESSION, write_run
from tests.test_config import ExtendedConfig

RECORDS = Path(__file__).parents[1] / "experiments" / "records"
IDENTITY = checkpoints.checkpoint_identity(Config(), "fingerprint")
DETAILS = {name: value for name, value in SESSION.items() if name not in ("command", "began", "git", "eval_every")}


# Checkpoints ------------------------------------------------------------------------------------------------------------


def make_state(iteration: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(iteration)
    return IDENTITY | {"iteration": iteration, "network": {"weight": torch.randn(40, 40, generator=generator)}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with checkpoints of iterations 1 and 2."""
    checkpoints.save_checkpoint(tmp_path, make_state(1))
    checkpoints.save_checkpoint(tmp_path, make_state(2))
    return tmp_path


def load(folder: Path) -> dict[str, Any] | None:
    return checkpoints.load_checkpoint(folder, IDENTITY, lambda state: state)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_unreadable_checkpoint_is_not_a_damaged_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    for place, name, error in (
        (Path, "read_bytes", OSError(errno.ESTALE, "Stale file handle")),
        (torch, "load", RuntimeError("DefaultCPUAllocator: can't allocate memory")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, Mock(side_effect=error))
            with pytest.raises(type(error)):
                load(folder)
        assert_equal(load(folder), make_state(2))


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_by_another_run(path: Path):
    torch.save(make_state(7) | checkpoints.checkpoint_identity(Config(depth=32), "fingerprint"), path)


def replace_by_code(path: Path):
    torch.save({"call": Path.cwd}, path)


@pytest.mark.parametrize("damage", [truncate, replace_by_another_run, replace_by_code])
def test_the_previous_checkpoint_replaces_a_damaged_one(folder: Path, damage: Callable[[Path], object]):
    damage(folder / checkpoints.NEWEST)
    with pytest.warns(UserWarning, match=r"checkpoint\.pt .*resuming from checkpoint\.previous\.pt"):
        assert_equal(load(folder), make_state(1))
    # The damaged one is out of the way: the next save must not make it the previous one.
    checkpoints.save_checkpoint(folder, make_state(3))
    truncate(folder / checkpoints.NEWEST)
    with pytest.warns(UserWarning):
        assert_equal(load(folder), make_state(1))
    checkpoints.save_checkpoint(folder, make_state(4))
    for name in (checkpoints.NEWEST, checkpoints.PREVIOUS):
        damage(folder / name)
    before = read_files(folder)
    with pytest.raises(UserError, match="to start over"):
        load(folder)
    assert read_files(folder) == before


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_checkpoint_with_a_flipped_bit_is_never_loaded(folder: Path):
    """Except where the bit does not matter: the state is that of the newest checkpoint or of the previous one."""
    files, generator, damaged = read_files(folder), random.Random(0), 0
    for _ in range(100):
        content = bytearray(files[checkpoints.NEWEST])
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        (folder / checkpoints.NEWEST).write_bytes(content)
        (folder / checkpoints.PREVIOUS).write_bytes(files[checkpoints.PREVIOUS])
        state = load(folder)
        assert state is not None
        damaged += state["iteration"] == 1
        assert_equal(state, make_state(state["iteration"]))
    assert damaged > 50


# Predictions and parameters ---------------------------------------------------------------------------------------------


def test_predictions_are_digits_if_right_and_letters_if_wrong(tmp_path: Path):
    record.write_predictions(tmp_path, [0, 9, 3, 3] * 60, [0, 9, 4, 3] * 60, 12)
    assert record.read_predictions(tmp_path) is None, "twelve classes"
    record.write_predictions(tmp_path, [0, 9, 3, 3] * 60, [0, 9, 4, 3] * 60, 10)
    lines = (tmp_path / record.PREDICTIONS).read_text().splitlines()
    assert [len(line) for line in lines] == [100, 100, 40]
    assert record.read_predictions(tmp_path) == "09d3" * 60
    confusion = record.decode_confusion((tmp_path / record.CONFUSION).read_bytes())
    assert {(i, j): n for i, row in enumerate(confusion) for j, n in enumerate(row) if n} == {
        (0, 0): 60, (9, 9): 60, (4, 3): 60, (3, 3): 60,
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{"residual": False}, {"shortcut": "B"}, {"shortcut": "C"}, {"dataset": "mnist"}], ids=str)
def test_the_number_of_parameters_is_that_of_the_network(changes: dict[str, Any]):
    config = replace(Config(depth=14), **changes)
    assert record.expected_parameters(config) == sum(parameter.numel() for parameter in build(config).parameters())


# Identity, lock and sessions --------------------------------------------------------------------------------------------


def test_a_folder_of_another_run_is_refused(tmp_path: Path):
    with record.open_run_folder(Config(), tmp_path) as folder:
        record.write_json(folder / record.CONFIG, record.describe_config(Config(momentum=0.8)))
    with pytest.raises(UserError, match="describes another run"), record.open_run_folder(Config(), tmp_path):
        pass


def test_a_run_folder_is_locked_until_it_is_closed(tmp_path: Path):
    with record.open_run_folder(Config(), tmp_path):
        with record.open_run_folder(Config(seed=1), tmp_path):
            pass
        with pytest.raises(RunLocked), record.open_run_folder(Config(), tmp_path):
            pass
    with record.open_run_folder(Config(), tmp_path):
        pass


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_lock_left_by_another_host_is_reported_with_its_process_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a file system without flock."""
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(errno.ENOSYS, "Function not implemented")))
    folder = tmp_path / Config().folder
    folder.mkdir(parents=True)
    (folder / ".lock").write_text("1234\nelsewhere\n")
    (folder / ".holder").write_text("process 1234 on elsewhere since 2026-11-28 12:00")
    message = f"process 1234 on elsewhere since 2026-11-28 12:00.*remove {folder / '.lock'}"
    with pytest.raises(RunLocked, match=message), record.open_run_folder(Config(), tmp_path):
        pass


def test_a_file_system_without_locks_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    with pytest.raises(UserError, match=f"{tmp_path}.*No locks available.*--out"), record.open_run_folder(Config(), tmp_path):
        pass


def test_each_session_is_recorded_without_the_users_folders(tmp_path: Path):
    private = tmp_path / "private"
    record.add_session(tmp_path, Config(depth=44), RunOptions(time_limit=60.0, data=str(private / "cifar")), DETAILS)
    record.add_session(tmp_path, Config(depth=44), RunOptions(eval_every=7, out=private), DETAILS | {"device": "npu"})
    first, second = json.loads((tmp_path / "environment.json").read_text())
    assert first["command"] == "python reproduce/run.py --depth 44 --time-limit 60.0" and first["eval_every"] == 1000
    assert second["command"] == "python reproduce/run.py --depth 44 --eval-every 7" and second["eval_every"] == 7
    assert (first["device"], second["device"]) == ("cuda", "npu")
    for data in (str(private / "MNIST"), "mnist"):
        record.add_session(tmp_path, Config(dataset="mnist"), RunOptions(data=data), DETAILS)
        assert record.read_sessions(tmp_path)[-1].command == "python reproduce/run.py --data mnist"


# Damaged and old records ------------------------------------------------------------------------------------------------

ALL, END = r"(?s).+", r"(?s).{20}\Z"
DAMAGES: list[tuple[str, str, str | None, str]] = [
    ("config.json", END, "", "is damaged"),
    ("config.json", ALL, None, "is missing"),
    ("config.json", '"momentum": 0.9', '"momentum": 0.8', "is damaged .*key"),
    ("environment.json", END, "", "is damaged"),
    ("environment.json", '"sha256": "', '"sha256": "0', "contradicts .*CIFAR-10"),
    ("metrics.jsonl", END, "", "is damaged"),
    ("metrics.jsonl", '{"iteration": 32000.*\n', "", "lacks .* 32000"),
    ("metrics.jsonl", '{"iteration": 64000.*\n', "", "lacks .* 64000"),
    ("metrics.jsonl", '({"iteration": 32000.*\n)', r"\1\1", "is damaged"),
    ("metrics.jsonl", '"train_error": [^,]*', '"train_error": NaN', "is damaged"),
    ("metrics.jsonl", '"seconds"', '"held_out_error": 8.0, "seconds"', "is damaged .*held_out_error"),
    ("result.json", END, "", "is damaged"),
    ("result.json", '"test_error": 8.0', '"test_error": 7.0', "contradicts .*test_error"),
    ("result.json", '"parameters": [^,]*', '"parameters": 464154', "contradicts .*parameters"),
    ("responses.json", ALL, None, "is missing"),
    ("responses.json", r"1.0,", "", "does not match the layers"),
    ("predictions.txt", END, "", "contradicts"),
    ("predictions.txt", "0", "a", "contradicts .*801 errors"),
    ("confusion.csv", ALL, "1,0\n0\n", "is damaged"),
    ("confusion.csv", "920", "919", "contradicts"),
]
"""File, a part of its content, what replaces that part (None: the file is missing), and the problem."""


def damage(folder: Path, name: str, part: str, replacement: str | None):
    text = (folder / name).read_text()
    (folder / name).unlink()
    if replacement is not None:
        changed, count = re.subn(part, replacement, text, count=1)
        assert count == 1
        (folder / name).write_text(changed)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a finished run."""
    folder = write_run(tmp_path, Config(depth=20))
    (folder / "environment.json").write_text(json.dumps([SESSION | {"eval_every": 16_000}]))
    return folder


@pytest.mark.parametrize(("name", "part", "replacement", "problem"), DAMAGES)
def test_damage_is_found(finished: Path, name: str, part: str, replacement: str | None, problem: str):
    damage(finished, name, part, replacement)
    before = {path: path.read_bytes() for path in finished.iterdir()}
    with pytest.raises(UserError, match=f"^[^\n]*{name} {problem}.*remove {finished} to start over$"):
        record.read_record(finished)
    assert {path: path.read_bytes() for path in finished.iterdir()} == before


def test_a_renamed_run_folder_is_named_with_its_run(finished: Path):
    renamed = finished.rename(finished.with_name("best"))
    with pytest.raises(UserError, match=rf"best/config.json describes the run {Config().folder}: rename the folder to that"):
        record.read_record(renamed)


def test_older_and_newer_records_pass(finished: Path):
    damage(finished, "result.json", "{", '{"later_field": 1, ')
    for name in ("environment.json", "predictions.txt", "confusion.csv"):
        (finished / name).unlink()
    assert record.read_record(finished).result is not None


def test_the_committed_records_pass():
    folders = [path.parent for path in RECORDS.rglob("config.json")]
    assert len(folders) >= 123
    for folder in folders:
        assert record.read_record(folder).result is not None


def test_a_later_field_keeps_records_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "Config", ExtendedConfig)
    for folder in record.list_run_folders(RECORDS):
        config = record.read_config(folder)
        assert isinstance(config, ExtendedConfig) and config.folder == folder.relative_to(RECORDS)
    for path in (RECORDS.parents[1] / "weights").glob("*.safetensors"):
        assert isinstance(model_card.read_weights_header(path)[0], ExtendedConfig)
    for config in (ExtendedConfig(), replace(ExtendedConfig(), label_smoothing=0.1)):
        with record.open_run_folder(config, tmp_path) as folder:
            assert ("label_smoothing" in json.loads((folder / record.CONFIG).read_text())) == (config.label_smoothing > 0)
            assert record.read_config(folder) == config
