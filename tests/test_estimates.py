"""Statistics against numbers worked out by hand, and every claim's verdict in each direction."""

import math
import re
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import questions, sample  # noqa: F401 - the questions register their claims
from analysis.claims import CLAIMS, NOT_ENOUGH, NOT_REPRODUCED, REPRODUCED, judge, judge_all
from analysis.estimates import (
    Estimate,
    all_of,
    clearly_positive,
    differences,
    estimate,
    grows,
    pair,
    signed,
    similar,
)
from analysis.paper import load_paper
from analysis.records import load
from analysis.sample import NotEnoughRuns, Sample, admitted, is_neutral
from reproduce.config import Block, Config
from tests.fake_records import write_cell, write_run

# Statistics -----------------------------------------------------------------------------------------------------------


def test_an_estimate_by_hand():
    # Student's t with 2 degrees of freedom leaves 2.5% above 4.302653; the standard error is 0.5 / sqrt(3).
    half = 4.302653 * 0.5 / math.sqrt(3)
    three = estimate([9.0, 8.0, 8.5])
    assert (three.n, three.mean, three.std, three.median, three.best) == (3, 8.5, 0.5, 8.5, 8.0)
    assert three.low == pytest.approx(8.5 - half, abs=1e-6) and three.high == pytest.approx(8.5 + half, abs=1e-6)
    assert str(three) == "8.50 ± 0.50 (n=3)" and three.interval == "7.26 to 9.74"


def test_the_mean_and_std_of_the_paper_have_its_form():
    assert str(estimate([6.43, 6.61, 6.61, 6.61, 6.8])) == "6.61 ± 0.13 (n=5)"


def test_one_run_has_no_spread_and_none_has_nothing():
    one, none = estimate([8.0]), estimate([])
    assert (one.n, one.mean, one.median, one.best) == (1, 8, 8, 8) and math.isnan(one.std) and math.isnan(one.low)
    assert str(one) == "8.00 (n=1)" and one.interval == "-"
    assert none.n == 0 and math.isnan(none.mean) and str(none) == "-" and signed(none) == "-"


def test_a_missing_value_is_not_swallowed():
    with pytest.raises(ValueError):
        estimate([8.0, math.nan])


@given(st.lists(st.floats(0, 100), min_size=2, max_size=8), st.floats(-50, 50))
def test_an_estimate_shifts_with_its_sample(sample, number):
    before, after = estimate(sample), estimate(value - number for value in sample)
    assert before.low <= before.mean + 1e-9 and before.mean <= before.high + 1e-9
    for name in ("mean", "std", "low", "high", "median", "best"):
        assert getattr(before - number, name) == pytest.approx(getattr(after, name), abs=1e-6)


def make_cell(errors: dict[int, float]) -> pd.DataFrame:
    return pd.DataFrame({"seed": list(errors), "test_error": list(errors.values())})


def test_differences_are_taken_within_seeds():
    first, second = make_cell({0: 9.0, 2: 7.0, 1: 8.0, 7: 1.0}), make_cell({2: 6.8, 1: 7.7, 0: 8.6, 5: 99.0})
    assert differences(first, second).to_dict() == pytest.approx({0: 0.4, 1: 0.3, 2: 0.2})
    gap = pair(first, second)
    assert gap.n == 3 and gap.mean == pytest.approx(0.3) and gap.std == pytest.approx(0.1)
    # The cells spread by a point, the differences by a tenth: within seeds the gap is clear.
    assert signed(gap) == "+0.30 (+0.05 to +0.55, n=3)" and gap.low > 0


def make_difference(low: float, high: float) -> Estimate:
    return Estimate(3, (low + high) / 2, 1.0, low, high, 0.0, 0.0)


