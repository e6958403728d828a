"""Claims: a claim is a function whose docstring states it and the rule by which it is judged.

RESULTS.md prints both; the functions stand with their question in analysis/questions. Those on transfer see its runs, all
others only runs of 64,000 iterations on all of CIFAR-10's training images, and of 37,500 on MNIST's. What "clearly", "rises",
"similar" and "met" mean stands at the functions of estimates.py and, for the reader of RESULTS.md, in template.md.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import NamedTuple

import pandas as pd

from analysis.estimates import MINIMUM, Finding, holm_adjust
from analysis.markdown import format_table
from analysis.records import comparable_runs
from analysis.sample import SEEDS, NotEnoughRuns

RULES_VERSION, RULES_DATE, RULES_COMMIT = 2, "2026-11-24", "700065dd"
"""Of the rules by which claims are judged, when they were fixed, and the commit that last changed them."""
TOLERANCE = 0.5
"""Points within which errors are similar: peers' seeds spread by 0.1 to 1.0."""


class Outcome(NamedTuple):
    """Whether the rule holds, the numbers behind it, and the runs of the cell that has fewest."""

    finding: Finding
    numbers: str
    seeds: int


Rule = Callable[[pd.DataFrame], Outcome]
"""Takes those runs of all that records.load gives which the claim is about.

Raises:
    NotEnoughRuns: some cell has no finished run.
"""
CLAIMS: dict[str, Rule] = {}
KINDS = ("C", "T", "B", "A", "W", "M", "P")
"""In the order of RESULTS.md, then by number: the paper's claims, its table, those on blocks, on optimizers, on wide nets, on
MNIST, and on pretraining."""
REPRODUCED, NOT_REPRODUCED, OPEN = "reproduced", "not reproduced", "open"
POINTS_TO, POINTS_AGAINST, NO_DATA = "points to it", "points against it", "no data"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, OPEN, POINTS_TO, POINTS_AGAINST, NO_DATA)


def claim(name: str, choose: Callable[[pd.DataFrame], pd.DataFrame] = comparable_runs) -> Callable[[Rule], Rule]:
    """Makes a rule the claim of that name, a letter of KINDS and a number; it sees what `choose` takes of all runs."""

    def register(rule: Rule) -> Rule:
        CLAIMS[name] = wraps(rule)(lambda runs: rule(choose(runs)))
        return rule

    return register


@dataclass(frozen=True)
class Verdict:
    """One claim judged.

    verdict: one of VERDICTS; seeds: of the cell that has fewest; p: of the claim, None where it rests on no test or on single
    runs; numbers: what the verdict rests on, in words.
    """

    name: str
    claim: str
    rule: str
    verdict: str
    seeds: int
    p: float | None
    numbers: str

    @property
    def words(self) -> str:
        """The verdict, and on how many seeds it rests where they are few."""
        return f"{self.verdict} ({SEEDS[self.seeds]})" if self.seeds in SEEDS else self.verdict


def judge(name: str, runs: pd.DataFrame) -> Verdict:
    """Applies the rule of one claim to the runs that records.load gives."""
    claim, _, rule = (inspect.getdoc(CLAIMS[name]) or "").partition("Rule: ")
    words = (" ".join(claim.split()), " ".join(rule.split()))
    try:
        finding, numbers, seeds = CLAIMS[name](runs)
    except NotEnoughRuns as lack:
        return Verdict(name, *words, NO_DATA, 0, None, str(lack))
    several = {True: REPRODUCED, False: NOT_REPRODUCED, None: OPEN}
    few = {True: POINTS_TO, False: POINTS_AGAINST, None: OPEN}
    if seeds < MINIMUM:
        return Verdict(name, *words, few[finding.holds], seeds, None, numbers)
    return Verdict(name, *words, several[finding.holds], seeds, finding.p, numbers)


def judge_all(runs: pd.DataFrame) -> list[Verdict]:
    """Every claim of the questions that have been imported, in the order of RESULTS.md."""
    return [judge(name, runs) for name in sorted(CLAIMS, key=lambda name: (KINDS.index(name[0]), int(name[1:])))]


def count_verdicts(verdicts: Sequence[Verdict]) -> str:
    """How many claims came out how, and which, where there are any data."""
    told = []
    for kind in VERDICTS:
        names = [verdict.name for verdict in verdicts if verdict.verdict == kind]
        told.append(f"{len(names)} {kind}" + (f" ({', '.join(names)})" if names and kind != NO_DATA else ""))
    return ", ".join(told)


def format_claims(verdicts: Sequence[Verdict]) -> str:
    tested = [verdict for verdict in verdicts if verdict.p is not None]
    holm = dict(zip(tested, holm_adjust([verdict.p for verdict in tested if verdict.p is not None]), strict=True))
    rows = []
    for verdict in verdicts:
        adjusted = "-"
        if verdict in holm:
            kept = verdict.verdict != REPRODUCED or holm[verdict] < 0.05
            adjusted = f"{verdict.verdict if kept else OPEN} (p {holm[verdict]:.2g})"
        rows.append([verdict.name, verdict.claim, f"**{verdict.words}**", adjusted])
    table = format_table(["", "claim", "verdict", "adjusted for all claims"], rows)
    details = "\n".join(f"- **{v.name}**: {v.numbers}.\n  Rule: {v.rule}" for v in verdicts)
    return f"{table}\n\nThe numbers behind each verdict, and its rule:\n\n{details}"
