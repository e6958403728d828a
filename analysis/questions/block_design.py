"""Where in a residual block do BN and ReLU belong?"""

from itertools import combinations

import pandas as pd

from analysis.claims import TOLERANCE, claim
from analysis.estimates import Finding, all_of, is_positive
from analysis.markdown import format_estimates, format_not_run, format_number, format_table
from analysis.paper import IDENTITY, load_paper, published
from analysis.records import finished_runs, select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, format_verdicts
from experiments.block_design import BLOCKS, CONFIGS, DEPTHS
from reproduce.config import Config

NOT_RUN = (
    "Which block design is best? Identity Mappings (arXiv:1603.05027, Table 2) ranks five designs at 110 layers, full "
    "pre-activation first (6.37%, the original block 6.61%): `python experiments/sweep.py block_design`."
)


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, CONFIGS)
    theirs = {row["variant"]: format_number(row) for _, row in load_identity().iterrows()}
    depths = [
        depth
        for depth in DEPTHS
        if any(len(finished_runs(select_runs(ours, net))) for net in CONFIGS if net.depth == depth and net.block != "original")
    ]
    if not any(len(finished_runs(select_runs(ours, net))) for net in CONFIGS if net.block in BLOCKS[2:]):
        return ""
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


RANKING = list(load_identity().sort_values("value")["variant"])
"""The block designs, best first, in Identity Mappings."""


@claim("B4", [Config(depth=110, block=block) for block in RANKING])
def order_of_blocks(nets: Sample) -> tuple[Finding, str]:
    """At 110 layers the five block designs are ordered as in Identity Mappings, Table 2.

    Rule: of any two designs that are at least 0.5 points apart there, the worse one has the higher test error.
    """
    theirs = load_identity().set_index("variant")["value"]
    pairs = [(i, j) for i, j in combinations(range(len(RANKING)), 2) if theirs[RANKING[j]] - theirs[RANKING[i]] >= TOLERANCE]
    found = [is_positive(nets.difference(j, i)) for i, j in pairs]
    return all_of(*found), f"{nets.list()}; {sum(f.holds is True for f in found)} of {len(found)} differences above zero"


@claim("B5", [Config(depth=110), Config(depth=110, block="full-preactivation")])
def full_preactivation(nets: Sample) -> tuple[Finding, str]:
    """At 110 layers full pre-activation is better than the original block (Identity Mappings: 6.37 and 6.61).

    Rule: the original block has the higher test error; refuted if a difference as large as theirs is ruled out.
    """
    gap, theirs = nets.difference(0, 1), load_identity().set_index("variant")["value"]
    there = theirs["original"] - theirs["full-preactivation"]
    return is_positive(gap, there), f"{nets.list()}; difference {gap}, published {there:+.2f}"
