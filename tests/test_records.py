"""Reading run folders: known folders in, known rows out, and nothing that contradicts itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis.markdown import format_command, format_label
from analysis.paper import HE, load_paper, paper_value, published
from analysis.questions.layer_responses import with_mean_response
from analysis.questions.optimizer import optimizer_settings
from analysis.records import (
    CONFIG_FIELDS,
    RUN_COLUMNS,
    comparable_runs,
    finished_runs,
    group_configurations,
    load_records,
    select_runs,
    stuck_runs,
    to_configs,
)
from reproduce.config import PAPER_TEST_ERROR, Config
from reproduce.errors import UserError
from reproduce.run import main, parse
from reproduce.sampling import write_synthetic
from tests.fake_records import SESSION, write_cell, write_run

REPOSITORY = Path(__file__).parent.parent
OF_FILES = {"trainable": "head", "classes": "a/c", "pictures": "2", "initial": "00"}
"""Of fields that no flag gives alone: what they name are files."""
OTHERS: dict[str, Any] = {
    "depth": 32,
    "family": "resnet18",
    "schedule": "cosine",
    "residual": False,
    "shortcut": "B",
    "block": "bn-after-add",
    "optimizer": "adam",
    "lr": 0.05,
    "momentum": 0.8,
    "weight_decay": 5e-4,
    "batch_size": 64,
    "iterations": 1000,
    "warmup": "iterations",
    "augment": False,
    "split": "val",
    "normalization": "channel-mean",
    "initialization": "fan-out",
    "last_layer": "uniform",
    "decay": "weights",
    "bn_statistics": "population",
    "bn_batch": "halves",
    "last_batch": "drop",
    "dataset": "synthetic",
}
"""For every field that tells cells apart a value that is not the default."""


def test_a_row_per_run_and_a_row_per_evaluation(tmp_path):
    write_run(tmp_path, Config(depth=20, seed=3), test_error=8.25, train_error=2.5, responses=[0.5] * 19)
    write_run(tmp_path, Config(depth=32, residual=False), status="diverged")
    write_run(tmp_path, Config(depth=44), status="unfinished")
    runs, curves = load_records(tmp_path)
    assert list(runs.columns) == RUN_COLUMNS and len(runs) == 3
    rows = {row["depth"]: row.to_dict() for _, row in runs.iterrows()}
    done, diverged, unfinished = rows[20], rows[32], rows[44]
    assert (done["status"], done["test_error"], done["train_error"], done["seed"]) == ("finished", 8.25, 2.5, 3)
    assert done["responses"] == [0.5] * 19 and done["sessions"] == [SESSION]
    assert done["iteration"] == done["iterations"] == 64_000
    assert (diverged["status"], diverged["iteration"]) == ("diverged", 32_005)
    assert (unfinished["status"], unfinished["iteration"], unfinished["seconds"]) == ("unfinished", 32_000, 120)
    assert runs["test_error"].count() == 1
    curve = curves[curves["folder"] == done["folder"]]
    assert curve["iteration"].tolist() == [16_000, 32_000, 48_000, 64_000]
    assert curve["test_error"].tolist() == pytest.approx([69.5625, 49.125, 28.6875, 8.25])
    assert (curves["folder"] == unfinished["folder"]).sum() == 2


def test_configs_come_back_as_they_were(tmp_path):
    written = [Config(), Config(depth=110, seed=2), Config(depth=32, optimizer="adam", augment=False, precision="bf16")]
    for config in written:
        write_run(tmp_path, config)
    assert set(to_configs(load_records(tmp_path)[0])) == set(written)


def test_no_records_give_empty_frames_that_can_be_asked(tmp_path):
    runs, curves = load_records(tmp_path)
    assert runs.empty and curves.empty
    assert select_runs(comparable_runs(finished_runs(runs)), Config()).empty and group_configurations(runs) == []


def test_a_torn_last_evaluation_is_left_out(tmp_path):
    folder = write_run(tmp_path, Config(), status="unfinished")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 48000, "test_er')
    runs, curves = load_records(tmp_path)
    assert len(curves) == 2 and runs["iteration"].item() == 32_000


def edit_config(folder):
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"weight_decay": 0.0}))


def move_to_another_seed(folder):
    shutil.move(folder, folder.with_name("seed7"))


def tear_config(folder):
    (folder / "config.json").write_text('{"depth": 2')


def lose_test_error(folder):
    result = json.loads((folder / "result.json").read_text())
    del result["test_error"]
    (folder / "result.json").write_text(json.dumps(result))


def make_test_error_infinite(folder):
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"test_error": float("inf")}))


@pytest.mark.parametrize("damage", [edit_config, move_to_another_seed, tear_config, lose_test_error, make_test_error_infinite])
def test_a_folder_that_contradicts_itself_is_refused(tmp_path, damage):
    damage(write_run(tmp_path, Config()))
    with pytest.raises(UserError, match=str(tmp_path)):
        load_records(tmp_path)


@pytest.mark.parametrize("field", [field for field in CONFIG_FIELDS if field not in ("seed", "precision")])
def test_a_cell_holds_no_run_that_differs_in_any_field(tmp_path, field):
    own = {"dataset": "pictures", "classes": "a/b", "pictures": "1"} if field in ("classes", "pictures") else {}
    fields: dict[str, Any] = {"lr": 0.1, **own}  # lr written out, so that another optimizer keeps it
    changed: dict[str, Any] = fields | {field: (OTHERS | OF_FILES)[field]}
    one, other = Config(**fields), Config(**changed)
    for config in (one, other):
        write_run(tmp_path, config)
    runs, _ = load_records(tmp_path)
    assert to_configs(select_runs(runs, one)) == [one] and to_configs(select_runs(runs, other)) == [other]
    assert len(select_runs(runs, one, free=[field])) == 2


def test_seeds_and_precisions_share_a_cell(tmp_path):
    for config in (Config(), Config(seed=1), Config(precision="bf16")):
        write_run(tmp_path, config)
    runs, _ = load_records(tmp_path)
    assert len(select_runs(runs, Config(seed=9, precision="tf32"))) == 3 and group_configurations(runs) == [Config()]


@pytest.mark.parametrize("change", [{"iterations": 63_999}, {"split": "val"}, {"dataset": "synthetic"}])
def test_other_lengths_and_data_are_not_comparable(tmp_path, change):
    for config in (Config(), Config(**change)):
        write_run(tmp_path, config)
    assert to_configs(comparable_runs(load_records(tmp_path)[0])) == [Config()]


def test_a_run_that_never_learned_is_stuck_and_finished(tmp_path):
    write_cell(tmp_path, Config(depth=110, warmup="none"), [90.0], train_error=89.9)
    write_cell(tmp_path, Config(depth=110), [6.6], train_error=79.9)
    runs, _ = load_records(tmp_path)
    assert to_configs(stuck_runs(runs)) == [Config(depth=110, warmup="none")] and len(finished_runs(runs)) == 2


@pytest.mark.parametrize("field", OTHERS)
def test_the_command_of_a_config_makes_it(field):
    config = Config(**{field: OTHERS[field]})
    script, *flags = format_command(config).removeprefix("python ").split()
    assert script == "reproduce/run.py"
    assert parse(flags)[0] == config
    assert len(flags) <= 4, "a flag that equals the default was written out"


def test_commands_and_labels_tell_cells_apart():
    every = [Config(), Config(depth=110, warmup="none"), *(Config(**{field: value}) for field, value in OTHERS.items())]
    assert len({format_command(config) for config in every}) == len({format_label(config) for config in every}) == len(every)
    assert format_label(Config(depth=32, optimizer="adam", augment=False)) == "residual32 (adam, no augment)"
    assert format_command(Config(depth=110, seed=4)) == "python reproduce/run.py --depth 110"


def test_settings_of_other_optimizers_come_with_sgd(tmp_path):
    adams = [Config(depth=56, optimizer="adam"), Config(depth=56, optimizer="adam", lr=3e-3)]
    for config in (*adams, Config(depth=56), Config(depth=20), Config(optimizer="adam", iterations=10)):
        write_run(tmp_path, config)
    runs, _ = load_records(tmp_path)
    assert optimizer_settings(runs) == {Config(depth=56): [Config(depth=56), *adams]}
    assert set(optimizer_settings(runs, free=["iterations"])) == {Config(depth=20), Config(depth=56)}


def test_mean_response_averages_the_layers(tmp_path):
    write_run(tmp_path, Config(depth=8), responses=[1.0, 2, 3, 4, 5, 6, 7.0])
    write_run(tmp_path, Config(depth=14), status="unfinished")
    assert with_mean_response(load_records(tmp_path)[0])["mean_response"].tolist() == [4.0]


def test_published_numbers_agree_with_the_trainers():
    paper = published(load_paper(), source=HE, kind="residual", quantity="test error")
    assert dict(zip(paper["depth"], paper["value"], strict=True)) == PAPER_TEST_ERROR
    assert paper_value(HE, kind="residual", depth=110, column="spread") == 0.16
    with pytest.raises(ValueError):
        paper_value(HE, kind="residual")  # several
    with pytest.raises(ValueError):
        paper_value(HE, kind="residual", depth=26)  # none


def test_every_published_number_says_whose_it_is():
    paper = load_paper()
    assert paper["value"].notna().all() and paper["n"].dropna().ge(1).all()
    assert (paper[["source", "quantity", "where"]] != "").all(axis=None)
    assert set(paper["read_off_plot"]) == {"yes", "no"}
    assert not paper.duplicated(["source", "kind", "depth", "variant", "quantity", "protocol"]).any()


def test_a_real_run_is_read_and_looks_like_the_fake_ones(tmp_path, monkeypatch):
    config = Config(depth=8, iterations=2, batch_size=8, dataset="synthetic", split="val")
    flags = format_command(config).removeprefix("python reproduce/run.py ").split()
    small = tmp_path / "data" / "synthetic" / "cifar-10-batches-py"  # where --data synthetic looks first
    small.mkdir(parents=True)
    write_synthetic(small, train=1000, test=100)
    monkeypatch.chdir(tmp_path)
    assert main([*flags, "--device", "cpu", "--out", "real"]) == 0
    write_run(tmp_path / "fake", config, evaluations=2)
    for name in ("config.json", "result.json", "responses.json", "environment.json"):
        ours, real = (json.loads((tmp_path / kind / config.folder / name).read_text()) for kind in ("fake", "real"))
        assert ours[0].keys() == real[0].keys() if name == "environment.json" else ours.keys() == real.keys()
    (ours, curve), (real, real_curve) = load_records(tmp_path / "fake"), load_records(tmp_path / "real")
    assert (ours.notna() >= real.notna()).all(axis=None) and (curve.notna().all() == real_curve.notna().all()).all()
    assert len(real["responses"].item()) == len(ours["responses"].item()) == 7
    assert real["test_error"].item() == real_curve["test_error"].iloc[-1] and to_configs(real) == [config]


def test_analysis_does_without_torch():
    names = ["table", "plot_degradation", "plot_bn_placement", "plot_optimizer", "plot_layer_responses"]
    code = f"import sys\nfor name in {names}: __import__('analysis.' + name)\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
