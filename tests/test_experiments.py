"""The experiments' configs, and the command line that a config is turned into."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import EXPERIMENTS, ambiguity, block_design, bn_placement, deep, degradation, optimizer
from reproduce import config as options
from reproduce.config import Config, RunOptions, format_flags
from reproduce.run import parse
from reproduce.schema import Diverged
from tests.fake_records import make_result

PAPER = asdict(Config())


def departures(config: Config) -> dict:
    """The fields of a config that are not the paper's; depth, residual and the warm-up that goes with depth apart."""
    default = asdict(Config(depth=config.depth, residual=config.residual))
    return {name: value for name, value in asdict(config).items() if value != default[name]}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_distinct_full_length_seed_0_cells_and_says_what_it_costs(name: str):
    module = EXPERIMENTS[name]
    assert module.__name__ == f"experiments.{name}"
    configs = getattr(module, "GRID", []) + module.CONFIGS
    assert len({config.key for config in configs}) == len(configs) > 0
    assert {config.seed for config in configs} == {0}
    assert all(config.iterations == config.dataset_info.iterations for config in module.CONFIGS)
    assert {config.dataset for config in configs} == {"mnist" if name == "lenet" else "cifar10"}
    assert module.__doc__ is not None
    assert f"python experiments/sweep.py {name}\n" in module.__doc__
    assert "Device-hours: " in module.__doc__


def test_degradation_is_plain_and_residual_at_the_papers_depths():
    nets = [config.net for config in degradation.CONFIGS]
    assert sorted(nets) == sorted(f"{kind}{depth}" for kind in ("plain", "residual") for depth in (20, 32, 44, 56, 110))
    assert [config for config in degradation.CONFIGS if departures(config)] == []
    assert {config.warmup for config in degradation.CONFIGS if config.depth == 110} == {"error"}


def test_the_default_residual_nets_are_shared_between_experiments():
    default = Config(depth=56)
    for module in (degradation, bn_placement, block_design, optimizer, ambiguity):
        assert default in module.CONFIGS, module.__name__
    assert Config(depth=110) in deep.CONFIGS


def test_bn_placement_and_block_design_change_nothing_but_the_block():
    for module in (bn_placement, block_design):
        assert {tuple(departures(config)) for config in module.CONFIGS} == {(), ("block",)}
    assert [(c.depth, c.block) for c in bn_placement.CONFIGS[:2]] == [(20, "original"), (20, "bn-after-add")]
    assert len(bn_placement.CONFIGS) == 5 * 2
    assert {(c.depth, c.block) for c in block_design.CONFIGS} == {
        (depth, block) for depth in (32, 56, 110) for block in get_args(options.Block)
    }


def test_ambiguity_changes_one_choice_at_a_time_and_takes_every_alternative():
    default, *others = ambiguity.CONFIGS
    assert default == Config(depth=56)
    changes = [departures(config) for config in others]
    assert all(len(change) == 1 for change in changes)
    hints = Config.__annotations__
    for field in (
        "normalization",
        "initialization",
        "last_layer",
        "decay",
        "bn_statistics",
        "bn_batch",
        "last_batch",
        "split",
    ):
        tried = {change[field] for change in changes if field in change}
        assert tried == set(get_args(hints[field])) - {PAPER[field], "none"}, field  # none is of normalization, for MNIST


def test_deep_compares_the_three_warmups_and_trains_1202():
    assert [(c.depth, c.warmup) for c in deep.CONFIGS] == [
        (110, "error"), (110, "iterations"), (110, "none"), (1202, "error"),
    ]  # fmt: skip


def test_optimizer_compares_like_with_like():
    nets = {(20, True), (20, False), (56, True), (56, False), (110, True)}
    at = {
        choice: {(c.depth, c.residual) for c in optimizer.CONFIGS if (c.optimizer, c.lr) == choice and c.augment}
        for choice in (("sgd", 0.1), ("adam", 1e-3), ("adamw", 1e-3))
    }
    assert all(found == nets for found in at.values())
    blog = [config for config in optimizer.CONFIGS if not config.augment]
    assert [(c.net, c.optimizer, c.lr) for c in blog] == [("residual32", "sgd", 0.1), ("residual32", "adam", 1e-3)]


# The grid -------------------------------------------------------------------------------------------------------------


