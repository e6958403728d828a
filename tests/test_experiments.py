"""The configurations of the experiments, and the flags that describe a configuration."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import EXPERIMENTS, ambiguity, block_design, bn_placement, deep, degradation, optimizer, warmup
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


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_run_as_a_script_describes_itself(name: str, tmp_path: Path):
    path = EXPERIMENTS[name].__file__
    assert path is not None
    command = [sys.executable, "-I", "-S", path]  # without installed packages
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert printed == f"{EXPERIMENTS[name].__doc__}\n"


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
    hints = get_type_hints(Config)
    choices = {name: st.sampled_from(get_args(hint)) for name, hint in hints.items() if get_origin(hint) is Literal}
    positive = st.floats(1e-9, 1e3, allow_nan=False)
    fields = choices | {
        "depth": st.integers(1, 300).map(lambda n: 6 * n + 2),
        "residual": st.booleans(),
        "lr": st.none() | positive,
        "momentum": st.floats(0, 0.999),
        "weight_decay": st.just(0.0) | positive,
        "batch_size": st.integers(1, 500).map(lambda half: 2 * half),
        "iterations": st.integers(1, 100_000),
        "augment": st.booleans(),
        "seed": st.integers(0, 2**63 - 1),
        "dataset": st.sampled_from(("cifar10", "synthetic", "mnist")),
    }
    from_files = {"trainable", "classes", "pictures", "initial"}  # see test_image_folder.py and test_finetuning.py
    assert set(fields) | from_files == set(PAPER), "a new field of Config needs its values here"
    # As in an experiment, most fields stay at their default.
    values = {name: draw(fields[name]) for name in sorted(draw(st.sets(st.sampled_from(sorted(set(fields) - from_files)))))}
    unused = set() if values.get("residual", True) else {"shortcut", "block"}
    if (family := values.get("family", "6n+2")) != "6n+2":
        unused = {"depth", "residual", "shortcut", "block"} | ({"bn_statistics", "bn_batch"} if family == "lenet" else set())
    if values.get("schedule", "steps") != "steps":
        unused.add("warmup")
    values = {name: value for name, value in values.items() if name not in unused}
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
