"""The configurations of the experiments, and the flags that describe a configuration."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import EXPERIMENTS, ambiguity, block_design, bn_placement, deep, degradation, optimizer, warmup
from reproduce import config as options
from reproduce.config import Config, RunOptions, format_flags
from reproduce.run import parse

PAPER = asdict(Config())


def list_changes(config: Config) -> dict:
    """Return the fields that differ from the paper's, apart from depth, residual and the warm-up that follows from depth."""
    default = asdict(Config(depth=config.depth, residual=config.residual))
    return {name: value for name, value in asdict(config).items() if value != default[name]}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_lists_distinct_full_length_configurations_and_its_cost(name: str):
    module = EXPERIMENTS[name]
    configs = getattr(module, "GRID", []) + module.CONFIGS
    assert len({config.key for config in configs}) == len(configs) > 0
    assert {config.seed for config in configs} == {0}
    assert all(config.iterations == config.dataset_info.published_iterations for config in module.CONFIGS)
    assert {config.dataset for config in configs} == {"mnist" if name == "lenet" else "cifar10"}
    assert module.__doc__ is not None
    assert f"python experiments/sweep.py {name}\n" in module.__doc__
    assert "Device-hours: " in module.__doc__


def test_the_papers_networks_are_shared_between_experiments():
    for module in (degradation, bn_placement, block_design, optimizer, ambiguity, warmup):
        assert Config(depth=56) in module.CONFIGS, module.__name__
    assert [config for config in degradation.CONFIGS if list_changes(config)] == []
    assert Config(depth=110) in deep.CONFIGS and Config(depth=110).warmup == "error"


def test_each_experiment_changes_only_what_its_question_asks():
    for module, field in ((bn_placement, "block"), (block_design, "block"), (warmup, "warmup"), (deep, "warmup")):
        assert {tuple(list_changes(config)) for config in module.CONFIGS} == {(), (field,)}
    default, *others = ambiguity.CONFIGS
    assert default == Config(depth=56)
    changes = [list_changes(config) for config in others]
    assert all(len(change) == 1 for change in changes)
    fields = "normalization initialization last_layer decay bn_statistics bn_batch last_batch split"
    for field in fields.split():
        tried = {change[field] for change in changes if field in change}
        alternatives = set(get_args(get_type_hints(Config)[field])) - {PAPER[field], "none"}  # none is for MNIST
        assert tried == alternatives, field
    for choice in (("sgd", 0.1), ("adam", 1e-3), ("adamw", 1e-3)):
        chosen = {(c.depth, c.residual) for c in optimizer.CONFIGS if (c.optimizer, c.lr) == choice and c.augment}
        assert chosen == set(optimizer.NETS)


# The flags ------------------------------------------------------------------------------------------------------------


@st.composite
def configs(draw: st.DrawFn) -> Config:
    residual = draw(st.booleans())
    of_residual = {
        "shortcut": st.sampled_from(get_args(options.Shortcut)),
        "block": st.sampled_from(get_args(options.Block)),
    }
    positive = st.floats(1e-9, 1e3, allow_nan=False)
    fields = {
        "depth": st.integers(1, 300).map(lambda n: 6 * n + 2),
        "optimizer": st.sampled_from(get_args(options.Optimizer)),
        "lr": st.none() | positive,
        "momentum": st.floats(0, 0.999),
        "weight_decay": st.just(0.0) | positive,
        "batch_size": st.integers(1, 500).map(lambda half: 2 * half),
        "iterations": st.integers(1, 100_000),
        "warmup": st.sampled_from(get_args(options.Warmup)),
        "augment": st.booleans(),
        "split": st.sampled_from(("full", "val")),
        "precision": st.sampled_from(get_args(options.Precision)),
        "normalization": st.sampled_from(("pixel-mean", "channel-mean", "channel-mean-std", "none")),
        "initialization": st.sampled_from(("fan-in", "fan-out")),
        "last_layer": st.sampled_from(("he", "uniform")),
        "decay": st.sampled_from(("all", "weights")),
        "bn_statistics": st.sampled_from(("moving", "population")),
        "bn_batch": st.sampled_from(("whole", "halves")),
        "last_batch": st.sampled_from(("stream", "drop")),
        "seed": st.integers(0, 2**63 - 1),
        "dataset": st.sampled_from(("cifar10", "synthetic", "mnist")),
        "family": st.sampled_from(get_args(options.Family)),
        "schedule": st.sampled_from(get_args(options.Schedule)),
    } | (of_residual if residual else {})
    named = {"trainable", *options.FIELDS_FROM_OPTIONS} - {"dataset"}  # from files: test_image_folder.py, test_finetuning.py
    assert set(fields) | {"residual", *of_residual, *named} == set(PAPER), "a new field of Config needs its values here"
    # As in an experiment, most fields stay at their default.
    chosen = draw(st.sets(st.sampled_from(sorted(fields))))
    values = {"residual": residual} | {name: draw(fields[name]) for name in sorted(chosen)}
    if values.get("family", "6n+2") != "6n+2":
        others = ("depth", "residual", *of_residual, *(("bn_statistics", "bn_batch") if values["family"] == "lenet" else ()))
        values = {name: value for name, value in values.items() if name not in others}
    if values.get("schedule", "steps") != "steps":
        values.pop("warmup", None)
    return Config(**values)


run_options = st.builds(
    RunOptions,
    device=st.sampled_from(("auto", "npu", "cuda", "cpu")),
    data=st.sampled_from(("data", "elsewhere/cifar 10")),
    out=st.sampled_from((Path("runs"), Path("experiments/records"))),
    time_limit=st.none() | st.floats(0.1, 1e6),
    eval_every=st.integers(1, 5000),
    checkpoint_every=st.integers(1, 5000),
    capture=st.booleans(),
    deterministic=st.booleans(),
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(configs(), run_options)
def test_the_flags_of_a_configuration_give_it_back(config: Config, options: RunOptions):
    if config.dataset != "cifar10":
        options = replace(options, data=config.dataset_info.default_data)
    assert parse(format_flags(config, options)) == (config, options)


def test_the_flags_name_mnist_below_the_data_folder():
    lenet = Config(family="lenet", dataset="mnist")
    assert format_flags(lenet) == ["--family", "lenet", "--data", "mnist"]
    for data, written in (("data", "data/MNIST"), ("/big/sets", "/big/sets/MNIST"), ("/big/MNIST", "/big/MNIST")):
        flags = format_flags(lenet, RunOptions(data=data))
        assert flags == ["--family", "lenet", "--data", written] and parse(flags)[0] == lenet


def test_the_flags_leave_out_defaults():
    assert format_flags(Config(), RunOptions()) == []
    assert format_flags(Config(depth=110, lr=0.1, warmup="error"), RunOptions()) == ["--depth", "110"]
    config = Config(depth=56, residual=False, optimizer="adam", lr=1e-3, augment=False, warmup="iterations", seed=3)
    assert format_flags(config, RunOptions(time_limit=60.0, capture=False)) == [
        "--depth", "56", "--no-residual", "--optimizer", "adam", "--warmup", "iterations", "--seed", "3",
        "--no-augment", "--time-limit", "60.0", "--no-capture",
    ]  # fmt: skip
