"""Does it matter whether the second BN of a block comes before or after the addition?"""

import pandas as pd

from analysis.claims import TOLERANCE, Outcome, claim
from analysis.estimates import Contrast, all_of, is_equivalent, is_positive
from analysis.markdown import format_estimates, format_figure, format_runs, format_table
from analysis.paper import BLOG, load_paper, paper_value, published
from analysis.records import comparable_runs, select_runs
from analysis.sample import Sample, format_difference
from experiments.bn_placement import AFTER, BEFORE
from reproduce.config import Config


def format_section(runs: pd.DataFrame, link: str) -> str:
    full = comparable_runs(runs)
    return f"""## BN placement

Before the addition is the paper's block; after it, the sum is what is normalised.

{compare_bn_placement(full)}

{format_runs(full, AFTER, link)}

{format_figure(full, AFTER, "bn_placement")}"""


def compare_bn_placement(runs: pd.DataFrame) -> str:
    numbers = published(load_paper(), quantity="test error")
    numbers = numbers[numbers["variant"].isin(["original", "bn-after-add"])]
    rows = []
    for before, after in zip(BEFORE, AFTER, strict=True):
        others = []
        for source, group in numbers[numbers["depth"] == before.depth].groupby("source"):
            errors = group.set_index("variant")["value"]
            if len(errors) == 2:
                both = f"{errors['original']:.2f} / {errors['bn-after-add']:.2f}"
                others.append(f"{both} ({source}: {group['protocol'].iloc[0]})")
        ours = [format_estimates(select_runs(runs, before)), format_estimates(select_runs(runs, after))]
        rows.append([before.depth, *ours, format_difference(runs, after, before), "; ".join(others) or "-"])
    return format_table(["depth", "before", "after", "after - before", "others, before / after"], rows)


# Claims ---------------------------------------------------------------------------------------------------------------


def compare_placements(runs: pd.DataFrame, depth: int) -> tuple[Contrast, str, int]:
    """The test error with BN after the addition less that with BN before it, the numbers in words, and the seeds."""
    sample = Sample(runs, Config(depth=depth, block="bn-after-add"), Config(depth=depth))
    gap = sample.difference(0, 1)
    return gap, f"{sample.list()}; after - before {gap}{sample.note}", sample.seeds


@claim("B1")
def bn_placement_at_20(runs: pd.DataFrame) -> Outcome:
    """At depth 20 it makes no difference whether BN comes before or after the addition (gcr: 8.29 and 8.34).

    Rule: the test errors are similar.
    """
    gap, numbers, seeds = compare_placements(runs, 20)
    return Outcome(is_equivalent(gap, TOLERANCE), numbers, seeds)


@claim("B2")
def bn_placement_at_110(runs: pd.DataFrame) -> Outcome:
    """At depth 110 BN after the addition is worse than before it (Identity Mappings: 8.17 against 6.61).

    Rule: its test error is clearly higher; otherwise fails where a difference of half a point is ruled out.
    """
    gap, numbers, seeds = compare_placements(runs, 110)
    return Outcome(is_positive(gap, TOLERANCE), numbers, seeds)


@claim("B3")
def bn_placement_at_32(runs: pd.DataFrame) -> Outcome:
    """At depth 32 BN before the addition is worth about 1.5 points (a blog reproduction).

    Rule: with the paper's recipe BN after the addition has the clearly higher test error, and the difference is similar
    to 1.5; otherwise fails where a difference of half a point is ruled out.
    """
    gap, numbers, seeds = compare_placements(runs, 32)
    gain = paper_value(BLOG, "gain of BN before the addition")
    return Outcome(all_of(is_positive(gap, TOLERANCE), is_equivalent(gap - gain, TOLERANCE)), numbers, seeds)
