"""The verdict on every claim, in each direction."""

import re
from dataclasses import replace
from typing import Any

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
from tests.fake_records import write_run

Scenario = list[tuple[Config, dict[str, Any]]]
"""Configurations, each with arguments of `write_run`: three seeds around `error`, 0.1 apart."""


def plain(depth: int, error: float, **settings: Any) -> tuple[Config, dict[str, Any]]:
    return Config(depth=depth, residual=False), {"error": error} | settings


def residual(depth: int, error: float, **settings: Any) -> tuple[Config, dict[str, Any]]:
    """Settings of write_run, and of Config where write_run has none of the name."""
    ours = {name: settings.pop(name) for name in ("train_error", "responses", "spread") if name in settings}
    return Config(depth=depth, **settings), {"error": error} | ours


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
        (Config(depth=56, residual=False, optimizer="adam"), {"error": at_plain_56}),
        residual(20, 8.2),
        residual(56, 6.9),
        plain(56, 13.0),
    ]


def without_augmentation(adam: float, sgd: float, adam_train: float = 15.0, sgd_train: float = 0.0) -> Scenario:
    return [
        residual(32, adam, optimizer="adam", augment=False, train_error=adam_train),
        residual(32, sgd, augment=False, train_error=sgd_train),
    ]


SCENARIOS: dict[str, dict[str, list[Scenario]]] = {
    "C1": {
        REPRODUCED: [plain_nets()],
        NOT_REPRODUCED: [plain_nets(d56=(8.9, 6.0)), plain_nets(d56=(13.2, 2.0)), plain_nets(d32=(8.5, 4.0))],
        INCONCLUSIVE: [plain_nets(d32=(9.3, 4.0))],
        INCOMPLETE: [plain_nets()[:3]],
    },
    "C2": {
        REPRODUCED: [residual_nets()],
        NOT_REPRODUCED: [residual_nets(d56=8.1), residual_nets(d32=9.0)],
        INCONCLUSIVE: [residual_nets(d56=7.5)],
        INCOMPLETE: [residual_nets()[1:]],
    },
    "C3": {
        REPRODUCED: [plain_nets() + residual_nets()],
        NOT_REPRODUCED: [plain_nets() + residual_nets(d20=9.7), plain_nets(d56=(7.1, 6.0)) + residual_nets()],
        INCOMPLETE: [plain_nets()],
    },
    "C4": {
        REPRODUCED: [[residual(110, 6.6)]],
        NOT_REPRODUCED: [[residual(110, 8.0)], [residual(110, 6.6, train_error=85.0)]],
        INCONCLUSIVE: [[residual(110, 7.3, spread=0.5)], [residual(110, 6.9)]],
    },
    "C5": {
        REPRODUCED: [[residual(1202, 7.9, train_error=0.05), residual(110, 6.6)]],
        NOT_REPRODUCED: [
            [residual(1202, 6.2, train_error=0.05), residual(110, 6.6)],
            [residual(1202, 7.9, train_error=0.2), residual(110, 6.6)],
        ],
        INCOMPLETE: [[residual(110, 6.6)]],
    },
    "C6": {
        REPRODUCED: [responses(1.0, 0.5)],
        NOT_REPRODUCED: [responses(0.5, 1.0), responses(1.0, 0.5, residual_56=1.5)],
        INCOMPLETE: [responses(1.0, 0.5)[:3]],
    },
    "C7": {
        REPRODUCED: [ranked_responses(1.0, 0.8, 0.5)],
        NOT_REPRODUCED: [ranked_responses(0.5, 0.8, 1.0), ranked_responses(1.0, 0.4, 0.5)],
        INCOMPLETE: [ranked_responses(1.0, 0.8, 0.5)[:2]],
    },
    "C8": {
        REPRODUCED: [[residual(110, 6.8, warmup="none"), residual(110, 6.6)]],
        NOT_REPRODUCED: [[residual(110, 7.8, warmup="none"), residual(110, 6.6)]],
        INCONCLUSIVE: [[residual(110, 7.0, warmup="none"), residual(110, 6.6)]],
        NOT_RUN: [[residual(110, 6.8, warmup="iterations")]],
    },
    "C9": {
        REPRODUCED: [residual_nets()],
        NOT_REPRODUCED: [residual_nets(d110=8.0)],
        INCONCLUSIVE: [residual_nets(d110=6.7)],
        INCOMPLETE: [residual_nets()[:4]],
    },
    "T20": {REPRODUCED: [[residual(20, 8.6)]], NOT_REPRODUCED: [[residual(20, 7.9)]]},
    "T32": {REPRODUCED: [[residual(32, 7.5)]], NOT_REPRODUCED: [[residual(32, 9.0)]]},
    "T44": {REPRODUCED: [[residual(44, 7.2)]], INCONCLUSIVE: [[residual(44, 8.0, spread=0.3)]]},
    "T56": {
        REPRODUCED: [[residual(56, 6.8)]],
        NOT_REPRODUCED: [[residual(56, 8.0)]],
        INCONCLUSIVE: [[residual(56, 7.9, spread=0.3)]],
    },
    "B1": {
        REPRODUCED: [[residual(20, 8.3, block="bn-after-add"), residual(20, 8.2)]],
        NOT_REPRODUCED: [[residual(20, 9.3, block="bn-after-add"), residual(20, 8.2)]],
        INCOMPLETE: [[residual(20, 8.3, block="relu-before-add"), residual(20, 8.2)]],
    },
    "B2": {
        REPRODUCED: [[residual(110, 8.2, block="bn-after-add"), residual(110, 6.6)]],
        NOT_REPRODUCED: [[residual(110, 6.5, block="bn-after-add"), residual(110, 6.6)]],
        INCONCLUSIVE: [[residual(110, 7.3, block="bn-after-add", spread=1.0), residual(110, 6.6)]],
    },
    "B3": {
        REPRODUCED: [[residual(32, 9.1, block="bn-after-add"), residual(32, 7.5)]],
        NOT_REPRODUCED: [
            [residual(32, 7.9, block="bn-after-add"), residual(32, 7.5)],
            [residual(32, 10.5, block="bn-after-add"), residual(32, 7.5)],
        ],
    },
    "B4": {
        REPRODUCED: [
            blocks(full=6.4, original=6.6, relu_only=6.7, relu_before=7.8, bn_after=8.2),
            blocks(full=6.8, original=6.6, relu_only=6.5, relu_before=7.8, bn_after=7.7),  # close ones may swap
        ],
        NOT_REPRODUCED: [blocks(full=6.4, original=6.6, relu_only=8.5, relu_before=7.8, bn_after=8.2)],
        INCONCLUSIVE: [blocks(full=6.4, original=6.6, relu_only=7.7, relu_before=7.8, bn_after=8.2)],
        INCOMPLETE: [blocks(full=6.4, original=6.6, relu_only=6.7, relu_before=7.8)],
    },
    "B5": {
        REPRODUCED: [blocks(full=6.0, original=6.6)],
        NOT_REPRODUCED: [
            blocks(full=7.2, original=6.6),
            [residual(110, 6.6, block="full-preactivation", spread=0.03), residual(110, 6.6, spread=0.03)],
        ],
        INCONCLUSIVE: [[residual(110, 6.4, block="full-preactivation", spread=0.3), residual(110, 6.6)]],
    },
    "A1": {
        REPRODUCED: [without_augmentation(39.0, 12.5)],
        NOT_REPRODUCED: [without_augmentation(16.0, 12.5), without_augmentation(10.0, 12.5)],
    },
    "A2": {
        REPRODUCED: [without_augmentation(39.0, 12.5)],
        NOT_REPRODUCED: [without_augmentation(39.0, 12.5, adam_train=5.0)],
    },
    "A3": {
        REPRODUCED: [[residual(32, 9.9), residual(44, 9.1)]],
        NOT_REPRODUCED: [[residual(32, 7.5), residual(44, 7.2)], [residual(32, 9.9), residual(44, 7.2)]],
    },
    "A5": {
        REPRODUCED: [adams(9.2, 8.0, 14.5)],
        NOT_REPRODUCED: [adams(9.2, 8.0, 12.0)],
        INCOMPLETE: [adams(9.2, 8.0, 14.5)[2:]],
    },
    "W1": {
        REPRODUCED: [[residual(32, 7.5), (RESNET18, {"error": 7.1})]],
        NOT_REPRODUCED: [[residual(32, 7.5), (RESNET18, {"error": 5.0})]],
        INCONCLUSIVE: [[residual(32, 7.5), (RESNET18, {"error": 6.5})]],
    },
    "W2": {
        REPRODUCED: [[(RESNET18, {"error": 8.9}), (RESNET18_PAPER_RECIPE, {"error": 9.1})]],
        NOT_REPRODUCED: [[(RESNET18, {"error": 5.0}), (RESNET18_PAPER_RECIPE, {"error": 6.0})]],
    },
    "W56": {
        REPRODUCED: [[residual(56, 8.1), residual(56, 6.9, warmup="iterations")]],
        NOT_REPRODUCED: [[residual(56, 6.9), residual(56, 8.1, warmup="iterations")]],
        INCONCLUSIVE: [[residual(56, 7.0), residual(56, 6.9, warmup="iterations")]],
        INCOMPLETE: [[residual(56, 8.1), residual(56, 6.9, warmup="error")]],
    },
    "M1": {
        REPRODUCED: [[(LENET, {"error": 2.65})]],
        NOT_REPRODUCED: [[(LENET, {"error": 1.5})]],
        INCONCLUSIVE: [[(LENET, {"error": 2.4})]],
        NOT_RUN: [[(replace(LENET, lr=1e-3), {"error": 2.6})]],
    },
}
JITTER = ((-0.1, 0.0, 0.1), (0.1, -0.1, 0.0))
"""Of the seeds, in alternate configurations."""


