"""Is a net of a twentieth of the parameters nearly as good as a wide one?"""

import pandas as pd

from analysis.claims import Outcome, claim
from analysis.estimates import all_of, is_equivalent, is_positive
from analysis.markdown import format_estimates, format_label, format_number, format_runs, format_table
from analysis.paper import BLOG, RECIPES, kind_of, load_paper, paper_value, published
from analysis.records import comparable_runs, select_runs
from analysis.sample import Sample, format_difference
from experiments.wide import CONFIGS, NARROW, RESNET18, RESNET18_BY_THE_PAPER


def format_section(runs: pd.DataFrame, link: str) -> str:
    full = comparable_runs(runs)
    return f"""## Wide nets

torchvision's ResNet-18 and ResNet-50, made for small images, beside the paper's ResNet-32. A blog's 32-layer net has 10% test
error and is set beside a ResNet-18 of 9%; well-kept recipes of the latter reach about 5%.

{compare_nets(full)}

{format_runs(full, CONFIGS, link)}"""


def compare_nets(runs: pd.DataFrame) -> str:
    parameters = published(load_paper(), quantity="parameters")
    theirs = published(load_paper(), quantity="test error")
    rows = []
    for net in CONFIGS:
        of_net = parameters[parameters["kind"] == kind_of(net)]
        count = of_net[of_net["depth"] == net.depth] if net == NARROW else of_net
        found = theirs[(theirs["kind"] == kind_of(net)) & (theirs["source"].isin((BLOG, RECIPES)))]
        found = found[(found["depth"] == net.depth) & (found["variant"] == "original")] if net == NARROW else found
        listed = ", ".join(f"{format_number(row)} ({row['source']})" for _, row in found.iterrows())
        difference = "" if net == NARROW else format_difference(runs, net, NARROW)
        rows.append(
            [
                format_label(net),
                f"{count['value'].item():,.0f}",
                format_estimates(select_runs(runs, net)),
                difference,
                listed or "-",
            ]
        )
    return format_table(["net", "parameters", "test error", "difference from ResNet-32", "others"], rows)


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("W1")
def narrow_is_nearly_as_good(runs: pd.DataFrame) -> Outcome:
    """ResNet-32 is nearly as good as ResNet-18, which has more than twenty times its parameters.

    Rule: ResNet-32's test error is similar to that of ResNet-18 by the one-cycle recipe, to within the blog's difference of
    1 point.
    """
    sample = Sample(runs, NARROW, RESNET18)
    gap = sample.difference(0, 1)
    within = paper_value(BLOG, kind="residual", depth=32, variant="original") - paper_value(BLOG, kind="resnet18")
    return Outcome(is_equivalent(gap, within), f"{sample.list()}; difference {gap}{sample.note}", sample.seeds)


@claim("W2")
def wide_stays_behind_its_recipes(runs: pd.DataFrame) -> Outcome:
    """ResNet-18 has a test error near 9% (the blog), not near the 5% of well-kept recipes.

    Rule: by the one-cycle recipe and by the paper's, its test error is clearly nearer to the blog's number.
    """
    sample = Sample(runs, RESNET18, RESNET18_BY_THE_PAPER)
    middle = (paper_value(BLOG, kind="resnet18") + paper_value(RECIPES, kind="resnet18")) / 2
    parts = [is_positive(sample.mean(i) - middle) for i in range(2)]
    return Outcome(all_of(*parts), f"{sample.list()}; halfway {middle:g}{sample.note}", sample.seeds)
