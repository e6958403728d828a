"""Does it matter whether the second BN of a block comes before or after the addition?"""

import pandas as pd

from analysis.claims import TOLERANCE, claim
from analysis.estimates import MINIMUM, Finding, Interval, all_of, is_equivalent, is_positive
from analysis.markdown import format_estimates, format_figure, format_not_run, format_number, format_table, join_words
from analysis.paper import BLOG, find_number, paper_value, published
from analysis.records import keep_recorded, select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, format_gap, format_verdicts
from experiments.bn_placement import AFTER, BEFORE, CONFIGS
from reproduce.config import Config


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, CONFIGS)
    rows, known = [], []
    for before, after in zip(BEFORE, AFTER, strict=True):
        gap, others = format_gap(ours, after, before), list_published(before.depth)
        if gap:
            known.append(f"{gap} points at {before.depth} layers")
        if others or keep_recorded(ours, [after]):
            rows.append([before.depth, *(format_estimates(select_runs(ours, net)) for net in (before, after)), gap, others])
    other = find_number(source="gcr/torch-residual-networks", depth=110, variant="", quantity="test error")
    answer = f"BN after the addition changes the test error by {join_words(known)}" if known else "Not known yet"
    return f"""## Does BN belong before or after the addition?

{answer} ({format_verdicts(runs, "B1", "B3")}). The large increase in test error that others report is at 110 layers
({format_verdicts(runs, "B2")}).

{format_table(["layers", "before (the paper's)", "after", "after - before", "published: before / after (source)"], rows)}

Test error in %, {precision}; the numbers of Identity Mappings are medians of five runs. gcr/torch-residual-networks also
reports {format_number(other)} for ResNet-110 with BN before the addition, trained with a warm-up.
{format_not_run(ours, AFTER, f"python experiments/sweep.py bn_placement --precision {precision}")}

{format_figure(ours, AFTER, "bn_placement", "Test error with BN before and after the addition, by depth")}"""


def list_published(depth: int) -> str:
    """Return the sources that report both placements at a depth."""
    numbers = published(quantity="test error", depth=depth)
    pairs = numbers.pivot_table(index="source", columns="variant", values="value").reindex(columns=["original", "bn-after-add"])
    rows = pairs.dropna().itertuples()
    return "; ".join(f"{before:.2f} / {after:.2f} ({source})" for source, before, after in rows)


# Claims ---------------------------------------------------------------------------------------------------------------


def compare_placements(sample: Sample) -> tuple[Interval, str]:
    gap = sample.difference(0, 1)
    return gap, f"{sample.format_means()}; after - before {gap}"


def at_depth(depth: int) -> list[Config]:
    return [Config(depth=depth, block="bn-after-add"), Config(depth=depth)]


@claim("B1", at_depth(20), least_seeds=MINIMUM)
def bn_placement_at_20(sample: Sample) -> tuple[Finding, str]:
    """At 20 layers BN before or after the addition makes no difference (gcr: 8.29 and 8.34).

    Rule: the test errors are equal to within 0.5 points.
    """
    gap, numbers = compare_placements(sample)
    return is_equivalent(gap, TOLERANCE), numbers


@claim("B2", at_depth(110))
def bn_placement_at_110(sample: Sample) -> tuple[Finding, str]:
    """At 110 layers BN after the addition is worse than BN before the addition (Identity Mappings: 8.17 against 6.61).

    Rule: its test error is higher; refuted if a difference of 0.5 points is ruled out.
    """
    gap, numbers = compare_placements(sample)
    return is_positive(gap, TOLERANCE), numbers


@claim("B3", at_depth(32), least_seeds=MINIMUM)
def bn_placement_at_32(sample: Sample) -> tuple[Finding, str]:
    """At 32 layers BN before the addition lowers the test error by about 1.5 points (a blog, no source kept).

    Rule: the difference is above zero and equal to 1.5 points to within 0.5 points; refuted if a difference of 0.5 points, or
    one within 0.5 points of 1.5, is ruled out.
    """
    gap, numbers = compare_placements(sample)
    gain = paper_value(BLOG, "gain of BN before the addition")
    return all_of(is_positive(gap, TOLERANCE), is_equivalent(gap - gain, TOLERANCE)), numbers
