"""compare.py: the verdict on a run, and how it differs from the records."""

import re
from pathlib import Path

import pytest

from analysis import compare
from experiments.lenet import LENET
from reproduce.config import Config
from reproduce.dataset import DATASETS
from tests.fake_records import write_run, write_seeds


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Five recorded seeds of ResNet-20, one of ResNet-56, one of a shortened plain net."""
    records = tmp_path / "records"
    write_seeds(records, Config(), [8.0, 8.1, 8.2, 8.3, 8.4])
    write_seeds(records, Config(depth=56), [7.0])
    write_seeds(records, Config(residual=False, iterations=3200), [21.0])
    return records


@pytest.fixture
def report(records, capsys):
    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert compare.main([*map(str, arguments), "--records", str(records)]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(("error", "position"), [(8.25, "within"), (8.9, "above"), (7.5, "below")])
def test_recorded_seeds_predict_another_run(tmp_path, report, error, position):
    text = report(write_run(tmp_path / "own", Config(seed=7), error))
    # mean 8.2, std 0.158, t with 4 degrees of freedom 2.776, times sqrt(1 + 1/5): 0.48
    assert f"{error:.2f}% is {position} the 95% prediction interval from 5 recorded runs, 7.72 to 8.68%" in text
    assert "recipe: the paper's\n" in text
    assert "He et al. 2015 8.75; akamaster" in text and "recorded: 8.20 ± 0.16 (n=5); seeds 8.00, 8.10, 8.20" in text


def test_published_standard_deviations_replace_missing_seeds(tmp_path, report):
    text = report(write_run(tmp_path / "own", Config(depth=56, seed=1), 7.1))
    assert "7.10% is within" in text and "from the recorded mean and the published std" in text
    text = report(write_run(tmp_path / "own", Config(depth=32), 9.9))
    assert "9.90% is above" in text and "from the paper's number and the published std" in text
    # mean of 5 runs, published std 0.33, 1.96 times sqrt(1 + 1/5): 0.72
    text = report(write_run(tmp_path / "own", Config(depth=110), 7.4))
    assert "7.40% is above" in text and "5.89 to 7.33%" in text
    text = report(write_run(tmp_path / "own", Config(depth=32, residual=False), 11.0))
    assert "11.00%: no other run is recorded" in text, "the paper's number is read off a plot"
    text = report(write_run(tmp_path / "own", Config(depth=26), 7.9))
    assert "7.90%: no other run is recorded" in text
    text = report(write_run(tmp_path / "own", Config(depth=110, residual=False), 85.0))
    assert "He et al. 2015 > 60;" in text and "inf" not in text


def test_runs_without_a_published_standard_deviation_are_compared_with_the_mean(tmp_path, report, records):
    text = report(write_run(tmp_path / "own", Config(residual=False, iterations=3200, seed=1), 21.5))
    assert "21.50%: +0.50 points from the recorded mean" in text and "He et al." not in text
    write_run(records, Config(family="resnet50"), 5.1)
    assert "9.00%: +3.90 points" in report(write_run(tmp_path / "own", Config(family="resnet50", seed=1), 9.0))


def test_a_record_is_compared_with_the_others(report, records):
    text = report(records / Config(seed=4).folder)
    assert "(one of the records" in text and "recorded: 8.15 ± 0.13 (n=4)" in text


def test_another_recipe_and_another_precision_are_named(tmp_path, report, records):
    text = report(write_run(tmp_path / "own", Config(momentum=0.8, optimizer="adam"), 9.0))
    assert "momentum=0.8 (paper: 0.9)" in text and "lr=0.001" in text
    write_run(records, Config(precision="bf16", seed=3), status="unfinished")
    assert "recorded in fp32: 8.20 ± 0.16 (n=5)" in report(write_run(tmp_path / "own", Config(precision="bf16"), 8.2))


def test_published_results_are_those_of_the_family_and_the_block_design(tmp_path, report):
    text = report(write_run(tmp_path / "own", LENET, 2.5))
    assert "published for this network: a tutorial for beginners 2.74" in text
    text = report(write_run(tmp_path / "own", Config(block="bn-after-add"), 8.3))
    assert "gcr/torch-residual-networks 8.34" in text and "8.75" not in text


def test_other_data_is_not_compared_with_published_results(tmp_path, report):
    for config in (
        Config(depth=20, dataset="mnist", iterations=DATASETS["mnist"].published_iterations or 0),
        Config(depth=20, dataset="pictures", classes="a/b", pictures="0" * 64),
        Config(depth=20, dataset="synthetic"),
    ):
        text = report(write_run(tmp_path / "own", config, 8.0))
        assert "no other run is recorded" in text and "He et al." not in text and "published" not in text


def test_two_runs_are_compared_with_each_other(tmp_path, report):
    first, second = (write_run(tmp_path / "own", Config(depth=depth), error) for depth, error in ((20, 8.0), (56, 7.0)))
    text = report(first, second)
    pair = text.split("\n\n")[-1]
    assert f"{Config(depth=56).folder} compared with {Config(depth=20).folder}" in pair
    assert "config: depth 56 (first run: 20)\n" in pair and "-1.00 points" in pair
    # the wrong predictions are at the end of the test set: the 100 more of the first run are right in the second one
    assert "0 test images are misclassified by this run only, 100 by the first run only" in pair
    assert "compared with" not in report(first)


def test_unfinished_and_diverged_runs(tmp_path, report):
    text = report(write_run(tmp_path / "own", Config(seed=7), 8.2, status="unfinished"))
    assert "unfinished at iteration 32,000 of 64,000" in text
    assert "test error 49.10% is within" in text and "training error 45.50% is within" in text
    text = report(write_run(tmp_path / "own", Config(depth=56, seed=7), status="unfinished"))
    assert "test error 49.00%: +0.50 points from the recorded mean" in text
    runs = write_run(tmp_path / "own", Config(seed=9), status="unfinished", evaluations=5)
    assert "its last evaluation is at iteration 25,600, where no recorded run was evaluated" in report(runs)
    assert "diverged: there is no test error" in report(write_run(tmp_path / "own", Config(seed=8), status="diverged"))


def test_several_runs_are_drawn(tmp_path, report, records):
    own = [records / Config().folder, write_run(tmp_path / "own", Config(depth=56, seed=7), 8.2)]
    own.append(write_run(tmp_path / "own", Config(depth=44), status="unfinished", evaluations=1))  # no evaluation yet
    figure = tmp_path / "new" / "mine.svg"
    assert str(figure) in report(*own, "--output", figure)
    text = " ".join(re.findall("<!-- (.*?) -->", figure.read_text(), re.S))
    assert "residual20, seed 0 (a record), finished at iteration 64,000" in text and "other recorded seeds: 1, 2, 3, 4" in text
    assert "residual56, seed 7, finished" in text and "recorded seeds: 0" in text and "unfinished at iteration 0" in text


def test_the_papers_number_is_drawn_for_its_recipe(tmp_path, records, monkeypatch):
    figures = []
    monkeypatch.setattr(compare, "save_figure", lambda figure, paths: figures.append(figure))
    runs = [write_run(tmp_path / "own", config, 8.2) for config in (Config(seed=7), Config(momentum=0.8))]
    compare.main([*map(str, runs), "--records", str(records), "--output", "mine.png"])
    lines = [[line.get_ydata()[0] for line in axes.get_lines() if line.get_color() == "C0"] for axes in figures[0].axes]
    assert lines == [[8.75], []]
