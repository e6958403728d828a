"""Every claim's verdict in each direction, on three seeds and on single runs."""

import re
from dataclasses import replace
from typing import Any

import pytest

from analysis import questions  # noqa: F401 - they register their claims
from analysis.claims import (
    NO_DATA,
    NOT_REPRODUCED,
    OPEN,
    POINTS_AGAINST,
    POINTS_TO,
    REPRODUCED,
    count_verdicts,
    format_claims,
    judge,
    judge_all,
)
from analysis.paper import find_spread, load_paper
from analysis.records import load_records
from experiments.lenet import LENET
from experiments.wide import RESNET18, RESNET18_BY_THE_PAPER
from reproduce.config import Block, Config
from tests.fake_records import write_run

Cells = list[tuple[Config, dict[str, Any]]]
"""Configs, each with what write_run takes: three seeds spread by 0.1 around `error`."""


def plain(depth: int, error: float, **settings: Any) -> tuple[Config, dict[str, Any]]:
    return Config(depth=depth, residual=False), {"error": error} | settings


def residual(depth: int, error: float, **settings: Any) -> tuple[Config, dict[str, Any]]:
    """Settings of write_run, and of Config where write_run has none of the name."""
    ours = {name: settings.pop(name) for name in ("train_error", "responses", "spread") if name in settings}
    return Config(depth=depth, **settings), {"error": error} | ours


def blocks(**errors: float) -> Cells:
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


def plain_nets(**changed: tuple[float, float]) -> Cells:
    rows = PLAIN | {int(name[1:]): value for name, value in changed.items()}
    return [plain(depth, error, train_error=train) for depth, (error, train) in rows.items()]


def residual_nets(**changed: float) -> Cells:
    rows = TABLE_6 | {int(name[1:]): value for name, value in changed.items()}
    return [residual(depth, error) for depth, error in rows.items()]


def responses(plain_20: float, residual_20: float, plain_56: float = 1.0, residual_56: float = 0.5) -> Cells:
    return [
        plain(20, 9, responses=[plain_20] * 19),
        plain(56, 13, responses=[plain_56] * 55),
        residual(20, 8, responses=[residual_20] * 19),
        residual(56, 7, responses=[residual_56] * 55),
    ]


def ranked_responses(at_20: float, at_56: float, at_110: float) -> Cells:
    return [residual(depth, 7, responses=[std] * (depth - 1)) for depth, std in ((20, at_20), (56, at_56), (110, at_110))]


def adams(at_20: float, at_56: float, at_plain_56: float) -> Cells:
    return [
        *(residual(20, error, optimizer="adam", lr=lr) for error, lr in ((at_20, 1e-3), (at_20 + 2, 1e-2))),
        residual(56, at_56, optimizer="adam"),
        (Config(depth=56, residual=False, optimizer="adam"), {"error": at_plain_56}),
        residual(20, 8.2),
        residual(56, 6.9),
        plain(56, 13.0),
    ]


def without_augmentation(adam: float, sgd: float, adam_train: float = 15.0, sgd_train: float = 0.0) -> Cells:
    return [
        residual(32, adam, optimizer="adam", augment=False, train_error=adam_train),
        residual(32, sgd, augment=False, train_error=sgd_train),
    ]


