"""Do deeper plain nets get worse, and do residual nets of the same layers get better? Fig. 6 and Table 6."""

from collections.abc import Sequence

import pandas as pd

from analysis.claims import TOLERANCE, Outcome, claim
from analysis.estimates import all_of, increases, is_positive, matches_published
from analysis.markdown import format_estimates, format_figure, format_number, format_runs, format_table
from analysis.paper import HE, load_paper, paper_value, published
from analysis.questions.precision import is_neutral
from analysis.records import PRECISIONS, comparable_runs, finished_runs, select_runs
from analysis.sample import Sample
from experiments import deep, degradation
from reproduce.config import PAPER_ITERATIONS, Config

RESIDUAL = [*degradation.RESIDUAL, deep.DEEPEST]
"""The columns of Table 6."""
TWINS = [net for net in degradation.RESIDUAL if net.depth < 110]
"""The nets whose plain twins learn."""
PLAIN_TWINS = [net for net in degradation.PLAIN if net.depth < 110]


def format_section(runs: pd.DataFrame, link: str) -> str:
    full = comparable_runs(runs)
    return f"""## Table 6: residual nets

{side_by_side(full, RESIDUAL)}

The runs behind our row:

{format_runs(full, RESIDUAL, link)}

## Plain nets

The paper plots the plain nets and gives no numbers; what was read off its Fig. 6 is marked.

{side_by_side(full, degradation.PLAIN)}

The runs behind our row:

{format_runs(full, degradation.PLAIN, link)}

{format_figure(full, degradation.CONFIGS, "degradation")}"""


def side_by_side(runs: pd.DataFrame, nets: Sequence[Config]) -> str:
    """The paper, ours and the peers, a column per net."""
    paper = published(load_paper(), kind="residual" if nets[0].residual else "plain", variant="")
    rows = []
    for (source, quantity), group in paper.groupby(["source", "quantity"], sort=False):
        if quantity in ("test error", "best test error"):
            by_depth = {int(row["depth"]): format_number(row) for _, row in group.iterrows()}
            name = f"{source}{', best' if quantity == 'best test error' else ''}"
            rows.append([name, *(by_depth.get(net.depth, "-") for net in nets), group["protocol"].iloc[0]])
    found = pd.concat([select_runs(runs, net) for net in nets])["precision"]
    ours = []
    for precision in [p for p in PRECISIONS if (found == p).any()] or [Config().precision]:
        errors = [format_estimates(select_runs(runs, net), precision=precision) for net in nets]
        protocol = f"50k images; {PAPER_ITERATIONS // 1000}k iterations; final"
        protocol += "" if is_neutral(runs, precision) else f"; {precision} is not shown to be neutral"
        ours.append([f"**ours, {precision}**", *errors, protocol])
    if nets[0].residual:
        rows += parameter_rows(runs, nets)
    return format_table(["", *(str(net.depth) for net in nets), "protocol"], [rows[0], *ours, *rows[1:]])


def parameter_rows(runs: pd.DataFrame, nets: Sequence[Config]) -> list[list[str]]:
    """Parameters as the paper rounds them, as derived, and as counted in the trained nets; and the cost of an image."""
    paper = published(load_paper(), quantity="million parameters").set_index("depth")["value"]
    derived = published(load_paper(), quantity="parameters").set_index("depth")["value"]
    cost = published(load_paper(), quantity="forward million multiply-adds").set_index("depth")["value"]
    counted = [finished_runs(select_runs(runs, net))["parameters"].unique() for net in nets]
    return [
        [f"parameters, {HE}", *(f"{paper[net.depth]:g}M" for net in nets), "rounded"],
        ["parameters, derived", *(f"{derived[net.depth]:,.0f}" for net in nets), "from the definition"],
        ["parameters, ours", *(", ".join(f"{count:,.0f}" for count in counts) or "-" for counts in counted), "counted"],
        ["multiply-adds, derived", *(f"{cost[net.depth]:g}M" for net in nets), "one image, forward"],
    ]


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
