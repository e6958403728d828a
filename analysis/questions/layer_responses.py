"""Are the responses of residual nets smaller, and the smaller the deeper the net? Fig. 7."""

import math

import numpy as np
import pandas as pd

from analysis.claims import Outcome, claim
from analysis.estimates import all_of, is_positive
from analysis.markdown import format_estimates, format_figure, format_not_run, format_table
from analysis.records import select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, format_verdicts, mean_error
from experiments import deep, degradation
from reproduce.config import Config

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

Mean standard deviation over the layers, {precision}, on the test set.
{format_not_run(ours, NETS, "python experiments/sweep.py degradation")}

{format_figure(ours, NETS, "layer_responses", "Fig. 7 from our runs")}"""


def describe_responses(ours: pd.DataFrame) -> str:
    smaller, known = count_smaller_responses(ours)
    return f"Averaged over the layers, they are smaller at {smaller} of {known} depths" if known else "Not known yet"


def count_smaller_responses(ours: pd.DataFrame) -> tuple[int, int]:
    """Return at how many depths the mean response is smaller in the residual network, and how many depths are known."""
    ours = with_mean_response(ours)
    means = [
        [mean_error(ours, net, "mean_response") for net in twins]
        for twins in zip(degradation.PLAIN, degradation.RESIDUAL, strict=True)
    ]
    known = [(plain, residual) for plain, residual in means if plain == plain and residual == residual]
    return sum(residual < plain for plain, residual in known), len(known)


def with_mean_response(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with responses, and a column `mean_response`: the mean of the 3x3 layers' standard deviations."""
    runs = runs[runs["responses"].notna()]
    return runs.assign(mean_response=[math.fsum(std) / len(std) for std in runs["responses"]])


# Claims ---------------------------------------------------------------------------------------------------------------


def sample_responses(runs: pd.DataFrame, *nets: Config) -> Sample:
    """A sample of the runs that have responses, with the column mean_response."""
    sample = Sample(runs[runs["responses"].notna() | (runs["status"] != "finished")], *nets)
    sample.cells, sample.is_published = [with_mean_response(cell) for cell in sample.cells], False
    return sample


@claim("C6")
def responses_are_smaller(runs: pd.DataFrame) -> Outcome:
    """Layer responses have generally smaller standard deviations in residual than in plain nets (Fig. 7).

    Rule: at 20 and at 56 the mean over the layers is clearly larger in the plain net, and more than half of the layers
    have, averaged over the seeds, the larger one there.
    """
    depths = (20, 56)
    sample = sample_responses(runs, *(Config(depth=depth, residual=residual) for depth in depths for residual in (False, True)))
    parts, numbers = [], []
    for position, depth in zip((0, 2), depths, strict=True):
        gap = sample.difference(position, position + 1, "mean_response")
        plain, residual = (np.mean(sample.cells[i]["responses"].tolist(), axis=0) for i in (position, position + 1))
        share = float(np.mean(plain > residual))
        parts += [is_positive(gap), share > 0.5]
        numbers.append(f"plain - residual at {depth}: {gap}, {share:.0%} of the layers")
    return Outcome(all_of(*parts), "; ".join(numbers) + sample.note, sample.seeds)


@claim("C7")
def responses_shrink_with_depth(runs: pd.DataFrame) -> Outcome:
    """Deeper residual nets have smaller responses per layer (Fig. 7).

    Rule: the mean over the layers rises from 110 to 56 and to 20, and 20 is clearly above 110.
    """
    sample = sample_responses(runs, *(Config(depth=depth) for depth in (110, 56, 20)))
    ends = sample.difference(2, 0, "mean_response")
    finding = all_of(sample.increases("mean_response"), is_positive(ends))
    return Outcome(finding, f"{sample.list('mean_response')}; 20 - 110: {ends}{sample.note}", sample.seeds)
