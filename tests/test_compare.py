"""A run beside the records: whether its number is right, what differs, and whatever is wrong with its folder."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest

from analysis import compare
from reproduce.config import Config
from reproduce.errors import UserError
from tests.fake_records import SESSION, write_cell, write_run


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Five recorded seeds of ResNet-20, one of ResNet-56, one of a shortened plain net."""
    records = tmp_path / "records"
    write_cell(records, Config(), [8.0, 8.1, 8.2, 8.3, 8.4])
    write_cell(records, Config(depth=56), [7.0])
    write_cell(records, Config(residual=False, iterations=3200), [21.0])
    return records


def say(capsys: pytest.CaptureFixture[str], records: Path, *arguments: object) -> str:
    capsys.readouterr()
    assert compare.main([*map(str, arguments), "--records", str(records)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("error", "where"), [(8.25, "within"), (8.9, "ABOVE"), (7.5, "below")])
def test_recorded_seeds_predict_another(tmp_path, capsys, records, error, where):
    said = say(capsys, records, write_run(tmp_path / "own", Config(seed=7), error))
    # mean 8.2, std 0.158, t with 4 degrees of freedom 2.776, times sqrt(1 + 1/5): 0.48
    expected = f"{error:.2f}% lies {where} what is expected, 7.72 to 8.68% (the 95% prediction interval of 5 recorded runs)"
    assert expected in said and "recipe: the paper's\n" in said and "environment: as recorded\n" in said
    assert "He et al. 2015 8.75; akamaster" in said and "recorded: 8.20 ± 0.16 (n=5); seeds 8.00, 8.10, 8.20" in said


def test_one_recorded_seed_and_none_go_by_the_published_spread(tmp_path, capsys, records):
    said = say(capsys, records, write_run(tmp_path / "own", Config(depth=56, seed=1), 7.1))
    assert "7.10% lies within what is expected" in said and "(95% of the recorded run and the published spread of a run" in said
    said = say(capsys, records, write_run(tmp_path / "own", Config(depth=32), 9.9))
    assert "9.90% lies ABOVE what is expected" in said and "(95% of the paper's number and the published spread" in said
    said = say(capsys, records, write_run(tmp_path / "own", Config(depth=26), 7.9))
    assert "7.90%: no other such run is recorded, and the paper gives no exact number for it" in said


def test_a_record_is_compared_with_the_others(capsys, records):
    said = say(capsys, records, records / Config(seed=4).folder)
    assert "(one of the records: beside the others)" in said and "recorded: 8.15 ± 0.13 (n=4)" in said


def test_a_shortened_run_has_no_published_spread(tmp_path, capsys, records):
    own = Config(residual=False, iterations=3200, seed=1)
    said = say(capsys, records, write_run(tmp_path / "own", own, 21.5))
    assert "not the paper's in iterations 3200 (the paper: 64000)" in said
    assert "21.50%: +0.50 points from the recorded; no spread" in said and "He et al." not in said


def test_a_changed_recipe_and_environment_are_named(tmp_path, capsys, records):
    folder = write_run(tmp_path / "own", Config(momentum=0.8, optimizer="adam"), 9.0)
    session = SESSION | {"device_name": "Abacus", "versions": {"torch": "3.0"}, "data": {"name": "cifar10", "sha256": "f" * 64}}
    (folder / "environment.json").write_text(json.dumps([session]))
    said = say(capsys, records, folder)
    assert "optimizer adam (the paper: sgd)" in said and "momentum 0.8 (the paper: 0.9)" in said
    assert "lr 0.001 (the paper: 0.1)" in said and "no other such run is recorded" in said
    for part in ("device Abacus (recorded: Test Accelerator)", "torch 3.0 (recorded: 2.11.0)", "data ffffffff"):
        assert part in said


def test_unfinished_and_diverged_runs(tmp_path, capsys, records):
    said = say(capsys, records, write_run(tmp_path / "own", Config(seed=7), 8.2, status="unfinished"))
    assert "unfinished at iteration 32,000 of 64,000" in said
    assert "test error: 49.10% lies within what is expected" in said and "training error: 45.50% lies within" in said
    said = say(capsys, records, write_run(tmp_path / "own", Config(depth=56, seed=7), status="unfinished"))
    assert "test error 49.00% at iteration 32,000; recorded there: 48.50 (n=1)" in said
    said = say(capsys, records, write_run(tmp_path / "own", Config(seed=8), status="diverged"))
    assert "it diverged: there is no test error to compare" in said


def test_another_precision_is_said(tmp_path, capsys, records):
    said = say(capsys, records, write_run(tmp_path / "own", Config(precision="bf16"), 8.2))
    assert "recorded (in fp32): 8.20 ± 0.16 (n=5)" in said


def test_a_finished_run_is_set_beside_finished_ones(tmp_path, capsys, records):
    write_run(records, Config(precision="bf16", seed=3), status="unfinished")
    said = say(capsys, records, write_run(tmp_path / "own", Config(precision="bf16"), 8.2))
    assert "recorded (in fp32): 8.20 ± 0.16 (n=5)" in said


def test_what_has_no_published_spread_or_no_end_is_told_so(tmp_path, capsys, records):
    wide = Config(family="resnet18")
    write_run(records, wide, 5.1)
    said = say(capsys, records, write_run(tmp_path / "own", replace(wide, seed=1), 9.0))
    assert "9.00%: +3.90 points from the recorded; no spread of such runs is published" in said
    said = say(capsys, records, write_run(tmp_path / "own", Config(depth=110, residual=False), 85.0))
    assert "He et al. 2015 > 60;" in said and "inf" not in said


def test_several_runs_are_drawn(tmp_path, capsys, records):
    own = [write_run(tmp_path / "own", replace(Config(), seed=seed), 8.2) for seed in (7, 8)]
    own.append(write_run(tmp_path / "own", Config(depth=44), status="unfinished", evaluations=2))  # with one evaluation
    picture = tmp_path / "new" / "mine.png"
    assert str(picture) in say(capsys, records, *own, "--output", picture)
    assert matplotlib.image.imread(picture).std() > 0.05


def test_what_is_no_run_is_one_sentence(tmp_path, records):
    for path, reason in ((records, "but below it are 7"), (tmp_path / "missing", "is not a run's folder")):
        with pytest.raises(UserError, match=reason):
            compare.main([str(path), "--records", str(records)])
    folder = write_run(tmp_path / "own", Config(), 8.2)
    for name in ("x.gif", "x"):
        with pytest.raises(UserError, match=f"--output is a picture in .svg, .png, .pdf, which {name} is not"):
            compare.main([str(folder), "--output", name])
    (folder / "result.json").write_text("{")
    with pytest.raises(UserError, match="result.json is damaged"):
        compare.main([str(folder), "--records", str(records)])
