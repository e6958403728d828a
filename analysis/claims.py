"""Claims: a claim is a function whose docstring states it and the rule by which it is judged.

RESULTS.md prints both. The functions stand with their question in analysis/questions. The rules were fixed before the runs.
They see only runs of 64,000 iterations on all of CIFAR-10's training images, and take at least MINIMUM finished runs of every
cell, all in one precision: there is no Sample of fewer. Differences are paired by seed. What "clearly", "rises" and "similar"
mean, and when the seeds leave a claim open, stands at the functions of estimates.py and, for the reader of RESULTS.md, in
template.md.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.estimates import Truth
from analysis.markdown import write_table
from analysis.sample import NotEnoughRuns

TOLERANCE = 0.5
"""Points within which means over a few seeds are similar: peers' seeds spread by 0.1 to 1.0."""
Outcome = tuple[Truth, str]
"""Whether the rule holds (None where the seeds leave it open), and the numbers behind it."""
Rule = Callable[[pd.DataFrame], Outcome]
"""Takes the runs that records.load gives."""

CLAIMS: dict[str, Rule] = {}
KINDS = ("C", "T", "B", "A")
"""In the order of RESULTS.md, then by number: the paper's claims, its table, those on blocks, those on optimizers."""
REPRODUCED, NOT_REPRODUCED, NOT_ENOUGH = VERDICTS = ("reproduced", "not reproduced", "not enough data")


def claim(name: str) -> Callable[[Rule], Rule]:
    """Makes a rule the claim of that name."""

    def register(rule: Rule) -> Rule:
        CLAIMS[name] = rule
        return rule

    return register


@dataclass(frozen=True)
class Verdict:
    """One claim judged.

    verdict: one of VERDICTS; numbers: what it rests on, in words.
    """

    name: str
    claim: str
    rule: str
    verdict: str
    numbers: str


def judge(name: str, runs: pd.DataFrame) -> Verdict:
    """Applies the rule of one claim to the runs that records.load gives."""
    rule_of = CLAIMS[name]
    claim, _, rule = (inspect.getdoc(rule_of) or "").partition("Rule: ")
    try:
        truth, numbers = rule_of(runs)
    except NotEnoughRuns as lack:
        truth, numbers = None, str(lack)
    else:
        numbers += "; the seeds leave it open" if truth is None else ""
    verdict = {True: REPRODUCED, False: NOT_REPRODUCED, None: NOT_ENOUGH}[truth]
    return Verdict(name, " ".join(claim.split()), " ".join(rule.split()), verdict, numbers)


def judge_all(runs: pd.DataFrame) -> list[Verdict]:
    """Every claim of the questions that have been imported, in the order of RESULTS.md."""
    return [judge(name, runs) for name in sorted(CLAIMS, key=lambda name: (KINDS.index(name[0]), int(name[1:])))]


def list_claims(verdicts: Sequence[Verdict]) -> str:
    table = write_table(["", "claim", "verdict"], [[v.name, v.claim, f"**{v.verdict}**"] for v in verdicts])
    details = "\n".join(f"- **{v.name}**: {v.numbers}.\n  Rule: {v.rule}" for v in verdicts)
    return f"{table}\n\nThe numbers behind each verdict, and its rule:\n\n{details}"