def write_scenario(records, scenario: Scenario, seeds: int = 3):
    for place, (config, settings) in enumerate(scenario):
        settings = dict(settings)
        error, scale = settings.pop("error"), settings.pop("spread", 0.1) / 0.1
        for seed, jitter in list(enumerate(JITTER[place % 2]))[:seeds]:
            write_run(records, replace(config, seed=seed), error + jitter * scale, **settings)


@pytest.mark.parametrize(
    "name, verdict, scenario",
    [
        pytest.param(name, verdict, scenario, id=f"{name}-{verdict}-{number}".replace(" ", "-"))
        for name, verdicts in SCENARIOS.items()
        for verdict, scenarios in verdicts.items()
        for number, scenario in enumerate(scenarios)
    ],
)
def test_verdicts_on_three_seeds(tmp_path, name, verdict, scenario):
    write_scenario(tmp_path, scenario)
    judged = judge(name, load_records(tmp_path)[0])
    assert judged.verdict.partition(" (")[0] == verdict, judged.numbers
    tested = verdict not in (INCOMPLETE, NOT_RUN) and name[0] not in "TM"
    assert (judged.p is not None) == tested
    if verdict == REPRODUCED and tested:
        assert judged.p is not None and judged.p < 0.05


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_or_two_seeds_only_suggest(tmp_path, name):
    least_seeds = CLAIMS[name].least_seeds
    for seeds, words in ((1, "one seed"), (2, "two seeds")):
        write_scenario(tmp_path / words, SCENARIOS[name][REPRODUCED][0], seeds=seeds)
        judged = judge(name, load_records(tmp_path / words)[0])
        assert judged.verdict in ((ESTIMATE,) if seeds < least_seeds else (SUGGESTS, INCONCLUSIVE)), judged.numbers
        assert judged.words.endswith(f"({words})") and judged.p is None


