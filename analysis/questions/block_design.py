"""Where in a residual block do BN and ReLU belong?"""

from itertools import combinations

import pandas as pd

from analysis.claims import TOLERANCE, Outcome, claim
from analysis.estimates import Finding, all_of, is_positive
from analysis.markdown import format_estimates, format_not_run, format_number, format_table
from analysis.paper import IDENTITY, load_paper, paper_value, published
from analysis.records import finished_runs, select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, format_verdicts
from experiments.block_design import BLOCKS, CONFIGS, DEPTHS
from reproduce.config import Config


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, CONFIGS)
    theirs = {row["variant"]: format_number(row) for _, row in load_identity().iterrows()}
    depths = [
        depth
        for depth in DEPTHS
        if any(len(finished_runs(select_runs(ours, net))) for net in CONFIGS if net.depth == depth and net.block != "original")
    ]
    rows = [
        [block, *(format_estimates(select_runs(ours, Config(depth=depth, block=block))) for depth in depths), theirs[block]]
        for block in BLOCKS
    ]
    return f"""## Which block design is best?

Identity Mappings (arXiv:1603.05027, Table 2) ranks five designs at 110 layers, full pre-activation first
({format_verdicts(runs, "B4", "B5")}).

{format_table(["block", *(f"ours, {depth} layers" for depth in depths), "published, 110 layers, median of 5"], rows)}

Test error in %, {precision}. {format_not_run(ours, CONFIGS, "python experiments/sweep.py block_design")}"""


def load_identity() -> pd.DataFrame:
    """Return the test errors of Identity Mappings, Table 2, at depth 110."""
    return published(load_paper(), source=IDENTITY, depth=110, quantity="test error")


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("B4")
def order_of_blocks(runs: pd.DataFrame) -> Outcome:
    """At depth 110 the five block designs come in the order of Identity Mappings, Table 2.

    Rule: of any two designs that are at least 0.5 points apart there, the one that is worse there has the higher median
    here; it fails where the other one is clearly worse.
    """
    table = load_identity().sort_values("value")
    theirs = dict(zip(table["variant"], table["value"], strict=True))
    sample = Sample(runs, *(Config(depth=110, block=block) for block in theirs))
    ours = dict(zip(theirs, (mean.median for mean in sample.means()), strict=True))
    parts: list[Finding] = []
    for (i, better), (j, worse) in combinations(enumerate(theirs), 2):
        if theirs[worse] - theirs[better] >= TOLERANCE:
            reversed_here = is_positive(sample.difference(i, j)).holds
            parts.append(Finding(True if ours[better] < ours[worse] else False if reversed_here else None))
    in_order = sum(part.holds is True for part in parts)
    listed = ", ".join(f"{block} {ours[block]:.2f} ({theirs[block]:.2f} there)" for block in theirs)
    numbers = f"median test error {listed}; {in_order} of {len(parts)} in order{sample.note}"
    return Outcome(all_of(*parts), numbers, sample.seeds)


@claim("B5")
def full_preactivation(runs: pd.DataFrame) -> Outcome:
    """At depth 110 full pre-activation is better than the original block (Identity Mappings: 6.37 and 6.61).

    Rule: the original block's test error is clearly higher; otherwise it fails where a difference as large as theirs is ruled
    out.
    """
    sample = Sample(runs, Config(depth=110), Config(depth=110, block="full-preactivation"))
    gap = sample.difference(0, 1)
    there = paper_value(IDENTITY, depth=110, variant="original") - paper_value(
        IDENTITY, depth=110, variant="full-preactivation"
    )
    numbers = f"{sample.list()}; difference {gap}, {there:.2f} there{sample.note}"
    return Outcome(is_positive(gap, there), numbers, sample.seeds)
