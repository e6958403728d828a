"""Do deeper plain networks get worse, and deeper residual networks better? Fig. 6 and Table 6."""

from collections.abc import Sequence

import pandas as pd

from analysis.claims import TOLERANCE, Outcome, claim
from analysis.estimates import all_of, increases, is_positive, matches_published
from analysis.markdown import format_estimates, format_not_run, format_number, format_table, join_words
from analysis.paper import HE, load_paper, paper_value, published
from analysis.records import finished_runs, select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, describe_trend, format_gap, format_published, format_verdicts, list_means, mean_error
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

{describe_degradation(runs, ours)}

{compare_depths(ours)}

Test and training error in %, {precision}; the paper's plain networks are read off its Fig. 6.
{format_not_run(ours, degradation.CONFIGS, "python experiments/sweep.py degradation")} The
figure is [above](#findings).

Other reproductions, residual networks:

{format_published("residual", [net.depth for net in RESIDUAL])}

Plain networks:

{format_published("plain", [net.depth for net in degradation.PLAIN])}"""


def describe_degradation(runs: pd.DataFrame, ours: pd.DataFrame) -> str:
    """Return the answer: plain networks, residual networks, and the difference."""
    plain, residual = recorded(ours, PLAIN_TWINS), recorded(ours, TWINS)
    if len(plain) < 2 or len(residual) < 2:
        return "Too few networks have been trained to answer."
    trend = describe_trend([mean_error(ours, net) for net in plain])
    gaps = [mean_error(ours, plain) - mean_error(ours, net) for plain, net in zip(PLAIN_TWINS, TWINS, strict=True)]
    return (
        f"The test error of the plain networks {trend} of depth ({list_means(ours, plain)}% at {list_depths(plain)} layers; "
        f"{format_verdicts(runs, 'C1')}). Residual networks end at {list_means(ours, residual)}% at {list_depths(residual)} "
        f"layers, {join_words([f'{gap:.2f}' for gap in gaps if gap == gap])} points below their plain twins "
        f"({format_verdicts(runs, 'C2', 'C3')}). {describe_selection(ours)}"
    )


def recorded(runs: pd.DataFrame, nets: Sequence[Config]) -> list[Config]:
    """Return the networks with finished runs."""
    return [net for net in nets if len(finished_runs(select_runs(runs, net)))]


def list_depths(nets: Sequence[Config]) -> str:
    return join_words([str(net.depth) for net in nets])


def describe_selection(ours: pd.DataFrame) -> str:
    """Return by how much the best evaluation on the test set would be better than the final iterate."""
    done = finished_runs(pd.concat([select_runs(ours, net) for net in degradation.CONFIGS]))
    gains = (done["test_error"] - done["best_test_error"]).astype(float)
    return (
        f"Every number is that of the final iterate; the best evaluation of each run, selected on the test set, would be "
        f"{gains.mean():.2f} points lower on average."
    )


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
            rows.append([*row, format_gap(ours, plain, residual)])
    header = ["layers", "residual, paper", "ours", "training", "plain, paper", "ours", "training", "plain - residual"]
    return format_table(header, rows)


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("C1")
def deeper_plain_is_worse(runs: pd.DataFrame) -> Outcome:
    """Deeper plain nets have higher training and test error.

    Rule: over plain 20, 32, 44 and 56 the training error and the test error rise at every step, and 56 is clearly
    above 20 in both; otherwise fails where a difference of half a point between them is ruled out.
    """
    sample = Sample(runs, *PLAIN_TWINS)
    parts, numbers = [], []
    for column in ("train_error", "test_error"):
        ends = sample.difference(len(PLAIN_TWINS) - 1, 0, column)
        parts += [sample.increases(column), is_positive(ends, TOLERANCE)]
        numbers.append(f"{sample.list(column)}; 56 - 20: {ends}")
    return Outcome(all_of(*parts), "; ".join(numbers) + sample.note, sample.seeds)


@claim("C2")
def deeper_is_better(runs: pd.DataFrame) -> Outcome:
    """Deeper residual nets are better: the test error falls from 20 over 32, 44 and 56 to 110.

    Rule: the test error rises at every step from 110 back to 20, and 20 is clearly above 110; otherwise fails where a
    difference of half a point between them is ruled out.
    """
    sample = Sample(runs, *reversed(degradation.RESIDUAL))
    ends = sample.difference(len(degradation.RESIDUAL) - 1, 0)
    finding = all_of(sample.increases(), is_positive(ends, TOLERANCE))
    return Outcome(finding, f"{sample.list()}; 20 - 110: {ends}{sample.note}", sample.seeds)


@claim("C3")
def residual_beats_plain(runs: pd.DataFrame) -> Outcome:
    """Every residual net beats its plain twin, the more so the deeper it is.

    Rule: at 20, 32, 44 and 56 the plain net's test error is clearly above the residual net's, and the gap rises at
    every step; otherwise fails where a gap of half a point is ruled out.
    """
    sample = Sample(runs, *(net for net in degradation.CONFIGS if net.depth < 110))
    gaps = [sample.difference(2 * i, 2 * i + 1) for i in range(len(TWINS))]
    steps = [sample.contrast({2 * i: -1, 2 * i + 1: 1, 2 * i + 2: 1, 2 * i + 3: -1}) for i in range(len(TWINS) - 1)]
    finding = all_of(*(is_positive(gap, TOLERANCE) for gap in gaps), *(increases(step) for step in steps))
    listed = ", ".join(f"{net.depth}: {gap}" for net, gap in zip(TWINS, gaps, strict=True))
    return Outcome(finding, f"plain - residual, {listed}{sample.note}", sample.seeds)


@claim("T6")
def table_6(runs: pd.DataFrame) -> Outcome:
    """The test errors of Table 6 at 20, 32, 44 and 56.

    Rule: every one is met.
    """
    sample = Sample(runs, *TWINS)
    papers = [paper_value(HE, kind="residual", depth=net.depth) for net in TWINS]
    finding = all_of(*(matches_published(sample.term(i), paper, TOLERANCE) for i, paper in enumerate(papers)))
    listed = ", ".join(f"{net.depth}: {sample.mean(i) - papers[i]}" for i, net in enumerate(TWINS))
    return Outcome(finding, f"{sample.list()}; ours - paper, {listed}{sample.note}", sample.seeds)