def results(errors: dict[tuple[str, float], float | None]):
    """Results of grid runs by (optimizer, lr); None is a run that diverged, and one left out has not ended."""

    def result_of(config: Config):
        assert config in optimizer.GRID
        assert config.lr is not None
        if (config.optimizer, config.lr) not in errors:
            return None
        error = errors[config.optimizer, config.lr]
        return Diverged(iteration=1) if error is None else make_result(config, error)

    return result_of


ERRORS = dict(zip(optimizer.GRID_LR, (20.0, 12.0, 11.0, 12.0, 30.0), strict=True))
ADAM: dict[tuple[str, float], float | None] = {("adam", lr): error for lr, error in ERRORS.items()}


def test_the_grid_is_a_quarter_of_the_schedule_on_the_validation_split_at_depth_20():
    assert len(optimizer.GRID) == 2 * len(optimizer.GRID_LR)
    assert {(c.net, c.split, c.iterations) for c in optimizer.GRID} == {("residual20", "val", 16_000)}


def test_the_lr_with_the_lowest_held_out_error_is_chosen():
    assert optimizer.choose_lr("adam", results(ADAM | {("adam", 3e-3): 10.9})) == 3e-3
    assert optimizer.choose_lr("adam", results(ADAM | {("adam", 3e-4): 11.0})) == 3e-4, "the smaller of two equals"
    assert optimizer.choose_lr("adam", results(ADAM | {("adam", 1e-3): None})) == 3e-4, "a diverged run is the worst"
    assert optimizer.choose_lr("adam", results(dict.fromkeys(ADAM))) is None, "all diverged"


def test_cells_at_the_chosen_lr_exist_once_the_optimizers_grid_has_ended():
    assert optimizer.derive_configs(results({})) == []
    unfinished = {key: error for key, error in ADAM.items() if key != ("adam", 1e-4)}
    assert optimizer.derive_configs(results(unfinished)) == []
    cells = optimizer.derive_configs(results(ADAM | {("adam", 3e-3): 10.0}))
    assert [(c.depth, c.residual) for c in cells] == list(optimizer.NETS)
    assert {(c.optimizer, c.lr, c.split, c.iterations) for c in cells} == {("adam", 3e-3, "full", 64_000)}


# The command ----------------------------------------------------------------------------------------------------------


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
    named = {"trainable", *options.FIELDS_FROM_OPTIONS} - {"dataset"}  # of files: in test_pictures.py, test_finetuning.py
    assert set(fields) | {"residual", *of_residual, *named} == set(PAPER), "a new field of Config needs its values here"
    # Mostly defaults, as in an experiment: a value is drawn for some of the fields only.
    chosen = draw(st.sets(st.sampled_from(sorted(fields))))
    values = {"residual": residual} | {name: draw(fields[name]) for name in sorted(chosen)}
    if values.get("family", "6n+2") != "6n+2":
        others = ("depth", "residual", *of_residual, *(("bn_statistics", "bn_batch") if values["family"] == "lenet" else ()))
        values = {name: value for name, value in values.items() if name not in others}
    if values.get("schedule", "steps") != "steps":
        values.pop("warmup", None)
    return Config(**values)


machines = st.builds(
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
@given(configs(), machines)
def test_the_command_of_a_config_gives_the_same_config_and_machine(config: Config, options: RunOptions):
    if config.dataset != "cifar10":
        options = replace(options, data=config.dataset_info.given)
    assert parse(format_flags(config, options)) == (config, options)


def test_the_command_finds_a_sets_own_folder_below_the_data():
    lenet = Config(family="lenet", dataset="mnist")
    assert format_flags(lenet) == ["--family", "lenet", "--data", "mnist"]
    for data, written in (("data", "data/MNIST"), ("/big/sets", "/big/sets/MNIST"), ("/big/MNIST", "/big/MNIST")):
        flags = format_flags(lenet, RunOptions(data=data))
        assert flags == ["--family", "lenet", "--data", written] and parse(flags)[0] == lenet


def test_the_command_holds_no_default():
    assert format_flags(Config(), RunOptions()) == []
    assert format_flags(Config(depth=110, lr=0.1, warmup="error"), RunOptions()) == ["--depth", "110"]
    config = Config(depth=56, residual=False, optimizer="adam", lr=1e-3, augment=False, warmup="iterations", seed=3)
    assert format_flags(config, RunOptions(time_limit=60.0, capture=False)) == [
        "--depth", "56", "--no-residual", "--optimizer", "adam", "--warmup", "iterations", "--no-augment",
        "--seed", "3", "--time-limit", "60.0", "--no-capture",
    ]  # fmt: skip