@pytest.mark.parametrize("name, place", [("C1", 1), ("C5", 0), ("A1", 1), ("A3", 0)])
def test_one_seed_can_suggest_otherwise(tmp_path, name, place):
    write_scenario(tmp_path, SCENARIOS[name][NOT_REPRODUCED][place], seeds=1)
    assert judge(name, load_records(tmp_path)[0]).words == f"{SUGGESTS_OTHERWISE} (one seed)"


def test_a_verdict_that_depends_on_the_widest_published_standard_deviation_says_so(tmp_path):
    write_scenario(tmp_path, [residual(56, 8.11)], seeds=1)
    judged = judge("T56", load_records(tmp_path)[0])
    # Pooled 0.542 with Tony-Y's 1.01: 1.04 ± 1.96 x 0.542 x sqrt(2); 0.227 without it.
    assert judged.verdict == INCONCLUSIVE and "ours - paper: +1.04 (-0.46 to +2.54)" in judged.numbers
    assert judged.without_widest == SUGGESTS_OTHERWISE


@pytest.mark.parametrize("name", SCENARIOS)
def test_only_comparable_finished_runs_in_one_precision_count(tmp_path, name):
    write_scenario(tmp_path, SCENARIOS[name][REPRODUCED][0])
    runs, _ = load_records(tmp_path)
    for change in ({"iterations": 32_000}, {"split": "val"}, {"dataset": "synthetic"}, {"status": "unfinished"}):
        assert judge(name, runs.assign(**change)).verdict == NOT_RUN, change
    runs["precision"] = "bf16"
    judged = judge(name, runs)
    assert judged.verdict == REPRODUCED and "[bf16]" in judged.numbers
    runs.loc[runs["seed"] == 0, "precision"] = "tf32"
    assert judge(name, runs).seeds == 2
    if name in ("C6", "A5"):
        runs.loc[runs["configuration"] == runs["configuration"].iloc[0], "precision"] = "fp32"
        assert judge(name, runs).verdict.startswith(INCOMPLETE)


