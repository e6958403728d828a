"""Is a network with a twentieth of the parameters nearly as accurate as a wide one?"""

import pandas as pd

from analysis.claims import claim
from analysis.estimates import MINIMUM, Finding, all_of, is_equivalent, is_positive
from analysis.paper import BLOG, RECIPES, paper_value
from analysis.sample import Sample
from analysis.sections import format_differences, format_verdicts
from experiments.wide import CONFIGS, NARROW, RESNET18, RESNET18_PAPER_RECIPE

TITLE = "Is ResNet-32 (0.46M parameters) nearly as accurate as ResNet-18 (11.2M)?"
INTRODUCTION = (
    "An unpublished blog reproduction (no source kept) reports test errors of 10% and 9%; tuned recipes of ResNet-18 reach "
    "about 5%"
)
NOT_RUN = f"{TITLE} `python experiments/sweep.py wide`"


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    table = format_differences(runs, CONFIGS[1:], NARROW, "wide")
    return f"## {TITLE}\n\n{INTRODUCTION} ({format_verdicts(runs, 'W1', 'W2')}).\n\n{table}" if table else ""


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("W1", [NARROW, RESNET18], least_seeds=MINIMUM)
def narrow_is_nearly_as_good(sample: Sample) -> tuple[Finding, str]:
    """ResNet-32 is nearly as good as ResNet-18, which has more than twenty times its parameters.

    Rule: with the one-cycle recipe for ResNet-18, the test errors are equal to within the blog's difference of 1 point.
    """
    gap = sample.difference(0, 1)
    within = paper_value(BLOG, kind="residual", depth=32, variant="original") - paper_value(BLOG, kind="resnet18")
    return is_equivalent(gap, within), f"{sample.format_means()}; difference {gap}"


@claim("W2", [RESNET18, RESNET18_PAPER_RECIPE])
def wide_has_the_error_of_the_blog(sample: Sample) -> tuple[Finding, str]:
    """ResNet-18 has a test error near 9% (a blog, no source kept), not near the 5% of tuned recipes.

    Rule: with the one-cycle recipe and with the paper's, its test error is nearer to the blog's number.
    """
    middle = (paper_value(BLOG, kind="resnet18") + paper_value(RECIPES, kind="resnet18")) / 2
    parts = [is_positive(sample.weighted_sum({position: 1}) - middle) for position in range(2)]
    return all_of(*parts), f"{sample.format_means()}; halfway {middle:g}"