@pytest.mark.parametrize(
    "low, high, clear, clear_by_half, growing, near_zero",
    [
        (0.1, 0.3, True, True, True, True),
        (-0.1, 0.3, None, False, True, True),
        (-0.1, 0.9, None, None, True, True),
        (-0.9, 0.1, None, False, None, True),
        (-0.3, -0.1, False, False, False, True),
        (0.6, 0.8, True, True, True, False),
        (0.4, 0.8, True, True, True, None),
        (-1.1, 0.0, None, False, None, None),
        (-0.9, -0.6, False, False, False, False),
    ],
)
def test_what_an_interval_says(low, high, clear, clear_by_half, growing, near_zero):
    difference = make_difference(low, high)
    assert clearly_positive(difference) is clear and clearly_positive(difference, 0.5) is clear_by_half
    assert grows(difference) is growing and similar(difference, 0.5) is near_zero


def test_a_rule_of_several_parts():
    assert all_of(True, True) is True and all_of() is True
    assert all_of(True, None) is None and all_of(None, False, True) is False


# Samples --------------------------------------------------------------------------------------------------------------


def write_precisions(folder, effects: dict[int, list[float]], precision: str = "bf16"):
    """Cells in fp32 at 8.0, 8.1, ... and in a lower precision above them by these effects."""
    for depth, cell in effects.items():
        full = [8.0 + 0.1 * seed for seed in range(len(cell))]
        write_cell(folder, Config(depth=depth), full)
        lower = [error + effect for error, effect in zip(full, cell, strict=True)]
        write_cell(folder, replace(Config(depth=depth), precision=precision), lower)


@pytest.mark.parametrize(
    ("effects", "neutral"),
    [
        ({20: [0.1, -0.1, 0.1], 56: [0.1, -0.1, 0.1]}, True),
        # of s, -s, s the mean is s/3 and the std 1.155 s; t with 2 degrees of freedom is 4.303: the interval ends at 3.20 s
        ({20: [0.15, -0.15, 0.15], 56: [0.15, -0.15, 0.15]}, True),
        ({20: [0.16, -0.16, 0.16], 56: [0.16, -0.16, 0.16]}, None),
        ({20: [1.0, 1.1, 0.9], 56: [-1.0, -1.1, -0.9]}, None),
        ({20: [0.0] * 20, 56: [1.0, 1.01, 0.99]}, None),
        ({20: [1.0, 1.1, 0.9], 56: [1.0, 1.1, 0.9]}, False),
        ({20: [-1.0, -1.1, -0.9], 56: [-1.0, -1.1, -0.9]}, False),
        ({20: [0.0, 0.1, 0.0, 0.1], 56: [0.0, 0.1]}, None),
        ({20: [0.0, 0.1, 0.0]}, None),
    ],
)
def test_a_precision_is_neutral_when_the_interval_of_its_effect_is_small(tmp_path, effects, neutral):
    write_precisions(tmp_path, effects)
    runs = load(tmp_path)[0]
    assert is_neutral(runs, "bf16") is neutral
    assert is_neutral(runs, "fp32") is True and is_neutral(runs, "tf32") is None
    assert set(admitted(runs)["precision"]) == ({"fp32", "bf16"} if neutral else {"fp32"})


def test_a_precision_in_which_a_run_diverges_that_does_not_in_fp32_is_not_neutral(tmp_path):
    write_precisions(tmp_path, {20: [0.0, 0.1, 0.0], 56: [0.0, 0.1, 0.0]})
    write_run(tmp_path, Config(depth=56, seed=3, precision="bf16"), status="diverged")
    assert is_neutral(load(tmp_path)[0], "bf16") is True
    write_run(tmp_path, Config(depth=56, seed=3))
    assert is_neutral(load(tmp_path)[0], "bf16") is False


def test_a_sample_takes_three_seeds_in_one_precision(tmp_path):
    write_cell(tmp_path, Config(), [8.0, 8.2])
    write_run(tmp_path, Config(seed=2, precision="bf16"), 8.1)
    with pytest.raises(NotEnoughRuns, match=r"residual20 n=2 \[fp32\]"):
        Sample(load(tmp_path)[0], Config())
    write_run(tmp_path, Config(seed=2), 8.4)
    sample = Sample(load(tmp_path)[0], Config())
    assert sample.means()[0].mean == pytest.approx(8.2) and sample.note == " [fp32]"


