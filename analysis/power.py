"""Simulate how often the rules of claims err.

    python analysis/power.py

Writes analysis/tables/error_rates.csv, which docs/statistics.md shows (about two minutes).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from scipy import optimize, stats

from analysis.claims import TOLERANCE
from analysis.estimates import (
    CONFIDENCE,
    MINIMUM,
    Estimate,
    Finding,
    Interval,
    all_of,
    combine,
    holm_adjust,
    is_equivalent,
    is_positive,
    matches_published,
    prediction,
)
from reproduce.cli import parse_args, run_cli

RATES = Path(__file__).parent / "tables" / "error_rates.csv"
TRIALS = 2000
SETTINGS = ((1, 0.2, 0.2), (1, 0.5, 0.5), (1, 0.5, 0.2), (3, 0.2, 0.2), (3, 0.5, 0.5), (5, 0.2, 0.2), (5, 0.5, 0.5))
"""Number of seeds, true standard deviation of a run, and published one, which the rules use for one seed."""

Means = Sequence[Estimate]


@dataclass(frozen=True)
class Rule:
    """A rule, with mean errors for which the claim is true and for which it is false.

    judge: takes the means of our runs and the published numbers. paper: mean errors of the published numbers, which are single
    runs with the same standard deviation.
    """

    claim: str
    true: Sequence[float]
    false: Sequence[float]
    judge: Callable[[Means, Sequence[float]], Finding]
    paper: Sequence[float] = ()


def subtract(first: Estimate, second: Estimate) -> Interval:
    return combine([first, second], [1, -1])


def judge_differences(means: Means, claimed: float = 0.0) -> Finding:
    """Test that the first of each pair of configurations is worse than the second."""
    pairs = zip(means[::2], means[1::2], strict=True)
    return all_of(*(is_positive(subtract(worse, better), claimed) for worse, better in pairs))


def judge_order(means: Means) -> Finding:
    """Test that the error rises at each step."""
    return all_of(*(is_positive(subtract(after, before)) for before, after in pairwise(means)))


def judge_gain_of_bn(means: Means, _: Sequence[float]) -> Finding:
    gap = subtract(*means)
    return all_of(is_positive(gap, TOLERANCE), is_equivalent(gap - 1.5, TOLERANCE))


def judge_numbers(means: Means, numbers: Sequence[float]) -> Finding:
    pairs = zip(means, numbers, strict=True)
    return all_of(*(matches_published(prediction(mean) - number, TOLERANCE) for mean, number in pairs))


def judge_plain(means: Means, _: Sequence[float]) -> Finding:
    return all_of(judge_order(means[:4]), is_positive(subtract(means[7], means[4])))


def judge_residual(means: Means, _: Sequence[float]) -> Finding:
    return all_of(is_positive(subtract(means[0], means[1])), is_positive(subtract(means[1], means[3])))


def judge_gaps(means: Means, _: Sequence[float]) -> Finding:
    gaps = [is_positive(subtract(plain, residual)) for plain, residual in zip(means[:4], means[4:], strict=True)]
    return all_of(*gaps, is_positive(combine([means[0], means[4], means[3], means[7]], [-1, 1, 1, -1])))


def judge_blocks(means: Means, _: Sequence[float]) -> Finding:
    pairs = [(i, j) for i, j in combinations(range(5), 2) if BLOCKS[j] - BLOCKS[i] >= TOLERANCE]
    return all_of(*(is_positive(subtract(means[j], means[i])) for i, j in pairs))


def list_ps(means: Means) -> list[float]:
    return [subtract(first, second).p for first, second in zip(means[::2], means[1::2], strict=True)]


def any_below(ps: Sequence[float]) -> Finding:
    return Finding(any(p < 1 - CONFIDENCE for p in ps))


BLOCKS = (6.37, 6.61, 6.71, 7.84, 8.17)
"""Identity Mappings, Table 2."""
TABLE_6 = (8.75, 7.51, 7.17, 6.97)
WORSE_56 = (*TABLE_6[:3], TABLE_6[3] + 1)
PLAIN, PLAIN_TRAINING = (9.25, 10, 12, 13.25), (1.2, 1.4, 2.4, 5.2)
"""Approximate test and training errors of the plain networks."""
EVEN_GAPS = (*(error + 2 for error in TABLE_6), *TABLE_6)
HALFWAY = 8.0
RULES = [
    Rule("a difference, as W56 (1 point; none)", (9, 8), (8, 8), lambda m, _: judge_differences(m)),
    Rule("a difference of 0.5 or more, as B2 (1 point; none)", (9, 8), (8, 8), lambda m, _: judge_differences(m, TOLERANCE)),
    Rule(
        "three such differences, as A5 (all 1 point; one none)",
        (9, 8) * 3,
        (9, 8, 9, 8, 8, 8),
        lambda m, _: judge_differences(m, TOLERANCE),
    ),
    Rule("equality, as B1 (equal; 1 point apart)", (8, 8), (9, 8), lambda m, _: is_equivalent(subtract(*m), TOLERANCE)),
    Rule("a given difference, as B3 (1.5 points; none)", (9.5, 8), (8, 8), judge_gain_of_bn),
    Rule(
        "two errors above a number, as A3 (by 1 point; one below it)",
        (9, 9),
        (9, 7),
        lambda m, _: all_of(*(is_positive(combine([mean], [1]) - HALFWAY) for mean in m)),
    ),
    Rule("T: one published number (equal; 1 point apart)", (8,), (9,), judge_numbers, (8,)),
    Rule("T: any of four numbers (all equal; one 1 point apart)", TABLE_6, WORSE_56, judge_numbers, TABLE_6),
    Rule("an ordering of three, as C7 (1 point apart; equal)", (7, 8, 9), (8, 8, 8), lambda m, _: judge_order(m)),
    Rule("C1 (Fig. 6; all equal)", (*PLAIN, *PLAIN_TRAINING), (10,) * 4 + (2,) * 4, judge_plain),
    Rule("C2 (Table 6; equal from 32 layers on)", TABLE_6, (8.75, *(7.51,) * 3), judge_residual),
    Rule("C3 (Fig. 6 and Table 6; every gap 2 points)", (*PLAIN, *TABLE_6), EVEN_GAPS, judge_gaps),
    Rule("B4 (as published; all equal)", BLOCKS, (7,) * 5, judge_blocks),
    Rule("any of ten differences (one 1 point; none)", (9, *(8,) * 19), (8,) * 20, lambda m, _: any_below(list_ps(m))),
    Rule(
        "any of ten differences, Holm (one 1 point; none)",
        (9, *(8,) * 19),
        (8,) * 20,
        lambda m, _: any_below(holm_adjust(list_ps(m))),
    ),
]


def simulate(rule: Rule, errors: Sequence[float], seeds: int, std: float, published: float, trials: int) -> list[bool | None]:
    """Return the verdict of each trial for networks with these mean errors."""
    generator = np.random.default_rng([seeds, round(10 * std), round(10 * published)])
    runs = generator.normal(np.array(errors)[:, None], std, (trials, len(errors), seeds))
    numbers = generator.normal(np.array(rule.paper), std, (trials, len(rule.paper)))
    known = seeds < MINIMUM
    means, stds = runs.mean(2), np.full(runs.shape[:2], published) if known else runs.std(2, ddof=1)
    return [
        rule.judge([Estimate(seeds, *pair, known) for pair in zip(*trial, strict=True)], number).holds
        for trial, number in zip(zip(means.tolist(), stds.tolist(), strict=True), numbers.tolist(), strict=True)
    ]


def measure_rates(trials: int = TRIALS) -> pd.DataFrame:
    """Return the shares of right, inconclusive and wrong verdicts in %, a row per rule and setting."""
    rows = []
    for rule in RULES:
        for seeds, std, published in SETTINGS:
            row = {"rule": rule.claim, "seeds": seeds, "std": std, "published_std": published}
            for truth, errors in ((True, rule.true), (False, rule.false)):
                found = simulate(rule, errors, seeds, std, published, trials)
                for share, verdict in (("right", truth), ("inconclusive", None), ("wrong", not truth)):
                    row[f"{share}, {str(truth).lower()}"] = round(100 * found.count(verdict) / trials, 2)
            rows.append(row)
    return pd.DataFrame(rows)


def find_smallest_difference(seeds: int, std: float, power: float = 0.8) -> float:
    """Return the true difference of two networks at which their interval lies above zero with probability `power`."""
    degrees, error = 2 * seeds - 2, std * math.sqrt(2 / seeds)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, degrees)
    return float(optimize.brentq(lambda d: stats.nct.sf(quantile, degrees, d / error) - power, 0, 20 * std))  # pyright: ignore


def main(arguments: Sequence[str]) -> int:
    rates = parse_args(measure_rates, arguments, "power.py", __doc__)
    rates.to_csv(RATES, index=False)
    print(RATES)
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
