"""Reading run folders as DataFrames; labels and commands of configurations."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.markdown import format_command, format_label
from analysis.records import (
    RUN_COLUMNS,
    finished_runs,
    group_configurations,
    load_records,
    select_runs,
    stuck_runs,
    to_configs,
)
from reproduce.config import Config
from reproduce.dataset import write_synthetic
from reproduce.run import main, parse
from tests.fake_records import SESSION, write_run, write_seeds

OTHERS: dict[str, Any] = {
    "depth": 32, "family": "resnet18", "schedule": "cosine", "residual": False, "shortcut": "B", "block": "bn-after-add",
    "optimizer": "adam", "lr": 0.05, "momentum": 0.8, "weight_decay": 5e-4, "batch_size": 64, "iterations": 1000,
    "warmup": "iterations", "augment": False, "split": "val", "normalization": "channel-mean", "initialization": "fan-out",
    "last_layer": "uniform", "decay": "weights", "bn_statistics": "population", "bn_batch": "halves", "last_batch": "drop",
    "dataset": "synthetic",
}  # fmt: skip
"""A value other than the default for each field that a flag sets, but the seed and the precision."""


def test_a_row_per_run_and_a_row_per_evaluation(tmp_path):
    write_run(tmp_path, Config(depth=20, seed=3), test_error=8.25, train_error=2.5, responses=[0.5] * 19)
    write_run(tmp_path, Config(depth=32, residual=False), status="diverged")
    write_run(tmp_path, Config(depth=44), status="unfinished")
    runs, curves = load_records(tmp_path)
    assert list(runs.columns) == RUN_COLUMNS
    finished, diverged, unfinished = (runs[runs["depth"] == depth].iloc[0] for depth in (20, 32, 44))
    assert (finished["status"], finished["test_error"], finished["train_error"], finished["seed"]) == ("finished", 8.25, 2.5, 3)
    assert finished["responses"] == [0.5] * 19 and finished["sessions"] == [SESSION]
    assert finished["iteration"] == finished["iterations"] == 64_000 and finished["seconds"] == 3600
    assert (diverged["status"], diverged["iteration"]) == ("diverged", 32_005)
    assert (unfinished["status"], unfinished["iteration"], unfinished["seconds"]) == ("unfinished", 32_000, 120)
    assert runs["test_error"].count() == 1
    curve = curves[curves["folder"] == finished["folder"]]
    assert curve["iteration"].tolist() == [16_000, 32_000, 48_000, 64_000]
    assert curve["test_error"].tolist() == pytest.approx([69.5625, 49.125, 28.6875, 8.25])
    assert (curves["folder"] == unfinished["folder"]).sum() == 2


def test_runs_are_selected_by_configuration(tmp_path):
    """Seeds and precisions share a configuration."""
    one = [Config(), Config(seed=1), Config(precision="bf16")]
    other = Config(depth=32, optimizer="adam", augment=False)
    for config in (*one, other, replace(other, lr=0.01)):
        write_run(tmp_path, config)
    runs, _ = load_records(tmp_path)
    assert set(to_configs(select_runs(runs, Config(seed=9, precision="tf32")))) == set(one)
    assert to_configs(select_runs(runs, other)) == [other] and len(select_runs(runs, other, free=["lr"])) == 2
    assert set(group_configurations(runs)) == {Config(), other, replace(other, lr=0.01)}


def test_a_run_that_never_learned_is_stuck_and_finished(tmp_path):
    write_seeds(tmp_path, Config(depth=110, warmup="none"), [90.0], train_error=89.9)
    write_seeds(tmp_path, Config(depth=110), [6.6], train_error=79.9)
    runs, _ = load_records(tmp_path)
    assert to_configs(stuck_runs(runs)) == [Config(depth=110, warmup="none")] and len(finished_runs(runs)) == 2


@pytest.mark.parametrize("field", OTHERS)
def test_the_command_of_a_configuration_trains_it(field):
    config = Config(**{field: OTHERS[field]})
    script, *flags = format_command(config).removeprefix("python ").split()
    assert script == "reproduce/run.py" and parse(flags)[0] == config
    assert len(flags) <= 4, "defaults are left out"


def test_commands_and_labels_distinguish_configurations():
    every = [Config(), Config(depth=110, warmup="none"), *(Config(**{field: value}) for field, value in OTHERS.items())]
    assert len({format_command(config) for config in every}) == len({format_label(config) for config in every}) == len(every)
    assert format_label(Config(depth=32, optimizer="adam", augment=False)) == "residual32 (adam, no augment)"
    assert format_command(Config(depth=110, seed=4)) == "python reproduce/run.py --depth 110"


def test_a_real_run_looks_like_the_fake_ones(tmp_path, monkeypatch):
    config = Config(depth=8, iterations=2, batch_size=8, dataset="synthetic", split="val")
    flags = format_command(config).removeprefix("python reproduce/run.py ").split()
    small = tmp_path / "data" / "synthetic" / "cifar-10-batches-py"  # where --data synthetic looks first
    small.mkdir(parents=True)
    write_synthetic(small, train=1000, test=100)
    monkeypatch.chdir(tmp_path)
    assert main([*flags, "--device", "cpu", "--out", "real"]) == 0
    write_run(tmp_path / "fake", config, evaluations=2)
    for name in ("config.json", "result.json", "responses.json", "environment.json"):
        fake, real = (json.loads((tmp_path / kind / config.folder / name).read_text()) for kind in ("fake", "real"))
        assert fake[0].keys() <= real[0].keys() if name == "environment.json" else fake.keys() == real.keys()
    (fake, _), (real, real_curve) = load_records(tmp_path / "fake"), load_records(tmp_path / "real")
    assert (fake.notna() >= real.notna()).all(axis=None) and len(real["responses"].item()) == 7
    assert real["test_error"].item() == real_curve["test_error"].iloc[-1] and to_configs(real) == [config]


def test_analysis_does_not_import_torch():
    names = sorted(path.stem for path in (Path(__file__).parents[1] / "analysis").glob("*.py"))
    code = f"import sys\nfor name in {names}: __import__('analysis.' + name)\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
