"""Are the responses of residual networks smaller than those of plain ones, and smaller with more depth? Fig. 7."""

import math

import numpy as np
import pandas as pd

from analysis.claims import claim
from analysis.estimates import MINIMUM, Finding, all_of, is_positive
from analysis.markdown import format_estimates, format_figure, format_not_run, format_table
from analysis.records import comparable_runs, select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, format_verdicts, mean_error
from experiments import deep, degradation

NETS = [net for net in degradation.PLAIN if net.depth in (20, 56)] + [
    net for net in degradation.RESIDUAL if net.depth in (20, 56, 110)
]
"""Those of Fig. 7."""


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    ours = with_mean_response(ours)
    rows = []
    for plain, residual in zip([*degradation.PLAIN, None], [*degradation.RESIDUAL, deep.DEEPEST], strict=True):
        found = [format_estimates(select_runs(ours, net), "mean_response") if net else "" for net in (plain, residual)]
        if any(found):
            rows.append([residual.depth, *found])
    return f"""## Are the layer responses of residual networks smaller?

{describe_responses(ours)} ({format_verdicts(runs, "C6", "C7")}). A response is the output of a 3x3 layer after BN, before ReLU
and addition.

{format_table(["layers", "plain", "residual"], rows)}

Standard deviation of the layer responses on the test set, averaged over the layers; {precision}.
{format_not_run(ours, NETS, "python experiments/sweep.py degradation")}

{format_figure(ours, NETS, "layer_responses", "Standard deviation of the response of each 3x3 layer, in our runs (Fig. 7)")}"""


def describe_responses(ours: pd.DataFrame) -> str:
    means = compare_responses(ours)
    smaller = sum(residual < plain for plain, residual in means.values())
    which = "all" if smaller == len(means) else f"{smaller} of {len(means)}"
    return f"Averaged over the layers they are, at {which} depths; single layers can differ" if means else "Not known yet"


def compare_responses(ours: pd.DataFrame) -> dict[int, tuple[float, float]]:
    """Return the mean response of the plain and the residual network at each depth that has both."""
    ours = with_mean_response(ours)
    means = {}
    for plain, residual in zip(degradation.PLAIN, degradation.RESIDUAL, strict=True):
        pair = mean_error(ours, plain, "mean_response"), mean_error(ours, residual, "mean_response")
        if not np.isnan(pair).any():
            means[plain.depth] = pair
    return means


def with_mean_response(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with responses, and a column `mean_response`: the mean of the 3x3 layers' standard deviations."""
    runs = runs[runs["responses"].notna()]
    return runs.assign(mean_response=[math.fsum(std) / len(std) for std in runs["responses"]])


# Claims ---------------------------------------------------------------------------------------------------------------


def comparable_responses(runs: pd.DataFrame) -> pd.DataFrame:
    return with_mean_response(comparable_runs(runs))


@claim("C6", NETS[:4], least_seeds=MINIMUM, prepare=comparable_responses)
def responses_are_smaller(nets: Sample) -> tuple[Finding, str]:
    """Layer responses have generally smaller standard deviations in residual than in plain networks (Fig. 7).

    Rule: at 20 and at 56 layers the mean over the layers is greater in the plain network, and so are more than half of the
    layers, averaged over seeds.
    """
    parts, numbers = [], []
    for position, net in enumerate(NETS[:2]):
        gap = nets.difference(position, position + 2, "mean_response")
        plain, residual = (np.mean(nets.cells[i]["responses"].tolist(), axis=0) for i in (position, position + 2))
        share = float(np.mean(plain > residual))
        parts += [is_positive(gap), share > 0.5]
        numbers.append(f"plain - residual at {net.depth} layers: {gap}, greater in {share:.0%} of the layers")
    return all_of(*parts), "; ".join(numbers)


@claim("C7", NETS[2:], least_seeds=MINIMUM, prepare=comparable_responses)
def responses_shrink_with_depth(nets: Sample) -> tuple[Finding, str]:
    """Deeper residual networks have smaller responses per layer (Fig. 7).

    Rule: the mean over the layers falls from 20 to 56 and from 56 to 110 layers.
    """
    falls = [nets.difference(i, i + 1, "mean_response") for i in range(2)]
    return all_of(*map(is_positive, falls)), f"{nets.list('mean_response')}; steps {', '.join(map(str, falls))}"
