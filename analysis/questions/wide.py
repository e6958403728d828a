"""Is a network with a twentieth of the parameters nearly as good as a wide one?"""

import pandas as pd

from analysis.claims import claim
from analysis.estimates import MINIMUM, Finding, all_of, is_equivalent, is_positive
from analysis.markdown import format_estimates, format_net, format_not_run, format_table
from analysis.paper import BLOG, RECIPES, paper_value
from analysis.records import select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, format_gap, format_verdicts
from experiments.wide import CONFIGS, NARROW, RESNET18, RESNET18_BY_THE_PAPER

NOT_RUN = (
    "Is ResNet-32 nearly as good as ResNet-18 for ImageNet, with more than twenty times its parameters? An unpublished blog "
    "reproduction (no source kept) reports 10% and 9%: `python experiments/sweep.py wide`."
)


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, CONFIGS)
    blog = [paper_value(BLOG, kind="residual", depth=32, variant="original"), paper_value(BLOG, kind="resnet18")]
    rows = [[format_net(net), format_estimates(select_runs(ours, net)), format_gap(ours, net, NARROW)] for net in CONFIGS]
    rows = [row for row in rows if row[1]]
    if len(rows) < 2:
        return ""
    table = format_table(["network", "test error", "difference from ResNet-32"], rows)
    return f"""## Is ResNet-32 nearly as good as networks with more than twenty times its parameters?

An unpublished blog reproduction (no source kept) compares its ResNet-32 ({blog[0]:g}% test error) with a ResNet-18
({blog[1]:g}%); tuned recipes of ResNet-18 reach about {paper_value(RECIPES, kind="resnet18"):g}%
({format_verdicts(runs, "W1", "W2")}).

{table}

Test error in %, {precision}. {format_not_run(ours, CONFIGS, "python experiments/sweep.py wide")}"""


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("W1", [NARROW, RESNET18], least_seeds=MINIMUM)
def narrow_is_nearly_as_good(nets: Sample) -> tuple[Finding, str]:
    """ResNet-32 is nearly as good as ResNet-18, which has more than twenty times its parameters.

    Rule: with the one-cycle recipe for ResNet-18, the test errors are equal to within the blog's difference of 1 point.
    """
    gap = nets.difference(0, 1)
    within = paper_value(BLOG, kind="residual", depth=32, variant="original") - paper_value(BLOG, kind="resnet18")
    return is_equivalent(gap, within), f"{nets.list()}; difference {gap}"


@claim("W2", [RESNET18, RESNET18_BY_THE_PAPER])
def wide_stays_behind_its_recipes(nets: Sample) -> tuple[Finding, str]:
    """ResNet-18 has a test error near 9% (a blog, no source kept), not near the 5% of tuned recipes.

    Rule: with the one-cycle recipe and with the paper's, its test error is nearer to the blog's number.
    """
    middle = (paper_value(BLOG, kind="resnet18") + paper_value(RECIPES, kind="resnet18")) / 2
    parts = [is_positive(nets.combine({position: 1}) - middle) for position in range(2)]
    return all_of(*parts), f"{nets.list()}; halfway {middle:g}"