SCENARIOS: dict[str, dict[str, list[Cells]]] = {
    "C1": {
        REPRODUCED: [plain_nets()],
        NOT_REPRODUCED: [plain_nets(d56=(8.9, 6.0)), plain_nets(d56=(13.2, 2.0)), plain_nets(d32=(8.5, 4.0))],
        NO_DATA: [plain_nets()[:3]],
    },
    "C2": {
        REPRODUCED: [residual_nets()],
        NOT_REPRODUCED: [residual_nets(d110=8.0), residual_nets(d44=8.3)],
        NO_DATA: [residual_nets()[:4]],
    },
    "C3": {
        REPRODUCED: [plain_nets() + residual_nets()],
        NOT_REPRODUCED: [
            plain_nets() + residual_nets(d20=9.3),
            plain_nets(d56=(8.0, 6.0)) + residual_nets(),
        ],
        NO_DATA: [plain_nets()],
    },
    "C4": {
        REPRODUCED: [[residual(110, 6.6)]],
        NOT_REPRODUCED: [[residual(110, 8.0)], [residual(110, 6.6, train_error=85.0)]],
        OPEN: [[residual(110, 7.3, spread=0.5)], [residual(110, 6.9)]],
        NO_DATA: [[residual(110, 6.6, warmup="none")]],
    },
    "C5": {
        REPRODUCED: [[residual(1202, 7.9, train_error=0.05), residual(110, 6.6)]],
        NOT_REPRODUCED: [
            [residual(1202, 6.2, train_error=0.05), residual(110, 6.6)],
            [residual(1202, 7.9, train_error=0.2), residual(110, 6.6)],
        ],
        NO_DATA: [[residual(110, 6.6)]],
    },
    "C6": {
        REPRODUCED: [responses(1.0, 0.5)],
        NOT_REPRODUCED: [responses(0.5, 1.0), responses(1.0, 0.5, residual_56=1.5)],
        NO_DATA: [responses(1.0, 0.5)[:3]],
    },
    "C7": {
        REPRODUCED: [ranked_responses(1.0, 0.8, 0.5)],
        NOT_REPRODUCED: [ranked_responses(0.5, 0.8, 1.0), ranked_responses(1.0, 0.4, 0.5)],
        NO_DATA: [ranked_responses(1.0, 0.8, 0.5)[:2]],
    },
    "C8": {
        REPRODUCED: [[residual(110, 6.8, warmup="none"), residual(110, 6.6)]],
        NOT_REPRODUCED: [[residual(110, 7.8, warmup="none"), residual(110, 6.6)]],
        OPEN: [
            [residual(110, 7.3, warmup="none", spread=0.6), residual(110, 6.6)],
            [residual(110, 7.0, warmup="none"), residual(110, 6.6)],
        ],
        NO_DATA: [[residual(110, 6.8, warmup="iterations"), residual(110, 6.6)]],
    },
    "T6": {
        REPRODUCED: [residual_nets()],
        NOT_REPRODUCED: [residual_nets(d56=8.0)],
        OPEN: [residual_nets(d56=6.4)],
        NO_DATA: [residual_nets()[1:]],
    },
    "B1": {
        REPRODUCED: [[residual(20, 8.3, block="bn-after-add"), residual(20, 8.2)]],
        NOT_REPRODUCED: [[residual(20, 9.3, block="bn-after-add"), residual(20, 8.2)]],
        NO_DATA: [[residual(20, 8.3, block="relu-before-add"), residual(20, 8.2)]],
    },
    "B2": {
        REPRODUCED: [[residual(110, 8.2, block="bn-after-add"), residual(110, 6.6)]],
        NOT_REPRODUCED: [[residual(110, 6.5, block="bn-after-add"), residual(110, 6.6)]],
        OPEN: [[residual(110, 7.3, block="bn-after-add", spread=1.0), residual(110, 6.6)]],
        NO_DATA: [[residual(110, 8.2, block="bn-after-add")]],
    },
    "B3": {
        REPRODUCED: [[residual(32, 9.1, block="bn-after-add"), residual(32, 7.5)]],
        NOT_REPRODUCED: [
            [residual(32, 7.9, block="bn-after-add"), residual(32, 7.5)],
            [residual(32, 10.5, block="bn-after-add"), residual(32, 7.5)],
        ],
        NO_DATA: [[residual(32, 7.5)]],
    },
    "B4": {
        REPRODUCED: [
            blocks(full=6.4, original=6.6, relu_only=6.7, relu_before=7.8, bn_after=8.2),
            blocks(full=6.8, original=6.6, relu_only=6.5, relu_before=7.8, bn_after=7.7),  # near ones may change places
        ],
        NOT_REPRODUCED: [blocks(full=6.4, original=6.6, relu_only=8.5, relu_before=7.8, bn_after=8.2)],
        NO_DATA: [blocks(full=6.4, original=6.6, relu_only=6.7, relu_before=7.8)],
    },
    "B5": {
        REPRODUCED: [blocks(full=6.0, original=6.6)],
        NOT_REPRODUCED: [
            blocks(full=7.2, original=6.6),
            [residual(110, 6.6, block="full-preactivation", spread=0.03), residual(110, 6.6, spread=0.03)],
        ],
        OPEN: [[residual(110, 6.4, block="full-preactivation", spread=0.3), residual(110, 6.6)]],
        NO_DATA: [blocks(full=6.3)],
    },
    "A1": {
        REPRODUCED: [without_augmentation(39.0, 12.5)],
        NOT_REPRODUCED: [without_augmentation(16.0, 12.5), without_augmentation(10.0, 12.5)],
        NO_DATA: [without_augmentation(39.0, 12.5)[:1]],
    },
    "A2": {
        REPRODUCED: [without_augmentation(39.0, 12.5)],
        NOT_REPRODUCED: [
            without_augmentation(39.0, 12.5, adam_train=1.0),
            without_augmentation(39.0, 12.5, sgd_train=5.0),
        ],
        NO_DATA: [without_augmentation(39.0, 12.5)[1:]],
    },
    "A3": {
        REPRODUCED: [[residual(32, 9.9), residual(44, 9.1)]],
        NOT_REPRODUCED: [[residual(32, 7.5), residual(44, 7.2)], [residual(32, 9.9), residual(44, 7.2)]],
        NO_DATA: [[residual(32, 9.9)]],
    },
    "A4": {
        REPRODUCED: [[residual(20, 9.0, optimizer="adamw", lr=0.01), residual(20, 8.2)]],
        NOT_REPRODUCED: [
            [residual(20, 8.0, optimizer="adamw"), residual(20, 9.0, optimizer="adamw", lr=0.01), residual(20, 8.2)],
        ],
        NO_DATA: [[residual(20, 9.0, optimizer="adam"), residual(20, 8.2)]],
    },
    "A5": {
        REPRODUCED: [adams(9.2, 8.0, 14.5)],
        NOT_REPRODUCED: [adams(9.2, 8.0, 12.0)],
        NO_DATA: [adams(9.2, 8.0, 14.5)[2:]],
    },
    "W1": {
        REPRODUCED: [[residual(32, 7.5), (RESNET18, {"error": 7.1})]],
        NOT_REPRODUCED: [[residual(32, 7.5), (RESNET18, {"error": 5.0})]],
        OPEN: [[residual(32, 7.5), (RESNET18, {"error": 6.5})]],
        NO_DATA: [[residual(32, 7.5)]],
    },
    "W2": {
        REPRODUCED: [[(RESNET18, {"error": 8.9}), (RESNET18_BY_THE_PAPER, {"error": 9.1})]],
        NOT_REPRODUCED: [[(RESNET18, {"error": 5.0}), (RESNET18_BY_THE_PAPER, {"error": 6.0})]],
        NO_DATA: [[(RESNET18, {"error": 5.0})]],
    },
    "M1": {
        REPRODUCED: [[(LENET, {"error": 2.6})]],
        NOT_REPRODUCED: [[(LENET, {"error": 1.5})]],
        OPEN: [[(LENET, {"error": 2.2})]],
        NO_DATA: [[(replace(LENET, lr=1e-3), {"error": 2.6})]],
    },
}
JITTER = ((-0.1, 0.0, 0.1), (0.1, -0.1, 0.0))
"""Of the seeds, in two kinds of cells."""