def test_a_sample_counts_what_failed(tmp_path):
    write_cell(tmp_path, Config(depth=110), [6.5, 6.6, 6.7])
    write_run(tmp_path, Config(depth=110, seed=3), status="diverged")
    write_run(tmp_path, Config(depth=110, seed=4), 90.0, train_error=90.0)
    write_run(tmp_path, Config(depth=110, seed=5), status="unfinished")
    sample = Sample(load(tmp_path)[0], Config(depth=110))
    assert sample.means()[0].n == 4 and sample.note == " [fp32; 1 diverged and in no mean; 1 stuck and in the means]"


def test_two_cells_need_three_seeds_in_common(tmp_path):
    write_cell(tmp_path, Config(), [8.0, 8.1, 8.2])
    for seed in (1, 2, 3):
        write_run(tmp_path, Config(depth=32, seed=seed), 7.0)
    sample = Sample(load(tmp_path)[0], Config(), Config(depth=32))
    with pytest.raises(NotEnoughRuns, match="there are 2"):
        sample.difference(0, 1)


# Claims ---------------------------------------------------------------------------------------------------------------

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
        NOT_ENOUGH: [plain_nets()[:3]],
    },
    "C2": {
        REPRODUCED: [residual_nets()],
        NOT_REPRODUCED: [residual_nets(d110=8.0), residual_nets(d44=8.3)],
        NOT_ENOUGH: [residual_nets()[:4]],
    },
    "C3": {
        REPRODUCED: [plain_nets() + residual_nets()],
        NOT_REPRODUCED: [
            plain_nets() + residual_nets(d20=9.3),
            plain_nets(d56=(8.0, 6.0)) + residual_nets(),
        ],
        NOT_ENOUGH: [plain_nets()],
    },
    "C4": {
        REPRODUCED: [[residual(110, 6.6)]],
        NOT_REPRODUCED: [[residual(110, 8.0)], [residual(110, 6.6, train_error=85.0)]],
        NOT_ENOUGH: [[residual(110, 6.6, warmup="none")], [residual(110, 7.3, spread=0.5)]],
    },
    "C5": {
        REPRODUCED: [[residual(1202, 7.9, train_error=0.05), residual(110, 6.6)]],
        NOT_REPRODUCED: [
            [residual(1202, 6.2, train_error=0.05), residual(110, 6.6)],
            [residual(1202, 7.9, train_error=0.2), residual(110, 6.6)],
        ],
        NOT_ENOUGH: [[residual(110, 6.6)]],
    },
    "C6": {
        REPRODUCED: [responses(1.0, 0.5)],
        NOT_REPRODUCED: [responses(0.5, 1.0), responses(1.0, 0.5, residual_56=1.5)],
        NOT_ENOUGH: [responses(1.0, 0.5)[:3]],
    },
    "C7": {
        REPRODUCED: [ranked_responses(1.0, 0.8, 0.5)],
        NOT_REPRODUCED: [ranked_responses(0.5, 0.8, 1.0), ranked_responses(1.0, 0.4, 0.5)],
        NOT_ENOUGH: [ranked_responses(1.0, 0.8, 0.5)[:2]],
    },
    "C8": {
        REPRODUCED: [[residual(110, 6.8, warmup="none"), residual(110, 6.6)]],
        NOT_REPRODUCED: [[residual(110, 7.8, warmup="none"), residual(110, 6.6)]],
        NOT_ENOUGH: [
            [residual(110, 6.8, warmup="iterations"), residual(110, 6.6)],
            [residual(110, 7.3, warmup="none", spread=0.6), residual(110, 6.6)],
        ],
    },
    "T6": {
        REPRODUCED: [residual_nets()],
        NOT_REPRODUCED: [residual_nets(d56=8.0)],
        NOT_ENOUGH: [residual_nets()[1:]],
    },
    "B1": {
        REPRODUCED: [[residual(20, 8.3, block="bn-after-add"), residual(20, 8.2)]],
        NOT_REPRODUCED: [[residual(20, 9.3, block="bn-after-add"), residual(20, 8.2)]],
        NOT_ENOUGH: [[residual(20, 8.3, block="relu-before-add"), residual(20, 8.2)]],
    },
    "B2": {
        REPRODUCED: [[residual(110, 8.2, block="bn-after-add"), residual(110, 6.6)]],
        NOT_REPRODUCED: [[residual(110, 6.5, block="bn-after-add"), residual(110, 6.6)]],
        NOT_ENOUGH: [
            [residual(110, 8.2, block="bn-after-add")],
            [residual(110, 7.3, block="bn-after-add", spread=1.0), residual(110, 6.6)],
        ],
    },
    "B3": {
        REPRODUCED: [[residual(32, 9.1, block="bn-after-add"), residual(32, 7.5)]],
        NOT_REPRODUCED: [
            [residual(32, 7.9, block="bn-after-add"), residual(32, 7.5)],
            [residual(32, 10.5, block="bn-after-add"), residual(32, 7.5)],
        ],
        NOT_ENOUGH: [[residual(32, 7.5)]],
    },
    "B4": {
        REPRODUCED: [
            blocks(full=6.4, original=6.6, relu_only=6.7, relu_before=7.8, bn_after=8.2),
            blocks(full=6.8, original=6.6, relu_only=6.5, relu_before=7.8, bn_after=7.7),  # near ones may change places
        ],
        NOT_REPRODUCED: [blocks(full=6.4, original=6.6, relu_only=8.5, relu_before=7.8, bn_after=8.2)],
        NOT_ENOUGH: [blocks(full=6.4, original=6.6, relu_only=6.7, relu_before=7.8)],
    },
    "B5": {
        REPRODUCED: [blocks(full=6.0, original=6.6)],
        NOT_REPRODUCED: [
            blocks(full=7.2, original=6.6),
            [residual(110, 6.6, block="full-preactivation", spread=0.03), residual(110, 6.6, spread=0.03)],
        ],
        NOT_ENOUGH: [
            blocks(full=6.3),
            [residual(110, 6.4, block="full-preactivation", spread=0.3), residual(110, 6.6)],
        ],
    },
    "A1": {
        REPRODUCED: [without_augmentation(39.0, 12.5)],
        NOT_REPRODUCED: [without_augmentation(16.0, 12.5), without_augmentation(10.0, 12.5)],
        NOT_ENOUGH: [without_augmentation(39.0, 12.5)[:1]],
    },
    "A2": {
        REPRODUCED: [without_augmentation(39.0, 12.5)],
        NOT_REPRODUCED: [
            without_augmentation(39.0, 12.5, adam_train=1.0),
            without_augmentation(39.0, 12.5, sgd_train=5.0),
        ],
        NOT_ENOUGH: [without_augmentation(39.0, 12.5)[1:]],
    },
    "A3": {
        REPRODUCED: [[residual(32, 9.9), residual(44, 9.1)]],
        NOT_REPRODUCED: [[residual(32, 7.5), residual(44, 7.2)], [residual(32, 9.9), residual(44, 7.2)]],
        NOT_ENOUGH: [[residual(32, 9.9)]],
    },
    "A4": {
        REPRODUCED: [[residual(20, 9.0, optimizer="adamw", lr=0.01), residual(20, 8.2)]],
        NOT_REPRODUCED: [
            [residual(20, 8.0, optimizer="adamw"), residual(20, 9.0, optimizer="adamw", lr=0.01), residual(20, 8.2)],
        ],
        NOT_ENOUGH: [[residual(20, 9.0, optimizer="adam"), residual(20, 8.2)]],
    },
    "A5": {
        REPRODUCED: [adams(9.2, 8.0, 14.5)],
        NOT_REPRODUCED: [adams(9.2, 8.0, 12.0)],
        NOT_ENOUGH: [adams(9.2, 8.0, 14.5)[2:]],
    },
}
JITTER = ((-0.1, 0.0, 0.1), (0.1, -0.1, 0.0))
"""Of the seeds, in two kinds of cells, so that paired differences spread as well."""


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
def test_verdicts(tmp_path, name, verdict, scenario):
    write_cells(tmp_path, scenario)
    judged = judge(name, load(tmp_path)[0])
    assert judged.verdict == verdict, judged.numbers
    assert "fp32" in judged.numbers or "n=0" in judged.numbers or "there are 0" in judged.numbers


