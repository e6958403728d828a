"""The warm-up and whole runs."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from reproduce import record, run, train_many
from reproduce.config import Config, RunOptions
from reproduce.errors import OutOfMemory
from reproduce.optimizer import WARMUP_WINDOW
from reproduce.sampling import Data, load_data
from reproduce.schema import Diverged, Finished
from reproduce.train import History
from tests.conftest import CPU, QUICK, QUICK_FLAGS, interrupt, train_alone


def test_error_triggered_warmup_ends_after_a_window_below_80_percent():
    config, history = Config(depth=110, batch_size=10), History()
    for wrong in (9, 8, 7):  # 90%, 80% and 70% error over windows of 100 iterations, in chunks of 50
        for _ in range(2):
            assert history.warmup_ended is None
            history.update(config, [1.0] * 50, [wrong] * 50)
    assert history.warmup_ended == 300
    history.update(config, [1.0] * 100, [9] * 100)
    assert history.warmup_ended == 300

    late = History()
    late.update(replace(config, iterations=100), [1.0] * 100, [7] * 100)
    assert late.warmup_ended == 50, "the first milestone"


def test_warmup_of_a_run(synthetic: Data, tmp_path):
    """At lr/10 the training error falls below 80% within one window, as the learning rates of the rows show."""
    config = replace(QUICK, warmup="error", iterations=300, lr=0.2)
    result = train_alone(config, RunOptions(eval_every=50), synthetic, CPU, tmp_path)
    rates = [row.learning_rate for row in record.read_metrics(tmp_path)]
    assert rates == pytest.approx([0.02, 0.02, 0.2, 0.02, 0.002, 0.002])
    assert isinstance(result, Finished) and result.warmup_ended == WARMUP_WINDOW


@pytest.mark.parametrize("family", ["lenet", "resnet18"])
def test_other_families_have_no_responses(synthetic: Data, tmp_path, family):
    config = Config(family=family, dataset="synthetic", batch_size=4, iterations=2, schedule="onecycle", lr=0.01)
    with record.open_run_folder(config, tmp_path) as folder:
        train_alone(config, RunOptions(), synthetic, CPU, folder)
    assert folder.parent.name.startswith(f"{family}-")
    found = record.read_record(folder)
    assert found.responses is None and isinstance(found.result, Finished)
    assert found.rows[-1].learning_rate == pytest.approx(0.01 / 25e4)
    confusion = torch.tensor(found.confusion)
    assert torch.equal(confusion.sum(1), synthetic.test.labels.bincount(minlength=10))
    assert 100 - int(confusion.trace()) == found.rows[-1].test_error == found.result.test_error


@pytest.mark.parametrize(
    "config",
    [replace(QUICK, lr=1e30), Config(family="lenet", dataset="synthetic", batch_size=4, iterations=1, lr=1e38)],
    ids=["a loss", "the last update"],
)
def test_an_overflow_is_recorded_as_diverged(synthetic: Data, tmp_path, config: Config):
    result = train_alone(config, RunOptions(), synthetic, CPU, tmp_path)
    assert isinstance(result, Diverged) and 0 < result.iteration <= config.iterations


def test_the_synthetic_dataset_is_learned(synthetic_folder, tmp_path):
    config = Config(depth=8, iterations=100, batch_size=32, dataset="synthetic")
    data = load_data(config, synthetic_folder, CPU.torch_device)
    result = train_alone(config, RunOptions(), data, CPU, tmp_path)
    assert isinstance(result, Finished) and result.test_error < 20


def test_training_needs_nothing_that_windows_lacks(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    for module, names in ((os, ("O_DIRECTORY", "fork", "killpg", "sched_getaffinity")), (signal, ("SIGHUP", "SIGKILL"))):
        for name in names:
            monkeypatch.delattr(module, name, raising=False)
    assert run.main(QUICK_FLAGS.split()) == 0
    assert (workplace / "runs" / QUICK.folder / record.RESULT).exists()


def test_running_out_of_memory_keeps_the_checkpoint_and_names_the_flag(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    flags = f"{QUICK_FLAGS} --checkpoint-every 10 --eval-every 10"
    with monkeypatch.context() as patch:
        interrupt(patch, 15, Mock(side_effect=MemoryError("Unable to allocate 9 GiB for an array")))
        assert train_many.train_lines([flags]) == OutOfMemory.status
    assert "--batch-size" in capsys.readouterr().out
    assert len(record.read_metrics(workplace / "runs" / QUICK.folder)) == 1
    assert train_many.train_lines([flags]) == 0
    assert "resuming at iteration 10" in capsys.readouterr().out
