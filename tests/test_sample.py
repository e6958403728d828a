"""Cells chosen to be compared, the spread they go by, and when a precision is neutral."""

import math
from dataclasses import replace

import pytest

from analysis.paper import find_spread, load_paper
from analysis.questions.precision import is_neutral
from analysis.records import load_records
from analysis.sample import NotEnoughRuns, Sample, choose_precision, format_difference
from reproduce.config import Config
from tests.fake_records import write_cell, write_run


def test_the_precision_is_the_one_that_covers_the_cells_best(tmp_path):
    nets = [Config(depth=20), Config(depth=32)]

    def chosen() -> str:
        return choose_precision(load_records(tmp_path)[0], nets)

    assert chosen() == "fp32"
    write_cell(tmp_path, nets[0], [8.0] * 3)
    write_cell(tmp_path, replace(nets[0], precision="bf16"), [8.0])
    assert chosen() == "fp32"
    write_cell(tmp_path, replace(nets[1], precision="bf16"), [7.0])
    assert chosen() == "bf16", "only there is a run of each"
    write_cell(tmp_path, nets[1], [7.0])
    assert chosen() == "fp32", "of two that have a run of each, the one with more cells of three"
    nets.append(Config(depth=44))
    write_cell(tmp_path, replace(nets[2], precision="tf32"), [7.0])
    assert chosen() == "fp32"
    for net in nets[:2]:
        write_cell(tmp_path, replace(net, precision="tf32"), [7.0])
    assert chosen() == "tf32", "only there is a run of each"
    nets += [Config(depth=56), Config(depth=110)]
    assert chosen() == "tf32", "there most cells have a run, though none has three"
    nets[:] = [Config(depth=110)]
    write_run(tmp_path, Config(depth=110, precision="bf16"), status="diverged")
    assert chosen() == "bf16", "where none has finished, the one in which they were tried"


def test_cells_of_three_go_by_their_own_spread_and_fewer_by_the_published_one(tmp_path):
    write_cell(tmp_path, Config(), [8.0, 8.2, 8.4])
    write_cell(tmp_path, Config(depth=32), [7.0, 7.3])
    runs, _ = load_records(tmp_path)
    alone, both = Sample(runs, Config()), Sample(runs, Config(), Config(depth=32))
    assert (alone.seeds, alone.note) == (3, " [fp32]") and alone.term(0).std == pytest.approx(0.2)
    assert (both.seeds, both.note) == (2, " [fp32; two seeds, spread as published]")
    assert [both.term(i).std for i in (0, 1)] == [find_spread(Config()), find_spread(Config(depth=32))]
    assert both.term(0).known


def test_published_spreads_are_those_of_the_kind_and_depth():
    paper = load_paper()
    spreads = paper[(paper["kind"] == "plain") & (paper["quantity"] == "test error")].set_index("depth")["spread"].dropna()
    assert find_spread(Config(depth=56, residual=False)) == pytest.approx(spreads[56])
    assert find_spread(Config(depth=44, residual=False)) == pytest.approx(math.sqrt((spreads**2).mean()))
    assert find_spread(Config(depth=110)) == pytest.approx(math.sqrt((0.16**2 + 0.20**2 + 0.69**2 + 0.10**2) / 4))
    assert find_spread(Config(depth=110, optimizer="adam")) == find_spread(Config(depth=110))


def test_a_sample_counts_what_failed(tmp_path):
    write_cell(tmp_path, Config(depth=110), [6.5, 6.6, 6.7])
    write_run(tmp_path, Config(depth=110, seed=3), status="diverged")
    write_run(tmp_path, Config(depth=110, seed=4), 90.0, train_error=90.0)
    write_run(tmp_path, Config(depth=110, seed=5), status="unfinished")
    sample = Sample(load_records(tmp_path)[0], Config(depth=110))
    assert sample.means()[0].n == 4 and sample.note == " [fp32; 1 diverged and in no mean; 1 stuck and in the means]"


def test_a_cell_without_runs_is_named(tmp_path):
    write_run(tmp_path, Config(precision="bf16"), 8.0)
    with pytest.raises(NotEnoughRuns, match=r"residual20 n=1, residual32 n=0 \[bf16\]"):
        Sample(load_records(tmp_path)[0], Config(), Config(depth=32))


def test_a_difference_in_words(tmp_path):
    write_cell(tmp_path, Config(), [8.0, 8.2, 8.4])
    write_cell(tmp_path, Config(depth=32), [7.0])
    runs, _ = load_records(tmp_path)
    assert format_difference(runs, Config(), Config(depth=32)) == "+1.20 (+0.27 to +2.13), n=3, 1, spread as published, fp32"
    assert format_difference(runs, Config(), Config(depth=44)) == "-"


def write_precisions(folder, effects: dict[int, list[float]], precision: str = "bf16"):
    """Cells in fp32 at 8.0, and in a lower precision above them by these effects."""
    for depth, cell in effects.items():
        write_cell(folder, Config(depth=depth), [8.0] * len(cell))
        write_cell(folder, replace(Config(depth=depth), precision=precision), [8.0 + effect for effect in cell])


@pytest.mark.parametrize(
    ("effects", "neutral"),
    [
        ({20: [0.1, -0.1, 0.1], 56: [0.1, -0.1, 0.1]}, True),
        ({20: [0.4, -0.4, 0.4], 56: [0.4, -0.4, 0.4]}, None),
        ({20: [1.0, 1.1, 0.9], 56: [-1.0, -1.1, -0.9]}, None),
        ({20: [1.0, 1.1, 0.9], 56: [1.0, 1.1, 0.9]}, False),
        ({20: [-1.0, -1.1, -0.9], 56: [-1.0, -1.1, -0.9]}, False),
        ({20: [0.0, 0.1, 0.0, 0.1], 56: [0.0, 0.1]}, None),
        ({20: [0.0, 0.1, 0.0]}, None),
    ],
)
def test_a_precision_is_neutral_when_the_interval_of_its_effect_is_small(tmp_path, effects, neutral):
    write_precisions(tmp_path, effects)
    runs, _ = load_records(tmp_path)
    assert is_neutral(runs, "bf16") is neutral
    assert is_neutral(runs, "fp32") is True and is_neutral(runs, "tf32") is None


def test_a_precision_in_which_a_run_diverges_that_does_not_in_fp32_is_not_neutral(tmp_path):
    write_precisions(tmp_path, {20: [0.0, 0.1, 0.0], 56: [0.0, 0.1, 0.0]})
    assert is_neutral(load_records(tmp_path)[0], "bf16") is True
    write_run(tmp_path, Config(depth=56, seed=3, precision="bf16"), status="diverged")
    assert is_neutral(load_records(tmp_path)[0], "bf16") is False
    write_run(tmp_path, Config(depth=56, seed=3), status="diverged")
    assert is_neutral(load_records(tmp_path)[0], "bf16") is True
