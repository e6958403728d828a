"""The verdict on every claim, in each direction."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from analysis import questions  # noqa: F401 - they register their claims
from analysis.claims import (
    CLAIMS,
    ESTIMATE,
    INCOMPLETE,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    SUGGESTS,
    SUGGESTS_OTHERWISE,
    judge,
    judge_all,
)
from analysis.paper import load_paper
from analysis.records import load_records
from analysis.summary import format_claims_csv
from experiments.lenet import LENET
from experiments.wide import RESNET18, RESNET18_PAPER_RECIPE
from reproduce.config import Block, Config
from tests.fake_records import write_run, write_seeds


class Runs(NamedTuple):
    """Three seeds of a configuration: their mean test error, and the distance between neighbors."""

    config: Config
    error: float
    train_error: float = 1.0
    responses: list[float] | None = None
    spread: float = 0.1


Scenario = list[Runs]


def residual(
    depth: int, error: float, train_error: float = 1.0, responses: list[float] | None = None, spread: float = 0.1, **fields: Any
) -> Runs:
    return Runs(Config(depth=depth, **fields), error, train_error, responses, spread)


def plain(depth: int, error: float, **settings: Any) -> Runs:
    return residual(depth, error, residual=False, **settings)


def blocks(**errors: float) -> Scenario:
    names: dict[str, Block] = {
        "full": "full-preactivation",
        "original": "original",
        "relu_only": "relu-only-preactivation",
        "relu_before": "relu-before-add",
        "bn_after": "bn-after-add",
    }
    return [residual(110, error, block=names[name]) for name, error in errors.items()]


TABLE_6 = {20: 8.6, 32: 7.6, 44: 7.2, 56: 6.8, 110: 6.5}
PLAIN = {20: (9.2, 3.0), 32: (10.1, 4.0), 44: (11.6, 5.0), 56: (13.2, 6.0)}


def plain_nets(**changed: tuple[float, float]) -> Scenario:
    rows = PLAIN | {int(name[1:]): value for name, value in changed.items()}
    return [plain(depth, error, train_error=train) for depth, (error, train) in rows.items()]


def residual_nets(**changed: float) -> Scenario:
    rows = TABLE_6 | {int(name[1:]): value for name, value in changed.items()}
    return [residual(depth, error) for depth, error in rows.items()]


def responses(plain_20: float, residual_20: float, plain_56: float = 1.0, residual_56: float = 0.5) -> Scenario:
    return [
        plain(20, 9, responses=[plain_20] * 19),
        plain(56, 13, responses=[plain_56] * 55),
        residual(20, 8, responses=[residual_20] * 19),
        residual(56, 7, responses=[residual_56] * 55),
    ]


def ranked_responses(at_20: float, at_56: float, at_110: float) -> Scenario:
    return [residual(depth, 7, responses=[std] * (depth - 1)) for depth, std in ((20, at_20), (56, at_56), (110, at_110))]


def adams(at_20: float, at_56: float, at_plain_56: float) -> Scenario:
    return [
        *(residual(20, error, optimizer="adam", lr=lr) for error, lr in ((at_20, 1e-3), (at_20 + 2, 1e-2))),
        residual(56, at_56, optimizer="adam"),
        plain(56, at_plain_56, optimizer="adam"),
        residual(20, 8.2),
        residual(56, 6.9),
        plain(56, 13.0),
    ]


def without_augmentation(adam: float, sgd: float, adam_train: float = 15.0, sgd_train: float = 0.0) -> Scenario:
    return [
        residual(32, adam, optimizer="adam", augment=False, train_error=adam_train),
        residual(32, sgd, augment=False, train_error=sgd_train),
    ]


SCENARIOS: list[tuple[str, str, Scenario]] = [
    ("C1", REPRODUCED, plain_nets()),
    ("C1", NOT_REPRODUCED, plain_nets(d56=(8.9, 6.0))),
    ("C1", NOT_REPRODUCED, plain_nets(d56=(13.2, 2.0))),
    ("C1", NOT_REPRODUCED, plain_nets(d32=(8.5, 4.0))),
    ("C1", INCONCLUSIVE, plain_nets(d32=(9.3, 4.0))),
    ("C1", INCOMPLETE, plain_nets()[:3]),
    ("C2", REPRODUCED, residual_nets()),
    ("C2", NOT_REPRODUCED, residual_nets(d56=8.1)),
    ("C2", NOT_REPRODUCED, residual_nets(d32=9.0)),
    ("C2", INCONCLUSIVE, residual_nets(d56=7.5)),
    ("C3", REPRODUCED, plain_nets() + residual_nets()),
    ("C3", NOT_REPRODUCED, plain_nets() + residual_nets(d20=9.7)),
    ("C3", NOT_REPRODUCED, plain_nets(d56=(7.1, 6.0)) + residual_nets()),
    ("C4", REPRODUCED, [residual(110, 6.6)]),
    ("C4", NOT_REPRODUCED, [residual(110, 8.0)]),
    ("C4", NOT_REPRODUCED, [residual(110, 6.6, train_error=85.0)]),
    ("C4", INCONCLUSIVE, [residual(110, 7.3, spread=0.5)]),
    ("C4", INCONCLUSIVE, [residual(110, 6.9)]),
    ("C5", REPRODUCED, [residual(1202, 7.9, train_error=0.05), residual(110, 6.6)]),
    ("C5", NOT_REPRODUCED, [residual(1202, 6.2, train_error=0.05), residual(110, 6.6)]),
    ("C5", NOT_REPRODUCED, [residual(1202, 7.9, train_error=0.2), residual(110, 6.6)]),
    ("C6", REPRODUCED, responses(1.0, 0.5)),
    ("C6", NOT_REPRODUCED, responses(0.5, 1.0)),
    ("C6", NOT_REPRODUCED, responses(1.0, 0.5, residual_56=1.5)),
    ("C7", REPRODUCED, ranked_responses(1.0, 0.8, 0.5)),
    ("C7", NOT_REPRODUCED, ranked_responses(0.5, 0.8, 1.0)),
    ("C7", NOT_REPRODUCED, ranked_responses(1.0, 0.4, 0.5)),
    ("C8", REPRODUCED, [residual(110, 6.8, warmup="none"), residual(110, 6.6)]),
    ("C8", NOT_REPRODUCED, [residual(110, 7.8, warmup="none"), residual(110, 6.6)]),
    ("C8", INCONCLUSIVE, [residual(110, 7.0, warmup="none"), residual(110, 6.6)]),
    ("C8", NOT_RUN, [residual(110, 6.8, warmup="iterations")]),
    ("C9", REPRODUCED, residual_nets()),
    ("C9", NOT_REPRODUCED, residual_nets(d110=8.0)),
    ("T20", REPRODUCED, [residual(20, 8.6)]),
    ("T20", NOT_REPRODUCED, [residual(20, 7.9)]),
    ("T32", REPRODUCED, [residual(32, 7.5)]),
    ("T32", NOT_REPRODUCED, [residual(32, 9.0)]),
    ("T44", REPRODUCED, [residual(44, 7.2)]),
    ("T44", INCONCLUSIVE, [residual(44, 8.0, spread=0.3)]),
    ("T56", REPRODUCED, [residual(56, 6.8)]),
    ("T56", NOT_REPRODUCED, [residual(56, 8.0)]),
    ("B1", REPRODUCED, [residual(20, 8.3, block="bn-after-add"), residual(20, 8.2)]),
    ("B1", NOT_REPRODUCED, [residual(20, 9.3, block="bn-after-add"), residual(20, 8.2)]),
    ("B2", REPRODUCED, [residual(110, 8.2, block="bn-after-add"), residual(110, 6.6)]),
    ("B2", NOT_REPRODUCED, [residual(110, 6.5, block="bn-after-add"), residual(110, 6.6)]),
    ("B2", INCONCLUSIVE, [residual(110, 7.3, block="bn-after-add", spread=1.0), residual(110, 6.6)]),
    ("B3", REPRODUCED, [residual(32, 9.1, block="bn-after-add"), residual(32, 7.5)]),
    ("B3", NOT_REPRODUCED, [residual(32, 7.9, block="bn-after-add"), residual(32, 7.5)]),
    ("B3", NOT_REPRODUCED, [residual(32, 10.5, block="bn-after-add"), residual(32, 7.5)]),
    ("B4", REPRODUCED, blocks(full=6.4, original=6.6, relu_only=6.7, relu_before=7.8, bn_after=8.2)),
    ("B4", REPRODUCED, blocks(full=6.8, original=6.6, relu_only=6.5, relu_before=7.8, bn_after=7.7)),
    ("B4", NOT_REPRODUCED, blocks(full=6.4, original=6.6, relu_only=8.5, relu_before=7.8, bn_after=8.2)),
    ("B4", INCONCLUSIVE, blocks(full=6.4, original=6.6, relu_only=7.7, relu_before=7.8, bn_after=8.2)),
    ("B5", REPRODUCED, blocks(full=6.0, original=6.6)),
    ("B5", NOT_REPRODUCED, blocks(full=7.2, original=6.6)),
    ("B5", NOT_REPRODUCED, [residual(110, 6.6, block="full-preactivation", spread=0.03), residual(110, 6.6, spread=0.03)]),
    ("B5", INCONCLUSIVE, [residual(110, 6.4, block="full-preactivation", spread=0.3), residual(110, 6.6)]),
    ("A1", REPRODUCED, without_augmentation(39.0, 12.5)),
    ("A1", NOT_REPRODUCED, without_augmentation(16.0, 12.5)),
    ("A1", NOT_REPRODUCED, without_augmentation(10.0, 12.5)),
    ("A2", REPRODUCED, without_augmentation(39.0, 12.5)),
    ("A2", NOT_REPRODUCED, without_augmentation(39.0, 12.5, adam_train=5.0)),
    ("A3", REPRODUCED, [residual(32, 9.9), residual(44, 9.1)]),
    ("A3", NOT_REPRODUCED, [residual(32, 7.5), residual(44, 7.2)]),
    ("A3", NOT_REPRODUCED, [residual(32, 9.9), residual(44, 7.2)]),
    ("A5", REPRODUCED, adams(9.2, 8.0, 14.5)),
    ("A5", NOT_REPRODUCED, adams(9.2, 8.0, 12.0)),
    ("W1", REPRODUCED, [residual(32, 7.5), Runs(RESNET18, 7.1)]),
    ("W1", NOT_REPRODUCED, [residual(32, 7.5), Runs(RESNET18, 5.0)]),
    ("W1", INCONCLUSIVE, [residual(32, 7.5), Runs(RESNET18, 6.5)]),
    ("W2", REPRODUCED, [Runs(RESNET18, 8.9), Runs(RESNET18_PAPER_RECIPE, 9.1)]),
    ("W2", NOT_REPRODUCED, [Runs(RESNET18, 5.0), Runs(RESNET18_PAPER_RECIPE, 6.0)]),
    ("W56", REPRODUCED, [residual(56, 8.1), residual(56, 6.9, warmup="iterations")]),
    ("W56", NOT_REPRODUCED, [residual(56, 6.9), residual(56, 8.1, warmup="iterations")]),
    ("W56", INCONCLUSIVE, [residual(56, 7.0), residual(56, 6.9, warmup="iterations")]),
    ("M1", REPRODUCED, [Runs(LENET, 2.65)]),
    ("M1", NOT_REPRODUCED, [Runs(LENET, 1.5)]),
    ("M1", INCONCLUSIVE, [Runs(LENET, 2.4)]),
]
"""Claim, verdict, and the runs that lead to it. In B4, designs less than 0.5 points apart in the paper may swap places."""
REPRODUCING = {name: scenario for name, verdict, scenario in SCENARIOS if verdict == REPRODUCED}
JITTER = ((-1, 0, 1), (1, -1, 0))
"""Of the seeds, in alternate configurations."""


def write_scenario(records: Path, scenario: Scenario, seeds: int = 3):
    for place, runs in enumerate(scenario):
        errors = [runs.error + jitter * runs.spread for jitter in JITTER[place % 2][:seeds]]
        write_seeds(records, runs.config, errors, train_error=runs.train_error, responses=runs.responses)


@pytest.mark.parametrize(("name", "verdict", "scenario"), SCENARIOS)
def test_verdicts_on_three_seeds(tmp_path, name, verdict, scenario):
    write_scenario(tmp_path, scenario)
    judged = judge(name, load_records(tmp_path)[0])
    assert judged.verdict.partition(" (")[0] == verdict, judged.numbers
    tested = verdict not in (INCOMPLETE, NOT_RUN) and name[0] not in "TM"
    assert (judged.p is not None) == tested
    if verdict == REPRODUCED and tested:
        assert judged.p is not None and judged.p < 0.05


@pytest.mark.parametrize("name", REPRODUCING)
def test_one_or_two_seeds_only_suggest(tmp_path, name):
    least_seeds = CLAIMS[name].least_seeds
    for seeds, words in ((1, "one seed"), (2, "two seeds")):
        write_scenario(tmp_path / words, REPRODUCING[name], seeds=seeds)
        judged = judge(name, load_records(tmp_path / words)[0])
        assert judged.verdict in ((ESTIMATE,) if seeds < least_seeds else (SUGGESTS, INCONCLUSIVE)), judged.numbers
        assert judged.words.endswith(f"({words})") and judged.p is None


@pytest.mark.parametrize(
    ("name", "scenario"),
    [
        ("C1", plain_nets(d56=(13.2, 2.0))),
        ("C5", [residual(1202, 6.2, train_error=0.05), residual(110, 6.6)]),
        ("A1", without_augmentation(10.0, 12.5)),
        ("A3", [residual(32, 7.5), residual(44, 7.2)]),
    ],
)
def test_one_seed_can_suggest_otherwise(tmp_path, name, scenario):
    write_scenario(tmp_path, scenario, seeds=1)
    assert judge(name, load_records(tmp_path)[0]).words == f"{SUGGESTS_OTHERWISE} (one seed)"


def test_a_verdict_lists_how_it_changes_with_other_published_standard_deviations(tmp_path):
    write_scenario(tmp_path, [residual(56, 8.11)], seeds=1)
    judged = judge("T56", load_records(tmp_path)[0])
    # Pooled 0.542 with Tony-Y's 1.01: 1.04 ± 1.96 x 0.542 x sqrt(2); 0.227 without it.
    assert judged.verdict == INCONCLUSIVE and "ours - paper: +1.04 (-0.46 to +2.54)" in judged.numbers
    assert judged.changed == {"without the largest": SUGGESTS_OTHERWISE}


@pytest.mark.parametrize("name", ["C6", "A5"])
def test_only_comparable_finished_runs_in_one_precision_count(tmp_path, name):
    write_scenario(tmp_path, REPRODUCING[name])
    runs, _ = load_records(tmp_path)
    for change in ({"iterations": 32_000}, {"split": "val"}, {"dataset": "synthetic"}, {"status": "unfinished"}):
        assert judge(name, runs.assign(**change)).verdict == NOT_RUN, change
    runs["precision"] = "bf16"
    judged = judge(name, runs)
    assert judged.verdict == REPRODUCED and "[bf16]" in judged.numbers
    runs.loc[runs["seed"] == 0, "precision"] = "tf32"
    assert judge(name, runs).seeds == 2
    runs.loc[runs["configuration"] == runs["configuration"].iloc[0], "precision"] = "fp32"
    assert judge(name, runs).verdict.startswith(INCOMPLETE)


@pytest.mark.parametrize(("name", "warmup"), [("C4", "error"), ("C8", "none")])
def test_diverged_runs_refute_convergence(tmp_path, name, warmup):
    for seed in range(3):
        write_run(tmp_path, Config(depth=110, warmup=warmup, precision="bf16", seed=seed), status="diverged")
    if name == "C8":
        assert judge(name, load_records(tmp_path)[0]).verdict == f"{INCOMPLETE} (0 of 2 configurations)"
        write_scenario(tmp_path, [residual(110, 6.6, precision="bf16")])
    judged = judge(name, load_records(tmp_path)[0])
    assert judged.verdict == NOT_REPRODUCED and "3 diverged" in judged.numbers and judged.p is None


def test_numbers_behind_a_verdict(tmp_path):
    write_scenario(tmp_path, REPRODUCING["B2"])
    numbers = judge("B2", load_records(tmp_path)[0]).numbers
    # Both have a standard deviation of 0.1: a standard error of 0.1 sqrt(2/3), 4 degrees of freedom, t = 2.776.
    assert "residual110 (bn-after-add) 8.20 ± 0.10 (n=3), residual110 6.60 ± 0.10 (n=3)" in numbers
    assert "after - before +1.60 (+1.37 to +1.83)" in numbers


def test_verdicts_are_adjusted_for_all_tests(tmp_path):
    write_scenario(tmp_path, REPRODUCING["B2"])
    verdict = judge("B2", load_records(tmp_path)[0])
    weak = [replace(verdict, name=f"B{i}", p=0.04) for i in (2, 3)]
    assert format_claims_csv(weak).count(",0.04,0.08,") == 2


def test_every_claim_has_a_rule_scenarios_and_published_numbers(tmp_path):
    verdicts = judge_all(load_records(tmp_path)[0])
    assert [verdict.name for verdict in verdicts] == list(REPRODUCING)
    assert all(verdict.claim and verdict.rule for verdict in verdicts)
    assert {verdict.verdict for verdict in verdicts} == {NOT_RUN}
    numbers = set(load_paper()["value"]) | set(load_paper()["upto"]) | {0.001}  # Adam's learning rate
    for verdict in verdicts:
        assert {float(number) for number in re.findall(r"\d+\.\d+", verdict.claim)} <= numbers, verdict.claim
