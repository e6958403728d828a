"""The runs to compare and their standard deviations."""

from dataclasses import replace

import pytest

from analysis.paper import published_std
from analysis.records import load_records
from analysis.sample import Sample, choose_precision
from reproduce.config import Config
from tests.fake_records import write_run, write_seeds


def test_precision_is_the_one_with_runs_of_most_configurations(tmp_path):
    nets = [Config(depth=20), Config(depth=32)]

    def chosen() -> str:
        return choose_precision(load_records(tmp_path)[0], nets)

    assert chosen() == "fp32"
    write_seeds(tmp_path, nets[0], [8.0] * 3)
    write_seeds(tmp_path, replace(nets[0], precision="bf16"), [8.0])
    assert chosen() == "fp32"
    write_seeds(tmp_path, replace(nets[1], precision="bf16"), [7.0])
    assert chosen() == "bf16", "only there is a run of each"
    write_seeds(tmp_path, nets[1], [7.0])
    assert chosen() == "fp32", "both have a run of each; there more configurations have three"
    nets.append(Config(depth=44))
    write_seeds(tmp_path, replace(nets[2], precision="tf32"), [7.0])
    assert chosen() == "fp32"
    for net in nets[:2]:
        write_seeds(tmp_path, replace(net, precision="tf32"), [7.0])
    assert chosen() == "tf32", "only there is a run of each"
    nets += [Config(depth=56), Config(depth=110)]
    assert chosen() == "tf32", "there most configurations have a run, though none has three"
    nets[:] = [Config(depth=110)]
    write_run(tmp_path, Config(depth=110, precision="bf16"), status="diverged")
    assert chosen() == "bf16", "none has finished; there they were tried"


def test_one_configuration_with_fewer_than_three_seeds_makes_all_standard_deviations_published(tmp_path):
    write_seeds(tmp_path, Config(), [8.0, 8.2, 8.4])
    write_seeds(tmp_path, Config(depth=32), [7.0, 7.3])
    runs, _ = load_records(tmp_path)
    alone, both = Sample(runs, Config()), Sample(runs, Config(), Config(depth=32))
    assert alone.mean(0).std == pytest.approx(0.2) and alone.note == " [fp32]"
    assert [both.mean(i).std for i in (0, 1)] == [published_std(Config()), published_std(Config(depth=32))]
    assert both.note == " [fp32; two seeds]"
    narrower = Sample(runs, Config(), Config(depth=32), pooling="without the largest")
    assert narrower.difference(0, 1).error < both.difference(0, 1).error


def test_failed_runs_are_counted(tmp_path):
    write_seeds(tmp_path, Config(depth=110), [6.5, 6.6, 6.7])
    write_run(tmp_path, Config(depth=110, seed=3), status="diverged")
    write_run(tmp_path, Config(depth=110, seed=4), 90.0, train_error=90.0)
    write_run(tmp_path, Config(depth=110, seed=5), status="unfinished")
    sample = Sample(load_records(tmp_path)[0], Config(depth=110))
    assert sample.mean(0).n == 4 and sample.note == " [fp32; 1 diverged, not in the means; 1 stuck, in the means]"


def test_a_configuration_without_runs_leaves_no_seeds(tmp_path):
    write_run(tmp_path, Config(precision="bf16"), 8.0)
    sample = Sample(load_records(tmp_path)[0], Config(), Config(depth=32))
    assert (sample.seeds, sample.counts, sample.precision) == (0, [1, 0], "bf16")
