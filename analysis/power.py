"""Simulate how often the rules of claims err.

    python analysis/power.py

Writes analysis/tables/error_rates.csv, which docs/statistics.md shows (about a minute).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

import analysis.questions  # noqa: F401 - registers the claims
from analysis.claims import CLAIMS
from analysis.estimates import CONFIDENCE, MINIMUM, Estimate, Finding, all_of, holm_adjust
from analysis.questions.block_design import RANKED, published_error
from analysis.records import RUN_COLUMNS
from analysis.sample import Sample
from reproduce.cli import parse_args, run_cli
from reproduce.config import PAPER_TEST_ERROR, Config

RATES = Path(__file__).parent / "tables" / "error_rates.csv"
TRIALS = 2000
SETTINGS = ((1, 0.2, 0.2), (1, 0.5, 0.5), (1, 0.5, 0.2), (3, 0.2, 0.2), (3, 0.5, 0.5), (5, 0.2, 0.2), (5, 0.5, 0.5))
"""Number of seeds, true standard deviation of a run, and published one, which the rules use for one seed."""


def any_reproduced(*findings: Finding) -> Finding:
    return Finding(True if any((finding.p or 0) < 1 - CONFIDENCE for finding in findings) else None)


def any_reproduced_holm(*findings: Finding) -> Finding:
    return any_reproduced(*(Finding(None, p) for p in holm_adjust([finding.p or 0 for finding in findings])))


@dataclass(frozen=True)
class Scenario:
    """Claims, with mean errors for which all of them are true, and for which one or more are false.

    The errors are those of the claims' configurations in order; C1 also has their training errors. combine: the verdict on all
    claims. is_paper_random: whether the published numbers are single runs, which vary like ours.
    """

    name: str
    claims: Sequence[str]
    true: Sequence[float]
    false: Sequence[float]
    combine: Callable[..., Finding] = all_of
    is_paper_random: bool = False


class SimulatedSample(Sample):
    """The sample of a claim, with given means of test errors, followed by those of training errors."""

    def __init__(self, configs: Sequence[Config], means: Sequence[Estimate]):
        self.configs, self.means = configs, means

    def mean(self, position: int, column: str = "test_error") -> Estimate:
        return self.means[position + len(self.configs) * (column == "train_error")]

    def format_means(self, column: str = "test_error") -> str:
        return ""


TABLE_6 = [PAPER_TEST_ERROR[depth] for depth in (20, 32, 44, 56)]
PLAIN, PLAIN_TRAINING = (9.25, 10, 12, 13.25), (1.2, 1.4, 2.4, 5.2)
"""Approximate test and training errors of the plain networks."""
BLOG = (8.755, 8.085)
"""Halfway between the blog's errors and the paper's at 32 and 44 layers."""
TABLE_6_CLAIMS = ("T20", "T32", "T44", "T56")
DIFFERENCES = ("W56",) * 10
SCENARIOS = [
    Scenario("a difference, as W56 (1 point; none)", ["W56"], (9, 8), (8, 8)),
    Scenario("a difference of 0.5 or more, as B2 (1 point; none)", ["B2"], (9, 8), (8, 8)),
    Scenario("three such differences, as A5 (all 1 point; one none)", ["A5"], (9, 8) * 3, (9, 8, 9, 8, 8, 8)),
    Scenario("equality, as B1 (equal; 1 point apart)", ["B1"], (8, 8), (9, 8)),
    Scenario("a given difference, as B3 (1.5 points; none)", ["B3"], (9.5, 8), (8, 8)),
    Scenario(
        "two errors above a number, as A3 (by 1 point; one below it)",
        ["A3"],
        (BLOG[0] + 1, BLOG[1] + 1),
        (BLOG[0] + 1, BLOG[1] - 1),
    ),
    Scenario("T: one published number (equal; 1 point apart)", ["T20"], TABLE_6[:1], [TABLE_6[0] + 1], is_paper_random=True),
    Scenario(
        "T: any of four numbers (all equal; one 1 point apart)",
        TABLE_6_CLAIMS,
        TABLE_6,
        [*TABLE_6[:3], TABLE_6[3] + 1],
        is_paper_random=True,
    ),
    Scenario("an ordering of three, as C7 (1 point apart; equal)", ["C7"], (9, 8, 7), (8, 8, 8)),
    Scenario("C1 (Fig. 6; all equal)", ["C1"], (*PLAIN, *PLAIN_TRAINING), (10,) * 4 + (2,) * 4),
    Scenario("C2 (Table 6; equal from 32 layers on)", ["C2"], TABLE_6, (8.75, *(7.51,) * 3)),
    Scenario(
        "C3 (Fig. 6 and Table 6; every gap 2 points)",
        ["C3"],
        (*PLAIN, *TABLE_6),
        (*(error + 2 for error in TABLE_6), *TABLE_6),
    ),
    Scenario("B4 (as published; all equal)", ["B4"], [published_error(block) for block in RANKED], (7,) * 5),
    Scenario("any of ten differences (one 1 point; none)", DIFFERENCES, (9, *(8,) * 19), (8,) * 20, any_reproduced),
    Scenario("any of ten differences, Holm (one 1 point; none)", DIFFERENCES, (9, *(8,) * 19), (8,) * 20, any_reproduced_holm),
]


@cache
def list_configs(claim: str) -> Sequence[Config]:
    """Return the configurations of a claim, without any runs."""
    configs = CLAIMS[claim].configs
    return configs(pd.DataFrame(columns=pd.Index(RUN_COLUMNS))) if callable(configs) else configs


def judge_scenario(scenario: Scenario, means: Sequence[Estimate]) -> bool | None:
    """Apply the rules of the claims to simulated means."""
    size = len(means) // len(scenario.claims)
    findings = []
    for number, name in enumerate(scenario.claims):
        sample = SimulatedSample(list_configs(name), means[size * number : size * (number + 1)])
        findings.append(CLAIMS[name].rule(sample)[0])
    return scenario.combine(*findings).holds


def simulate(scenario: Scenario, errors: Sequence[float], seeds: int, std: float, published: float) -> list[bool | None]:
    """Return the verdict of each trial for networks with these mean errors."""
    generator = np.random.default_rng([seeds, round(10 * std), round(10 * published)])
    runs = generator.normal(np.array(errors)[:, None], std, (TRIALS, len(errors), seeds))
    means, stds = runs.mean(2), runs.std(2, ddof=1) if seeds >= MINIMUM else np.full(runs.shape[:2], published)
    if scenario.is_paper_random:  # the rule has a fixed number, so our mean varies instead
        means -= generator.normal(0, std, means.shape)
    return [
        judge_scenario(scenario, [Estimate(seeds, *pair, seeds < MINIMUM) for pair in zip(*trial, strict=True)])
        for trial in zip(means.tolist(), stds.tolist(), strict=True)
    ]


def measure_rates() -> pd.DataFrame:
    """Return the shares of right, inconclusive and wrong verdicts in %, a row per rule and setting with enough seeds for it."""
    rows = []
    for scenario in SCENARIOS:
        least_seeds = max(CLAIMS[name].least_seeds for name in scenario.claims)
        for seeds, std, published in (setting for setting in SETTINGS if setting[0] >= least_seeds):
            row = {"rule": scenario.name, "seeds": seeds, "std": std, "published_std": published}
            for truth, errors in ((True, scenario.true), (False, scenario.false)):
                found = simulate(scenario, errors, seeds, std, published)
                for share, verdict in (("right", truth), ("inconclusive", None), ("wrong", not truth)):
                    row[f"{share}, {str(truth).lower()}"] = round(100 * found.count(verdict) / TRIALS, 2)
            rows.append(row)
    return pd.DataFrame(rows)


def find_smallest_difference(seeds: int, std: float) -> float:
    """Return the true difference of two networks at which Welch's interval lies above zero with probability 0.8."""
    first, second = np.random.default_rng(seeds).normal(0, std, (2, 200_000, seeds))  # without a difference
    low = stats.ttest_ind(first, second, axis=1, equal_var=False).confidence_interval(CONFIDENCE).low
    return float(np.quantile(-low, 0.8))  # a true difference shifts the whole interval


def main(arguments: Sequence[str]) -> int:
    rates = parse_args(measure_rates, arguments, "power.py", __doc__)
    rates.to_csv(RATES, index=False)
    print(RATES)
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
