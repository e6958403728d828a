"""Every claim judged: its rule applied to the runs."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis import claims, further_claims
from analysis.estimates import NotEnoughRuns

CLAIMS = {
    "C1": claims.degradation,
    "C2": claims.deeper_is_better,
    "C3": claims.residual_beats_plain,
    "C4": claims.warmup_converges,
    "C5": claims.overfitting_at_1202,
    "C6": claims.responses_are_smaller,
    "C7": claims.responses_shrink_with_depth,
    "C8": claims.no_warmup_is_similar,
    "T6": claims.table_6,
    "B1": further_claims.bn_placement_at_20,
    "B2": further_claims.bn_placement_at_110,
    "B3": further_claims.bn_placement_at_32,
    "B4": further_claims.order_of_blocks,
    "B5": further_claims.full_preactivation,
    "A1": further_claims.adam_without_augmentation_tests_worse,
    "A2": further_claims.adam_without_augmentation_underfits,
    "A3": further_claims.blog_shortfall,
    "A4": further_claims.sgd_beats_adamw_at_20,
    "A5": further_claims.sgd_beats_adam,
}


REPRODUCED, NOT_REPRODUCED, NOT_ENOUGH = VERDICTS = ("reproduced", "not reproduced", "not enough data")


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
    rule_of: Callable = CLAIMS[name]
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
    return [judge(name, runs) for name in CLAIMS]