def write_cells(records, scenario: Cells, seeds: int = 3):
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
    write_cells(tmp_path, scenario)
    judged = judge(name, load_records(tmp_path)[0])
    assert judged.verdict == verdict, judged.numbers
    assert judged.words == verdict and "fp32" in judged.numbers
    tested = verdict != NO_DATA and name not in ("T6", "B4", "M1")  # these rest on no test
    assert (judged.p is not None) == tested
    if verdict == REPRODUCED and tested:
        assert judged.p is not None and judged.p < 0.05


ALONE: dict[str, str] = dict.fromkeys(SCENARIOS, POINTS_TO) | dict.fromkeys(
    # Where the published spread of one run leaves no room, or of layer responses and wide nets none is published.
    ["C4", "C6", "C7", "C8", "B1", "B3", "B5", "A2", "A5", "W1", "W2"], OPEN
)  # fmt: skip
"""What the runs of a reproduced claim say when there is one of each cell."""
AGAINST = {"C1": 1, "C5": 0, "A1": 1, "A3": 0}
"""Of some claims, the scenario of NOT_REPRODUCED that one run of each cell is enough for."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_single_runs_only_point(tmp_path, name):
    write_cells(tmp_path, SCENARIOS[name][REPRODUCED][0], seeds=1)
    runs, _ = load_records(tmp_path)
    judged = judge(name, runs)
    assert (judged.verdict, judged.p) == (ALONE[name], None), judged.numbers
    spread = "" if name in ("C6", "C7", "W1", "W2", "M1") else ", spread as published"  # there is none of these
    assert judged.words == f"{ALONE[name]} (one seed)" and f"[fp32; one seed{spread}]" in judged.numbers
    write_cells(tmp_path / "two", SCENARIOS[name][REPRODUCED][0], seeds=2)
    two = judge(name, load_records(tmp_path / "two")[0])
    assert two.verdict in (POINTS_TO, OPEN) and two.words.endswith("(two seeds)")


@pytest.mark.parametrize("name", AGAINST)
def test_single_runs_can_point_against_a_claim(tmp_path, name):
    write_cells(tmp_path, SCENARIOS[name][NOT_REPRODUCED][AGAINST[name]], seeds=1)
    assert judge(name, load_records(tmp_path)[0]).words == f"{POINTS_AGAINST} (one seed)"


def test_one_cell_of_few_runs_makes_the_verdict_one_of_few(tmp_path):
    write_cells(tmp_path, SCENARIOS["B2"][REPRODUCED][0])
    runs, _ = load_records(tmp_path)
    assert judge("B2", runs).verdict == REPRODUCED
    assert judge("B2", runs[(runs["block"] == "original") | (runs["seed"] == 0)]).words == f"{POINTS_TO} (one seed)"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_verdict_refuses_runs_of_another_length_or_data(tmp_path, name):
    write_cells(tmp_path, SCENARIOS[name][REPRODUCED][0])
    runs, _ = load_records(tmp_path)
    for change in ({"iterations": 32_000}, {"split": "val"}, {"dataset": "synthetic"}, {"status": "unfinished"}):
        assert judge(name, runs.assign(**change)).verdict == NO_DATA, change


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_verdict_is_in_one_precision_whichever(tmp_path, name):
    write_cells(tmp_path, SCENARIOS[name][REPRODUCED][0])
    runs, _ = load_records(tmp_path)
    runs["precision"] = "bf16"
    judged = judge(name, runs)
    assert judged.verdict == REPRODUCED and "[bf16]" in judged.numbers
    runs.loc[runs["seed"] == 0, "precision"] = "tf32"
    judged = judge(name, runs)
    assert judged.words.endswith("(two seeds)") and "[bf16; two seeds" in judged.numbers


def test_a_diverged_warm_up_is_no_convergence(tmp_path):
    write_cells(tmp_path, SCENARIOS["C4"][REPRODUCED][0])
    write_run(tmp_path, Config(depth=110, seed=3), status="diverged")
    judged = judge("C4", load_records(tmp_path)[0])
    assert judged.verdict == NOT_REPRODUCED and "residual110 1 of 4 diverged [fp32]" in judged.numbers
    assert judged.p is None, "what the other runs say is no evidence for the claim"


@pytest.mark.parametrize(("name", "warmup"), [("C4", "error"), ("C8", "none")])
@pytest.mark.parametrize(("seeds", "words"), [(1, f"{POINTS_AGAINST} (one seed)"), (3, NOT_REPRODUCED)])
def test_runs_that_all_diverge_are_data(tmp_path, name, warmup, seeds, words):
    for seed in range(seeds):
        write_run(tmp_path, Config(depth=110, warmup=warmup, precision="bf16", seed=seed), status="diverged")
    if name == "C8":
        assert judge(name, load_records(tmp_path)[0]).verdict == NO_DATA, "of the warm-up there is none yet"
        write_cells(tmp_path, [residual(110, 6.6, precision="bf16")])
    judged = judge(name, load_records(tmp_path)[0])
    assert judged.words == words and f"{seeds} of {seeds} diverged" in judged.numbers


def test_all_nets_of_a_claim_have_one_kind_of_spread(tmp_path):
    write_cells(tmp_path, SCENARIOS["A5"][REPRODUCED][0])
    runs, _ = load_records(tmp_path)
    numbers = judge("A5", runs[(runs["depth"] == 20) | (runs["seed"] == 0)]).numbers
    assert numbers.count("one seed, spread as published") == 3
    gap = re.search(r"residual20 \(adam\) - SGD \+[\d.]+ \(\+([\d.]+) to \+([\d.]+)\)", numbers)
    assert gap, numbers
    half = 1.96 * find_spread(Config()) * (2 / 3) ** 0.5  # three runs of each there
    assert (float(gap[2]) - float(gap[1])) / 2 == pytest.approx(half, abs=0.01)


def test_the_numbers_behind_a_verdict(tmp_path):
    write_cells(tmp_path, SCENARIOS["B2"][REPRODUCED][0])
    numbers = judge("B2", load_records(tmp_path)[0]).numbers
    # Both cells have a std of 0.1: a standard error of 0.1 sqrt(2/3), 4 degrees of freedom, t = 2.776.
    assert "residual110 (bn-after-add) 8.20 ± 0.10 (n=3), residual110 6.60 ± 0.10 (n=3)" in numbers
    assert "after - before +1.60 (+1.37 to +1.83)" in numbers


def test_claims_are_adjusted_for_each_other(tmp_path):
    write_cells(tmp_path, SCENARIOS["B2"][REPRODUCED][0])
    verdict = judge("B2", load_records(tmp_path)[0])
    assert f"{REPRODUCED} (p {verdict.p:.2g})" in format_claims([verdict])
    weak = [replace(verdict, name=f"B{i}", p=0.04) for i in (2, 3)]
    assert format_claims(weak).count("| open (p 0.08) |") == 2, "twice 0.04 is no longer below 0.05"


def test_every_claim_has_its_rule_and_its_scenarios(tmp_path):
    verdicts, of_transfer = judge_all(load_records(tmp_path)[0]), ["P1", "P2", "P3"]  # in tests/test_transfer.py
    assert [verdict.name for verdict in verdicts] == [*SCENARIOS, *of_transfer]
    assert all(verdict.claim and verdict.rule and verdict.verdict == NO_DATA for verdict in verdicts)
    assert count_verdicts(verdicts).endswith(f"{len(SCENARIOS) + 3} no data")


def test_numbers_quoted_in_a_claim_are_published(tmp_path):
    published = set(load_paper()["value"]) | set(load_paper()["upto"])
    for verdict in judge_all(load_records(tmp_path)[0]):
        for number in re.findall(r"\d+\.\d+", verdict.claim):
            assert float(number) in published or (verdict.name in ("A1", "A2") and number == "0.001"), verdict.claim


@pytest.mark.parametrize("name", ["C6", "A5"])
def test_a_claim_of_several_nets_is_in_one_precision_throughout(tmp_path, name):
    write_cells(tmp_path, SCENARIOS[name][REPRODUCED][0])
    runs, _ = load_records(tmp_path)
    runs.loc[runs["depth"] == 20, "precision"] = "bf16"
    assert judge(name, runs).verdict == NO_DATA


def test_runs_without_responses_are_no_data_for_claims_on_them(tmp_path):
    write_cells(tmp_path, SCENARIOS["C6"][REPRODUCED][0])
    runs, _ = load_records(tmp_path)
    runs["responses"] = [None if depth == 56 else std for depth, std in zip(runs["depth"], runs["responses"], strict=True)]
    assert judge("C6", runs).verdict == NO_DATA