@pytest.mark.parametrize(("name", "warmup"), [("C4", "error"), ("C8", "none")])
def test_diverged_runs_refute_convergence(tmp_path, name, warmup):
    for seed in range(3):
        write_run(tmp_path, Config(depth=110, warmup=warmup, precision="bf16", seed=seed), status="diverged")
    if name == "C8":
        assert judge(name, load_records(tmp_path)[0]).verdict == NOT_RUN
        write_scenario(tmp_path, [residual(110, 6.6, precision="bf16")])
    judged = judge(name, load_records(tmp_path)[0])
    assert judged.verdict == NOT_REPRODUCED and "3 diverged" in judged.numbers and judged.p is None


def test_numbers_behind_a_verdict(tmp_path):
    write_scenario(tmp_path, SCENARIOS["B2"][REPRODUCED][0])
    numbers = judge("B2", load_records(tmp_path)[0]).numbers
    # Both have a standard deviation of 0.1: a standard error of 0.1 sqrt(2/3), 4 degrees of freedom, t = 2.776.
    assert "residual110 (bn-after-add) 8.20 ± 0.10 (n=3), residual110 6.60 ± 0.10 (n=3)" in numbers
    assert "after - before +1.60 (+1.37 to +1.83)" in numbers


def test_verdicts_are_adjusted_for_all_tests(tmp_path):
    write_scenario(tmp_path, SCENARIOS["B2"][REPRODUCED][0])
    verdict = judge("B2", load_records(tmp_path)[0])
    weak = [replace(verdict, name=f"B{i}", p=0.04) for i in (2, 3)]
    assert format_claims_csv(weak).count(",0.04,0.08,") == 2


def test_every_claim_has_a_rule_scenarios_and_published_numbers(tmp_path):
    verdicts = judge_all(load_records(tmp_path)[0])
    assert [verdict.name for verdict in verdicts] == list(SCENARIOS)
    assert all(verdict.claim and verdict.rule for verdict in verdicts)
    assert {verdict.verdict for verdict in verdicts} == {NOT_RUN}
    numbers = set(load_paper()["value"]) | set(load_paper()["upto"]) | {0.001}  # Adam's learning rate
    for verdict in verdicts:
        assert {float(number) for number in re.findall(r"\d+\.\d+", verdict.claim)} <= numbers, verdict.claim
