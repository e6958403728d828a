"""Where in a residual block do BN and ReLU belong?"""

from itertools import combinations

import pandas as pd

from analysis.claims import TOLERANCE, claim
from analysis.estimates import Finding, all_of, is_positive
from analysis.paper import IDENTITY, paper_value
from analysis.sample import Sample
from analysis.sections import format_differences, format_verdicts
from experiments.block_design import BLOCKS, DEPTHS
from reproduce.config import Block, Config

TITLE = "Which block design is best?"
INTRODUCTION = (
    "Identity Mappings (arXiv:1603.05027, Table 2) ranks five designs at 110 layers, full pre-activation first (6.37%, the "
    "original block 6.61%)"
)
NOT_RUN = f"{TITLE} `python experiments/sweep.py block_design`"
RANKED: tuple[Block, ...] = ("original", "bn-after-add", "relu-before-add", "relu-only-preactivation", "full-preactivation")
"""The designs of Identity Mappings, Table 2."""


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return the section, empty without a run of a design that bn_placement does not cover."""
    others = [block for block in BLOCKS if block not in ("original", "bn-after-add")]
    tables = [
        format_differences(runs, [Config(depth=depth, block=block) for block in others], Config(depth=depth), "block_design")
        for depth in DEPTHS
    ]
    introduction = f"## {TITLE}\n\n{INTRODUCTION} ({format_verdicts(runs, 'B4', 'B5')})."
    return "\n\n".join([introduction, *filter(None, tables)]) if any(tables) else ""


def published_error(block: str) -> float:
    """Return the test error of a design in Identity Mappings, Table 2, at depth 110."""
    return paper_value(IDENTITY, depth=110, variant=block)


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("B4", [Config(depth=110, block=block) for block in RANKED])
def order_of_blocks(sample: Sample) -> tuple[Finding, str]:
    """At 110 layers the five block designs are ordered as in Identity Mappings, Table 2.

    Rule: of any two designs that are at least 0.5 points apart there, the worse one has the higher test error.
    """
    theirs = [published_error(block) for block in RANKED]
    ranking = sorted(range(len(RANKED)), key=theirs.__getitem__)
    pairs = [(i, j) for i, j in combinations(ranking, 2) if theirs[j] - theirs[i] >= TOLERANCE]
    found = [is_positive(sample.difference(j, i)) for i, j in pairs]
    above = sum(finding.holds is True for finding in found)
    return all_of(*found), f"{sample.format_means()}; {above} of {len(found)} differences above zero"


@claim("B5", [Config(depth=110), Config(depth=110, block="full-preactivation")])
def full_preactivation(sample: Sample) -> tuple[Finding, str]:
    """At 110 layers full pre-activation is better than the original block (Identity Mappings: 6.37 and 6.61).

    Rule: the original block has the higher test error; refuted if a difference as large as theirs is ruled out.
    """
    gap, theirs = sample.difference(0, 1), published_error("original") - published_error("full-preactivation")
    return is_positive(gap, theirs), f"{sample.format_means()}; difference {gap}, published {theirs:+.2f}"
