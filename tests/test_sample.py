"""The runs to compare, their standard deviations, and when a precision is neutral."""

from dataclasses import replace

import pytest

from analysis.paper import published_std
from analysis.questions.precision import is_neutral
from analysis.records import load_records
from analysis.sample import NotEnoughRuns, Sample, choose_precision
from reproduce.config import Config
from tests.fake_records import write_cell, write_run


def test_precision_is_the_one_with_runs_of_most_configurations(tmp_path):
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
    assert chosen() == "fp32", "both have a run of each; there more configurations have three"
    nets.append(Config(depth=44))
    write_cell(tmp_path, replace(nets[2], precision="tf32"), [7.0])
    assert chosen() == "fp32"
    for net in nets[:2]:
        write_cell(tmp_path, replace(net, precision="tf32"), [7.0])
    assert chosen() == "tf32", "only there is a run of each"
    nets += [Config(depth=56), Config(depth=110)]
    assert chosen() == "tf32", "there most configurations have a run, though none has three"
    nets[:] = [Config(depth=110)]
    write_run(tmp_path, Config(depth=110, precision="bf16"), status="diverged")
    assert chosen() == "bf16", "none has finished; there they were tried"


def test_one_configuration_with_fewer_than_three_seeds_makes_all_standard_deviations_published(tmp_path):
    write_cell(tmp_path, Config(), [8.0, 8.2, 8.4])
    write_cell(tmp_path, Config(depth=32), [7.0, 7.3])
    runs, _ = load_records(tmp_path)
    alone, both = Sample(runs, Config()), Sample(runs, Config(), Config(depth=32))
    assert alone.mean(0).std == pytest.approx(0.2) and alone.note == " [fp32]"
    assert [both.mean(i).std for i in (0, 1)] == [published_std(Config()), published_std(Config(depth=32))]
    assert both.note == " [fp32; two seeds, published standard deviations]"
    narrower = Sample(runs, Config(), Config(depth=32), leave_out_widest=True)
    assert narrower.difference(0, 1).error < both.difference(0, 1).error


def test_failed_runs_are_counted(tmp_path):
    write_cell(tmp_path, Config(depth=110), [6.5, 6.6, 6.7])
    write_run(tmp_path, Config(depth=110, seed=3), status="diverged")
    write_run(tmp_path, Config(depth=110, seed=4), 90.0, train_error=90.0)
    write_run(tmp_path, Config(depth=110, seed=5), status="unfinished")
    sample = Sample(load_records(tmp_path)[0], Config(depth=110))
    assert sample.mean(0).n == 4 and sample.note == " [fp32; 1 diverged, not in the means; 1 stuck, in the means]"


def test_configurations_without_runs_are_named(tmp_path):
    write_run(tmp_path, Config(precision="bf16"), 8.0)
    with pytest.raises(NotEnoughRuns, match=r"residual20 n=1, residual32 n=0 \[bf16\]") as error:
        Sample(load_records(tmp_path)[0], Config(), Config(depth=32))
    assert (error.value.present, error.value.total) == (1, 2)


def write_precisions(folder, effects: dict[int, list[float]], precision: str = "bf16"):
    """Write runs at 8.0 in fp32 and above them by these effects in a lower precision."""
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
        ({20: [0.0, 0.1, 0.0, 0.1], 56: [0.0, 0.1]}, None),
        ({20: [0.0, 0.1, 0.0]}, None),
    ],
)
def test_precision_is_neutral_if_its_effect_is_small(tmp_path, effects, neutral):
    write_precisions(tmp_path, effects)
    runs, _ = load_records(tmp_path)
    assert is_neutral(runs, "bf16") is neutral
    assert is_neutral(runs, "fp32") is True and is_neutral(runs, "tf32") is None


def test_precision_is_not_neutral_if_runs_diverge_only_in_it(tmp_path):
    write_precisions(tmp_path, {20: [0.0, 0.1, 0.0], 56: [0.0, 0.1, 0.0]})
    assert is_neutral(load_records(tmp_path)[0], "bf16") is True
    write_run(tmp_path, Config(depth=56, seed=3, precision="bf16"), status="diverged")
    assert is_neutral(load_records(tmp_path)[0], "bf16") is False
    write_run(tmp_path, Config(depth=56, seed=3), status="diverged")
    assert is_neutral(load_records(tmp_path)[0], "bf16") is True