@pytest.mark.parametrize("name", CLAIMS)
def test_a_verdict_refuses_runs_of_another_length_or_data(tmp_path, name):
    write_cells(tmp_path, SCENARIOS[name][REPRODUCED][0])
    runs, _ = load(tmp_path)
    assert judge(name, runs).verdict == REPRODUCED
    for change in ({"iterations": 32_000}, {"split": "val"}, {"dataset": "synthetic"}, {"status": "unfinished"}):
        assert judge(name, runs.assign(**change)).verdict == NOT_ENOUGH, change


@pytest.mark.parametrize("name", CLAIMS)
def test_a_verdict_takes_three_seeds(tmp_path, name):
    write_cells(tmp_path, SCENARIOS[name][REPRODUCED][0], seeds=2)
    assert judge(name, load(tmp_path)[0]).verdict == NOT_ENOUGH


@pytest.mark.parametrize("name", CLAIMS)
def test_a_verdict_is_in_one_precision_that_is_neutral(tmp_path, name, monkeypatch):
    write_cells(tmp_path, SCENARIOS[name][REPRODUCED][0])
    runs, _ = load(tmp_path)
    runs["precision"] = "bf16"
    judged = judge(name, runs)
    assert judged.verdict == NOT_ENOUGH
    assert "bf16 is not shown to be neutral" in judged.numbers or name in ("A4", "A5"), "they look for a setting first"
    monkeypatch.setattr(sample, "is_neutral", lambda runs, precision: True)
    judged = judge(name, runs)
    assert judged.verdict == REPRODUCED and "[bf16" in judged.numbers
    runs.loc[runs["seed"] == 0, "precision"] = "tf32"
    assert judge(name, runs).verdict == NOT_ENOUGH


