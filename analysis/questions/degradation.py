"""Do deeper plain networks get worse, and deeper residual networks better? Fig. 6 and Table 6."""

from collections.abc import Sequence

import pandas as pd

from analysis.claims import TOLERANCE, Rule, claim
from analysis.estimates import Finding, all_of, is_positive, matches_published, prediction
from analysis.markdown import format_estimates, format_not_run, format_number, format_table, join_words
from analysis.paper import HE, load_paper, paper_value, published
from analysis.records import finished_runs, select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, format_gap, format_published, format_verdicts
from experiments import deep, degradation
from reproduce.config import Config

RESIDUAL = [*degradation.RESIDUAL, deep.DEEPEST]
"""The columns of Table 6."""
TWINS = [net for net in degradation.RESIDUAL if net.depth < 110]
"""The nets whose plain twins learn."""
PLAIN_TWINS = [net for net in degradation.PLAIN if net.depth < 110]


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    return f"""## Do deeper plain networks get worse, and deeper residual networks better?

Plain networks do in our runs; for residual networks beyond 32 layers it is undecided
({format_verdicts(runs, "C1", "C2", "C3")}). {describe_selection(ours)}

{compare_depths(ours)}

Errors in %, {precision}. The paper reports single runs (five at 110 layers), so the interval of "ours - paper" is a 95%
prediction interval for the difference of two single runs or means like these.
{format_not_run(ours, degradation.CONFIGS, "python experiments/sweep.py degradation")}

Other reproductions, residual networks; final or unstated evaluation (-: not reported; †: different weight decay or
preprocessing):

{format_published("residual", [net.depth for net in RESIDUAL])}

Plain networks:

{format_published("plain", [net.depth for net in degradation.PLAIN])}"""


def recorded(runs: pd.DataFrame, nets: Sequence[Config]) -> list[Config]:
    """Return the networks with finished runs."""
    return [net for net in nets if len(finished_runs(select_runs(runs, net)))]


def list_depths(nets: Sequence[Config]) -> str:
    return join_words([str(net.depth) for net in nets])


def describe_selection(ours: pd.DataFrame) -> str:
    """Return by how much the best evaluation on the test set would be better than the final iterate."""
    done = finished_runs(pd.concat([select_runs(ours, net) for net in degradation.CONFIGS]))
    if done.empty:
        return ""
    gains = (done["test_error"] - done["best_test_error"]).astype(float)
    return (
        f"Errors are those of the final iterate; the best evaluation of each run, selected on the test set, would be "
        f"{gains.mean():.2f} points lower on average ({len(done)} runs)."
    )


def subtract_paper(ours: pd.DataFrame, net: Config) -> str:
    """Return our test error minus the paper's, with the 95% interval of the difference from one more run."""
    if not recorded(ours, [net]):
        return ""
    return str(prediction(Sample(ours, net).mean(0)) - paper_value(HE, kind="residual", depth=net.depth))


def compare_depths(ours: pd.DataFrame) -> str:
    numbers = published(load_paper(), source=HE, quantity="test error")
    paper = {(row["kind"], row["depth"]): format_number(row) for _, row in numbers.iterrows()}
    rows = []
    for residual, plain in zip(degradation.RESIDUAL, degradation.PLAIN, strict=True):
        if recorded(ours, [residual, plain]):
            row: list[object] = [residual.depth]
            for kind, net in (("residual", residual), ("plain", plain)):
                cell = select_runs(ours, net)
                row += [paper[kind, net.depth], format_estimates(cell), format_estimates(cell, "train_error")]
            rows.append([*row, subtract_paper(ours, residual), format_gap(ours, plain, residual)])
    header = ["layers", *(f"{kind}: {what}" for kind in ("ResNet", "plain") for what in ("paper", "ours, test", "ours, train"))]
    header += ["ResNet: ours - paper", "ours: plain - ResNet"]
    return format_table(header, rows)


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("C1", PLAIN_TWINS)
def deeper_plain_is_worse(nets: Sample) -> tuple[Finding, str]:
    """Deeper plain networks have higher training and test error.

    Rule: the test error rises at each step from 20 over 32 and 44 to 56 layers, and the training error from 20 to 56.
    """
    training = nets.difference(3, 0, "train_error")
    finding = all_of(*map(is_positive, nets.steps()), is_positive(training))
    steps = f"steps {', '.join(map(str, nets.steps()))}"
    return finding, f"{nets.list()}; {steps}; {nets.list('train_error')}; 56 - 20: {training}"


@claim("C2", TWINS)
def deeper_residual_is_better(nets: Sample) -> tuple[Finding, str]:
    """Deeper residual networks have lower test error, from 20 to 56 layers.

    Rule: the test error falls from 20 to 32 and from 32 to 56 layers (44 layers are too close to both in the paper for a test).
    """
    steps = nets.difference(0, 1), nets.difference(1, 3)
    return all_of(*map(is_positive, steps)), f"{nets.list()}; 20 - 32: {steps[0]}, 32 - 56: {steps[1]}"


@claim("C9", [TWINS[-1], degradation.RESIDUAL[-1]])
def residual_110_is_better_still(nets: Sample) -> tuple[Finding, str]:
    """ResNet-110 has a lower test error than ResNet-56.

    Rule: the test error falls from 56 to 110 layers.
    """
    gap = nets.difference(0, 1)
    return is_positive(gap), f"{nets.list()}; 56 - 110: {gap}"


@claim("C3", [net for net in degradation.CONFIGS if net.depth < 110])
def residual_beats_plain(nets: Sample) -> tuple[Finding, str]:
    """Residual networks have lower test error than plain ones, and the gap grows with depth.

    Rule: plain minus residual is above zero at 20, 32, 44 and 56 layers, and greater at 56 than at 20.
    """
    gaps = [nets.difference(2 * i, 2 * i + 1) for i in range(len(TWINS))]
    growth = nets.combine({0: -1, 1: 1, 6: 1, 7: -1})
    listed = ", ".join(f"{net.depth}: {gap}" for net, gap in zip(TWINS, gaps, strict=True))
    return all_of(*map(is_positive, [*gaps, growth])), f"plain - residual, {listed}; 56 - 20: {growth}"


def judge_table_6(net: Config) -> Rule:
    number = paper_value(HE, kind="residual", depth=net.depth)

    def rule(sample: Sample) -> tuple[Finding, str]:
        gap = prediction(sample.mean(0)) - number
        return matches_published(gap, TOLERANCE), f"{sample.list()}; ours - paper: {gap}"

    rule.__doc__ = f"""ResNet-{net.depth} is consistent with the test error of {number:.2f}% in Table 6.

    Rule: the published number lies in the 95% prediction interval of one more run of ours, and within 0.5 points of our mean;
    refuted if it does neither.
    """
    return rule


for net in TWINS:
    claim(f"T{net.depth}", [net])(judge_table_6(net))
