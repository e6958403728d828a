"""Claims. Each is a function in analysis/questions, below "# Claims", whose docstring states the claim and its rule."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import pandas as pd

from analysis.estimates import MINIMUM, Finding
from analysis.markdown import format_label
from analysis.paper import Pooling
from analysis.records import comparable_runs
from analysis.sample import FEW_SEEDS, Sample
from reproduce.config import Config

TOLERANCE = 0.5
"""Points within which two test errors on CIFAR-10 count as equal: published standard deviations are 0.1 to 1.0."""
Judge = Callable[[Sample], tuple[Finding, str]]
"""Judges a claim from a sample of its configurations; returns the finding, and its numbers as text."""
Configs = Sequence[Config] | Callable[[pd.DataFrame], Sequence[Config]]
"""The configurations to compare, or a function that chooses them from the runs."""
REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"
SUGGESTS, SUGGESTS_OTHERWISE, ESTIMATE = "suggests", "suggests otherwise", "estimate only"
INCOMPLETE, NOT_RUN = "incomplete", "not run yet"


@dataclass(frozen=True)
class Claim:
    """What to compare, and the rule.

    least_seeds: minimum seeds per configuration for a verdict; with fewer, only numbers are reported. must_converge: a diverged
    run refutes the claim.
    """

    rule: Judge
    configs: Configs
    least_seeds: int
    must_converge: bool


CLAIMS: dict[str, Claim] = {}


def claim(name: str, configs: Configs, least_seeds: int = 1, must_converge: bool = False) -> Callable[[Judge], Judge]:
    """Register a rule as the claim of that name."""

    def register(rule: Judge) -> Judge:
        CLAIMS[name] = Claim(rule, configs, least_seeds, must_converge)
        return rule

    return register


@dataclass(frozen=True)
class Verdict:
    """A judged claim.

    verdict: one of the constants above; INCOMPLETE is followed by a count. seeds: the smallest number of seeds of any
    configuration. p: None without a test or with fewer than MINIMUM seeds. numbers: the evidence, as text. changed: the
    verdicts with other poolings of the published standard deviations, if they differ.
    """

    name: str
    claim: str
    rule: str
    verdict: str
    seeds: int
    numbers: str
    p: float | None = None
    changed: Mapping[Pooling, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Return "suggests (one seed)"."""
        return f"{self.verdict} ({FEW_SEEDS[self.seeds]})" if self.seeds in FEW_SEEDS else self.verdict


def judge(name: str, runs: pd.DataFrame) -> Verdict:
    """Judge a claim. runs: all runs of `load_records`."""
    claim = CLAIMS[name]
    statement, _, rule = (inspect.getdoc(claim.rule) or "").partition("Rule: ")
    runs = comparable_runs(runs)
    configs = claim.configs(runs) if callable(claim.configs) else claim.configs
    sample = Sample(runs, *configs)

    def decide(holds: bool | None, seeds: int, numbers: str, p: float | None = None) -> Verdict:
        verdict = name_verdict(holds, seeds, claim.least_seeds)
        return Verdict(name, " ".join(statement.split()), " ".join(rule.split()), verdict, seeds, numbers, p)

    ended = min(count + diverged for count, diverged in zip(sample.counts, sample.diverged, strict=True))
    if claim.must_converge and any(sample.diverged) and ended:
        return decide(False, ended, f"finished runs: {list_counts(sample)}")
    if sample.seeds == 0:
        present = len(configs) - sample.counts.count(0)
        state = f"{INCOMPLETE} ({present} of {len(configs)} configurations)" if present or any(sample.diverged) else NOT_RUN
        return replace(decide(None, 0, f"finished runs: {list_counts(sample)}"), verdict=state)
    finding, numbers = claim.rule(sample)
    if sample.seeds >= MINIMUM:
        return decide(finding.holds, sample.seeds, numbers + sample.note, finding.p)
    verdict = decide(finding.holds, sample.seeds, numbers + sample.note)
    others = {pooling: claim.rule(Sample(runs, *configs, pooling=pooling))[0].holds for pooling in get_args(Pooling)[1:]}
    names = {pooling: name_verdict(holds, sample.seeds, claim.least_seeds) for pooling, holds in others.items()}
    return replace(verdict, changed={pooling: name for pooling, name in names.items() if name != verdict.verdict})


def name_verdict(holds: bool | None, seeds: int, least_seeds: int) -> str:
    if seeds < least_seeds:
        return ESTIMATE
    several = {True: REPRODUCED, False: NOT_REPRODUCED, None: INCONCLUSIVE}
    few = {True: SUGGESTS, False: SUGGESTS_OTHERWISE, None: INCONCLUSIVE}
    return (several if seeds >= MINIMUM else few)[holds]


def list_counts(sample: Sample) -> str:
    counts = zip(sample.configs, sample.counts, strict=True)
    return ", ".join(f"{format_label(config)} n={count}" for config, count in counts) + sample.note


def judge_all(runs: pd.DataFrame) -> list[Verdict]:
    """Judge every claim of the imported questions.

    The order is that of RESULTS.md, by number within each letter: the paper's claims, Table 6, blocks, optimizers, wide
    networks and warm-up, MNIST.
    """
    names = sorted(CLAIMS, key=lambda name: ("CTBAWM".index(name[0]), int(name[1:])))
    return [judge(name, runs) for name in names]