def test_a_diverged_warm_up_is_no_convergence(tmp_path):
    write_cells(tmp_path, SCENARIOS["C4"][REPRODUCED][0])
    write_run(tmp_path, Config(depth=110, seed=3), status="diverged")
    judged = judge("C4", load(tmp_path)[0])
    assert judged.verdict == NOT_REPRODUCED and "1 diverged" in judged.numbers


def test_the_numbers_behind_a_verdict(tmp_path):
    write_cells(tmp_path, SCENARIOS["B2"][REPRODUCED][0])
    numbers = judge("B2", load(tmp_path)[0]).numbers
    # after: 8.1, 8.2, 8.3; before: 6.7, 6.5, 6.6; differences 1.4, 1.7, 1.7, whose std is 0.1732.
    assert "residual110 (bn-after-add) 8.20 ± 0.10 (n=3), residual110 6.60 ± 0.10 (n=3)" in numbers
    assert "after - before +1.60 (+1.17 to +2.03, n=3)" in numbers


def test_an_open_claim_says_so(tmp_path):
    write_cells(tmp_path, SCENARIOS["C8"][NOT_ENOUGH][1])
    assert judge("C8", load(tmp_path)[0]).numbers.endswith("[fp32]; the seeds leave it open")


def test_every_claim_has_its_rule_and_its_scenarios(tmp_path):
    assert set(SCENARIOS) == set(CLAIMS)
    verdicts = judge_all(load(tmp_path)[0])
    assert [verdict.name for verdict in verdicts] == list(SCENARIOS)
    assert all(verdict.claim and verdict.rule and verdict.verdict == NOT_ENOUGH for verdict in verdicts)


def test_numbers_quoted_in_a_claim_are_published(tmp_path):
    published = set(load_paper()["value"]) | set(load_paper()["upto"])
    for verdict in judge_all(load(tmp_path)[0]):
        for number in re.findall(r"\d+\.\d+", verdict.claim):
            assert float(number) in published or (verdict.name in ("A1", "A2") and number == "0.001"), verdict.claim
