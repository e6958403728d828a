"""Do residual networks have smaller layer responses, and do they shrink with depth? Fig. 7."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.claims import claim
from analysis.estimates import MINIMUM, Finding, all_of, is_positive
from analysis.markdown import format_figure, format_not_run, format_table, group_labels, join_words
from analysis.records import select_finished
from analysis.sample import Sample
from analysis.sections import choose_runs, format_verdicts, mean_error
from experiments import degradation, warmup
from reproduce.config import Config

NETS = [net for net in degradation.PLAIN if net.depth in (20, 56)] + [
    net for net in degradation.RESIDUAL if net.depth in (20, 56, 110)
]
"""Those of Fig. 7."""


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    return f"""## Are the layer responses of residual networks smaller?

{describe_responses(ours)} ({format_verdicts(runs, "C6", "C7")}). A response is the output of a 3x3 layer after BN, before ReLU
and addition; its standard deviation is measured on the test set, {precision}.
{format_not_run(ours, NETS, f"python experiments/sweep.py degradation --precision {precision}")}

{format_figure(ours, NETS, "layer_responses", "Standard deviation of the response of each 3x3 layer, in our runs (Fig. 7)")}

{format_small_scales(ours, [*degradation.CONFIGS, *warmup.WITH])}"""


def describe_responses(ours: pd.DataFrame) -> str:
    """Return the mean standard deviation at each depth that has both networks."""
    pairs = [f"{residual:.2f} (plain: {plain:.2f}) at {depth}" for depth, (plain, residual) in compare_responses(ours).items()]
    if not pairs:
        return "Not known yet"
    return (
        f"The standard deviation of the responses, averaged over the layers, is {join_words(pairs)} layers; "
        "single layers can differ"
    )


def compare_responses(ours: pd.DataFrame) -> dict[int, tuple[float, float]]:
    """Return the mean response of the plain and the residual network at each depth that has both."""
    means = {}
    for plain, residual in zip(degradation.PLAIN, degradation.RESIDUAL, strict=True):
        pair = mean_error(ours, plain, "mean_response"), mean_error(ours, residual, "mean_response")
        if not np.isnan(pair).any():
            means[plain.depth] = pair
    return means


def share_small_scales(ours: pd.DataFrame, net: Config, limit: str) -> dict[str, float]:
    """Return the share of BN scales below `limit` in %, by stage and by first or second BN of a block, and of all layers.

    Averaged over the seeds for which it is recorded; empty without any.
    """
    scales = select_finished(ours, net)["small_scales"].dropna()
    if scales.empty:
        return {}
    layers = np.mean([each[limit] for each in scales], axis=0)
    stage = (net.depth - 2) // 3
    positions = {(s, bn): slice(s * stage + bn, (s + 1) * stage + 1, 2) for s in range(3) for bn in (1, 2)}
    shares = {f"stage {s + 1}, BN {bn}": 100 * float(layers[where].mean()) for (s, bn), where in positions.items()}
    channels = np.repeat([16, 16, 32, 64], [1, stage, stage, stage])
    return shares | {"all": 100 * float(np.average(layers, weights=channels))}


def format_small_scales(ours: pd.DataFrame, nets: Sequence[Config]) -> str:
    """Return the table of small BN scales, empty if none is recorded."""
    shares = {net: [share_small_scales(ours, net, limit) for limit in ("0.02", "0.05")] for net in nets}
    shares = {net: pair for net, pair in shares.items() if pair[0]}
    counts = {net: select_finished(ours, net)["small_scales"].count() for net in shares}
    if not shares:
        return ""
    columns = list(next(iter(shares.values()))[0])
    rows = [
        [group_labels([net]), counts[net], *(f"{below[column]:.1f} ({close[column]:.1f})" for column in columns)]
        for net, (below, close) in shares.items()
    ]
    return f"""BN scales near zero at the end of training (channels that are nearly switched off):

{format_table(["network", "runs", *columns], rows)}

Share of the scales below 0.02 (below 0.05) in absolute value, in %, by stage and by the first and second BN of its blocks;
"all" is the share of all channels and includes the first layer. Means over runs; it is not recorded for older runs whose
weights are not in weights/."""


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("C6", NETS[:4], least_seeds=MINIMUM)
def responses_are_smaller(sample: Sample) -> tuple[Finding, str]:
    """Layer responses have generally smaller standard deviations in residual than in plain networks (Fig. 7).

    Rule: at 20 and at 56 layers the mean over the layers is greater in the plain network, and so are more than half of the
    layers, averaged over seeds.
    """
    parts, numbers = [], []
    for position, net in enumerate(NETS[:2]):
        gap = sample.difference(position, position + 2, "mean_response")
        plain, residual = (np.mean(sample.groups[i]["responses"].tolist(), axis=0) for i in (position, position + 2))
        share = float(np.mean(plain > residual))
        parts += [is_positive(gap), share > 0.5]
        numbers.append(f"plain - residual at {net.depth} layers: {gap}, greater in {share:.0%} of the layers")
    return all_of(*parts), "; ".join(numbers)


@claim("C7", NETS[2:], least_seeds=MINIMUM)
def responses_shrink_with_depth(sample: Sample) -> tuple[Finding, str]:
    """Deeper residual networks have smaller responses per layer (Fig. 7).

    Rule: the mean over the layers falls from 20 to 56 and from 56 to 110 layers.
    """
    falls = [sample.difference(i, i + 1, "mean_response") for i in range(2)]
    return all_of(*map(is_positive, falls)), f"{sample.format_means('mean_response')}; steps {', '.join(map(str, falls))}"
