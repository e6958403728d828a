"""Simulate how often the rules of claims err.

    python analysis/power.py

writes analysis/tables/error_rates.csv, which docs/statistics.md shows (about two minutes).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
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
"""Seeds, standard deviation of a run, and the published one, by which one seed is judged."""

Means = Sequence[Estimate]


@dataclass(frozen=True)
class Rule:
    """A rule, with mean errors for which the claim is true and for which it is false.

    version: of the rules; "2, 3" if unchanged. paper: mean errors of the published numbers, single runs with the same spread.
    """

    claim: str
    version: str
    true: Sequence[float]
    false: Sequence[float]
    judge: Callable[[Means, Sequence[float]], Finding]
    paper: Sequence[float] = ()


def difference(first: Estimate, second: Estimate) -> Interval:
    return combine([first, second], [1, -1])


def steps(means: Means) -> list[Interval]:
    return [difference(after, before) for before, after in pairwise(means)]


def rises_on_average(step: Interval) -> Finding:
    """Version 2 of a step of an ordering: the mean rises; refuted where the interval lies below zero."""
    return Finding(True if step.mean > 0 else False if step.high < 0 else None)


def met(mean: Estimate, number: float) -> Finding:
    """Version 2 of a published number; refuted where the interval of the mean lies beyond the tolerance."""
    distance = combine([mean], [1]) - number
    if abs(distance.mean) <= min(TOLERANCE, prediction(mean).half):
        return Finding(True)
    return Finding(False if distance.low > TOLERANCE or distance.high < -TOLERANCE else None)


def matches(mean: Estimate, number: float) -> Finding:
    return matches_published(prediction(mean) - number, TOLERANCE)


def is_worse(means: Means) -> Finding:
    pairs = zip(means[::2], means[1::2], strict=True)
    return all_of(*(is_positive(difference(worse, better), TOLERANCE) for worse, better in pairs))


def gain_of_bn(means: Means, _: Sequence[float]) -> Finding:
    gap = difference(*means)
    return all_of(is_positive(gap, TOLERANCE), is_equivalent(gap - 1.5, TOLERANCE))


def above_number(means: Means, _: Sequence[float]) -> Finding:
    return all_of(*(is_positive(combine([mean], [1]) - HALFWAY) for mean in means))


def plain_2(means: Means, _: Sequence[float]) -> Finding:
    columns = means[:4], means[4:]
    rising = [rises_on_average(step) for column in columns for step in steps(column)]
    return all_of(*rising, *(is_positive(difference(column[-1], column[0]), TOLERANCE) for column in columns))


def plain_3(means: Means, _: Sequence[float]) -> Finding:
    return all_of(*map(is_positive, steps(means[:4])), is_positive(difference(means[7], means[4])))


def residual_2(means: Means, _: Sequence[float]) -> Finding:
    ends = is_positive(difference(means[0], means[-1]), TOLERANCE)
    return all_of(*map(rises_on_average, steps(means[::-1])), ends)


def residual_3(means: Means, _: Sequence[float]) -> Finding:
    return all_of(is_positive(difference(means[0], means[1])), is_positive(difference(means[1], means[3])))


def gaps_2(means: Means, _: Sequence[float]) -> Finding:
    gaps = [is_positive(difference(plain, residual), TOLERANCE) for plain, residual in zip(means[:4], means[4:], strict=True)]
    growth = [combine([means[i], means[i + 4], means[i + 1], means[i + 5]], [-1, 1, 1, -1]) for i in range(3)]
    return all_of(*gaps, *map(rises_on_average, growth))


def gaps_3(means: Means, _: Sequence[float]) -> Finding:
    gaps = [is_positive(difference(plain, residual)) for plain, residual in zip(means[:4], means[4:], strict=True)]
    return all_of(*gaps, is_positive(combine([means[0], means[4], means[3], means[7]], [-1, 1, 1, -1])))


def blocks_2(means: Means, _: Sequence[float]) -> Finding:
    pairs = [difference(means[j], means[i]) for i, j in BLOCK_PAIRS]
    return all_of(*map(rises_on_average, pairs))


def blocks_3(means: Means, _: Sequence[float]) -> Finding:
    return all_of(*(is_positive(difference(means[j], means[i])) for i, j in BLOCK_PAIRS))


def any_unadjusted(means: Means, _: Sequence[float]) -> Finding:
    return Finding(any(p < 1 - CONFIDENCE for p in p_values(means)))


def any_adjusted(means: Means, _: Sequence[float]) -> Finding:
    return Finding(any(p < 1 - CONFIDENCE for p in holm_adjust(p_values(means))))


def p_values(means: Means) -> list[float]:
    return [difference(first, second).p for first, second in zip(means[::2], means[1::2], strict=True)]


BLOCKS = (6.37, 6.61, 6.71, 7.84, 8.17)
"""Identity Mappings, Table 2."""
BLOCK_PAIRS = [(i, j) for i, j in combinations(range(5), 2) if BLOCKS[j] - BLOCKS[i] >= TOLERANCE]
TABLE_6 = (8.75, 7.51, 7.17, 6.97)
PLAIN, PLAIN_TRAINING = (9.25, 10, 12, 13.25), (1.2, 1.4, 2.4, 5.2)
"""Roughly the errors of the plain networks."""
WORSE_56 = (*TABLE_6[:3], TABLE_6[3] + 1)
HALFWAY = 8.0
ORDER_3 = "an ordering of three, as C7 (1 point apart; equal)"
ONE, FOUR = "T: one published number (equal; 1 point apart)", "T: any of four numbers (all equal; one 1 point apart)"
C1, C2, B4 = "C1 (Fig. 6; all equal)", "C2 (Table 6; equal from 32 layers on)", "B4 (as published; all equal)"
C3, EVEN_GAPS = "C3 (Fig. 6 and Table 6; every gap 2 points)", (*(error + 2 for error in TABLE_6), *TABLE_6)
RULES = [
    Rule("a difference, as W56 (1 point; none)", "2, 3", (9, 8), (8, 8), lambda m, _: is_positive(difference(*m))),
    Rule("a difference of 0.5 or more, as B2 (1 point; none)", "2, 3", (9, 8), (8, 8), lambda m, _: is_worse(m)),
    Rule(
        "three such differences, as A5 (all 1 point; one none)",
        "2, 3",
        (9, 8) * 3,
        (9, 8, 9, 8, 8, 8),
        lambda m, _: is_worse(m),
    ),
    Rule(
        "equality, as B1 (equal; 1 point apart)", "2, 3", (8, 8), (9, 8), lambda m, _: is_equivalent(difference(*m), TOLERANCE)
    ),
    Rule("a given difference, as B3 (1.5 points; none)", "2, 3", (9.5, 8), (8, 8), gain_of_bn),
    Rule("two errors above a number, as A3 (by 1 point; one below it)", "2, 3", (9, 9), (9, 7), above_number),
    Rule(ONE, "2", (8,), (9,), lambda m, n: met(m[0], n[0]), (8,)),
    Rule(ONE, "3", (8,), (9,), lambda m, n: matches(m[0], n[0]), (8,)),
    Rule(FOUR, "2", TABLE_6, WORSE_56, lambda m, n: all_of(*map(met, m, n)), TABLE_6),
    Rule(FOUR, "3", TABLE_6, WORSE_56, lambda m, n: all_of(*map(matches, m, n)), TABLE_6),
    Rule(ORDER_3, "2", (7, 8, 9), (8, 8, 8), lambda m, _: all_of(*map(rises_on_average, steps(m)))),
    Rule(ORDER_3, "3", (7, 8, 9), (8, 8, 8), lambda m, _: all_of(*map(is_positive, steps(m)))),
    Rule(C1, "2", (*PLAIN, *PLAIN_TRAINING), (10,) * 4 + (2,) * 4, plain_2),
    Rule(C1, "3", (*PLAIN, *PLAIN_TRAINING), (10,) * 4 + (2,) * 4, plain_3),
    Rule(C2, "2", (*TABLE_6, 6.61), (8.75, *(7.51,) * 4), residual_2),
    Rule(C2, "3", TABLE_6, (8.75, *(7.51,) * 3), residual_3),
    Rule(C3, "2", (*PLAIN, *TABLE_6), EVEN_GAPS, gaps_2),
    Rule(C3, "3", (*PLAIN, *TABLE_6), EVEN_GAPS, gaps_3),
    Rule(B4, "2", BLOCKS, (7,) * 5, blocks_2),
    Rule(B4, "3", BLOCKS, (7,) * 5, blocks_3),
    Rule("any of ten differences (one 1 point; none)", "2, 3", (9, *(8,) * 19), (8,) * 20, any_unadjusted),
    Rule("any of ten differences, Holm (one 1 point; none)", "2, 3", (9, *(8,) * 19), (8,) * 20, any_adjusted),
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
            row = {"rule": rule.claim, "version": rule.version, "seeds": seeds, "std": std, "published_std": published}
            for truth, errors in ((True, rule.true), (False, rule.false)):
                found = simulate(rule, errors, seeds, std, published, trials)
                for share, verdict in (("right", truth), ("inconclusive", None), ("wrong", not truth)):
                    row[f"{share}, {str(truth).lower()}"] = round(100 * found.count(verdict) / trials, 2)
            rows.append(row)
    return pd.DataFrame(rows)


def find_smallest_difference(seeds: int, std: float, power: float = 0.8) -> float:
    """Return the true difference of two networks that their interval shows to be above zero with this probability."""
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
