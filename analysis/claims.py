"""Claims: a claim is a function whose docstring states it and its rule. They are in analysis/questions, below "# Claims"."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.estimates import MINIMUM, Finding
from analysis.markdown import format_label
from analysis.records import comparable_runs, select_runs
from analysis.sample import SEEDS, NotEnoughRuns, Sample, choose_precision
from reproduce.config import Config

TOLERANCE = 0.5
"""Points within which two test errors on CIFAR-10 count as equal: published standard deviations are 0.1 to 1.0."""
Rule = Callable[[Sample], tuple[Finding, str]]
"""Judges a claim by a sample of its configurations; also returns the numbers in words."""
KINDS = ("C", "T", "B", "A", "W", "M")
"""Order of RESULTS.md, then by number: the paper's claims, Table 6, blocks, optimizers, wide nets and warm-up, MNIST."""
REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"
SUGGESTS, SUGGESTS_OTHERWISE, ESTIMATE = "suggests", "suggests otherwise", "estimate only"
INCOMPLETE, NOT_RUN = "incomplete", "not run yet"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, SUGGESTS, SUGGESTS_OTHERWISE, ESTIMATE, INCOMPLETE, NOT_RUN)


@dataclass(frozen=True)
class Claim:
    """What to compare, and the rule.

    configs: the configurations, or a function that chooses them from the runs; prepare: selects the runs.
    least_seeds: seeds per configuration below which only numbers are reported. must_converge: a diverged run refutes the claim.
    """

    rule: Rule
    configs: Sequence[Config] | Callable[[pd.DataFrame], Sequence[Config]]
    least_seeds: int
    must_converge: bool
    prepare: Callable[[pd.DataFrame], pd.DataFrame]


CLAIMS: dict[str, Claim] = {}


def claim(
    name: str,
    configs: Sequence[Config] | Callable[[pd.DataFrame], Sequence[Config]],
    least_seeds: int = 1,
    must_converge: bool = False,
    prepare: Callable[[pd.DataFrame], pd.DataFrame] = comparable_runs,
) -> Callable[[Rule], Rule]:
    """Register a rule as the claim of that name, a letter of KINDS and a number."""

    def register(rule: Rule) -> Rule:
        CLAIMS[name] = Claim(rule, configs, least_seeds, must_converge, prepare)
        return rule

    return register


@dataclass(frozen=True)
class Verdict:
    """A judged claim.

    verdict: one of VERDICTS, "incomplete" with a count; seeds: of the configuration that has fewest; p: None without a test or
    with fewer than MINIMUM seeds; numbers: what the verdict rests on; without_widest: a different verdict without the widest
    published standard deviations.
    """

    name: str
    claim: str
    rule: str
    verdict: str
    seeds: int
    p: float | None
    numbers: str
    without_widest: str = ""

    @property
    def words(self) -> str:
        """Return "suggests (one seed)"."""
        return f"{self.verdict} ({SEEDS[self.seeds]})" if self.seeds in SEEDS else self.verdict


def judge(name: str, runs: pd.DataFrame) -> Verdict:
    """Judge a claim by all runs of `load_records`."""
    claim = CLAIMS[name]
    statement, _, rule = (inspect.getdoc(claim.rule) or "").partition("Rule: ")
    words = (name, " ".join(statement.split()), " ".join(rule.split()))
    runs = claim.prepare(runs)
    configs = claim.configs(runs) if callable(claim.configs) else claim.configs
    if claim.must_converge and (diverged := count_diverged(runs, configs)):
        seeds, numbers = diverged
        return Verdict(*words, name_verdict(False, seeds, claim.least_seeds), seeds, None, numbers)
    try:
        sample = Sample(runs, *configs)
    except NotEnoughRuns as lack:
        state = f"{INCOMPLETE} ({lack.present} of {lack.total} configurations)" if lack.present else NOT_RUN
        return Verdict(*words, state, 0, None, str(lack))
    finding, numbers = claim.rule(sample)
    verdict = name_verdict(finding.holds, sample.seeds, claim.least_seeds)
    if sample.seeds >= MINIMUM:
        return Verdict(*words, verdict, sample.seeds, finding.p, numbers + sample.note)
    narrower, _ = claim.rule(Sample(runs, *configs, leave_out_widest=True))
    other = name_verdict(narrower.holds, sample.seeds, claim.least_seeds)
    if other == verdict:
        return Verdict(*words, verdict, sample.seeds, None, numbers + sample.note)
    numbers += f"; without the widest published standard deviations: {other}"
    return Verdict(*words, verdict, sample.seeds, None, numbers + sample.note, other)


def name_verdict(holds: bool | None, seeds: int, least_seeds: int) -> str:
    if seeds < least_seeds:
        return ESTIMATE
    several = {True: REPRODUCED, False: NOT_REPRODUCED, None: INCONCLUSIVE}
    few = {True: SUGGESTS, False: SUGGESTS_OTHERWISE, None: INCONCLUSIVE}
    return (several if seeds >= MINIMUM else few)[holds]


def count_diverged(runs: pd.DataFrame, configs: Sequence[Config]) -> tuple[int, str] | None:
    """Return the fewest runs of a configuration and which diverged; None if none did or a configuration has no run."""
    precision = choose_precision(runs, configs)
    ended = runs[(runs["precision"] == precision) & (runs["status"] != "unfinished")]
    cells = [select_runs(ended, config) for config in configs]
    diverged = [int((cell["status"] == "diverged").sum()) for cell in cells]
    if not all(len(cell) for cell in cells) or not any(diverged):
        return None
    listed = (f"{format_label(c)} {d} of {len(cell)} diverged" for c, d, cell in zip(configs, diverged, cells, strict=True))
    return min(len(cell) for cell in cells), f"{', '.join(listed)} [{precision}]"


def judge_all(runs: pd.DataFrame) -> list[Verdict]:
    """Judge every claim of the imported questions, in the order of RESULTS.md."""
    return [judge(name, runs) for name in sorted(CLAIMS, key=lambda name: (KINDS.index(name[0]), int(name[1:])))]


def count_verdicts(verdicts: Sequence[Verdict]) -> str:
    """Return "2 reproduced (M1, C1), ..., 14 not run yet"."""
    counts = []
    for kind in VERDICTS:
        names = [verdict.name for verdict in verdicts if verdict.verdict.partition(" (")[0] == kind]
        if names:
            counts.append(f"{len(names)} {kind}" + (f" ({', '.join(names)})" if kind not in (INCOMPLETE, NOT_RUN) else ""))
    return ", ".join(counts)
