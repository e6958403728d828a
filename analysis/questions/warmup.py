"""Does ResNet-56 need the warm-up that the paper gives ResNet-110 only?"""

import pandas as pd

from analysis.claims import claim
from analysis.estimates import Finding, is_positive
from analysis.markdown import format_estimates, format_figure, format_net, format_not_run, format_number, format_table
from analysis.paper import load_paper, published
from analysis.records import finished_runs, select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, format_verdicts, mean_error
from experiments import degradation
from experiments.warmup import WITH
from reproduce.config import Config

WITHOUT = [net for net in degradation.RESIDUAL if net.depth < 110]
START = (1000, 2000, 3000, 4000, 5000)
"""Iterations at whose evaluations the slow start is shown."""
SOURCES = {
    "surajit-13-sutradhar/resnet": "none",
    "Tony-Y/pytorch_warmup, no warm-up": "none",
    "Tony-Y/pytorch_warmup, 1k-step warm-up": "1,000 iterations",
    "raphaelreme/torch-resnet": "400 iterations",
}
"""Published results that state their warm-up at 56 layers."""


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, [*WITHOUT, *WITH])
    rows = []
    for config in [*WITHOUT, *WITH]:
        cell = finished_runs(select_runs(ours, config))
        if len(cell):
            warmup = "400 iterations" if config in WITH else "none"
            errors = [format_estimates(cell, "train_error"), format_estimates(cell)]
            rows.append([format_net(config), warmup, *start_errors(cell, curves), *errors])
    spans = ["1 to 1,000", *(f"to {end:,}" for end in START[1:])]
    header = ["network", "warm-up", *spans, "final training", "final test"]
    return f"""## Does ResNet-56 need a warm-up?

The paper uses one for 110 layers only ({format_verdicts(runs, "W56")}). {describe_training(ours, curves)}

{format_table(header, rows)}

Error in %, {precision}: training error over the iterations named (mean over seeds), final training and test error.
{format_not_run(ours, WITH, "python experiments/sweep.py warmup")}

{format_figure(ours, WITHOUT, "warmup", "Training error at the start of training")}

Published test errors with and without a warm-up:

{format_published_warmups()}"""


def start_errors(cell: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Return the mean training error over each of the spans that end at START."""
    rows = curves[curves["folder"].isin(cell["folder"])]
    errors = rows.groupby("iteration")["train_error"].mean()
    return [f"{errors[end]:.1f}" if end in errors else "" for end in START]


def describe_training(ours: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return how ResNet-56 starts and ends without a warm-up, compared with ResNet-32."""
    shallow, deep = (finished_runs(select_runs(ours, Config(depth=depth))) for depth in (32, 56))
    if shallow.empty or deep.empty:
        return ""
    (_, *_, slow), (_, *_, fast) = start_errors(deep, curves), start_errors(shallow, curves)
    fits = [mean_error(ours, net, "train_error") for net in WITHOUT]
    lowest = ", the lowest of the four" if fits[-1] == min(fits) else ""
    return (
        f"Without one, the training error of ResNet-56 is {slow}% over iterations 4,001 to 5,000 (ResNet-32: {fast}%) and ends "
        f"at {fits[-1]:.2f}%{lowest}, with a test error of {mean_error(ours, WITHOUT[-1]):.2f}% (ResNet-32: "
        f"{mean_error(ours, WITHOUT[1]):.2f}%)."
    )


def format_published_warmups() -> str:
    rows = []
    for source, warmup in SOURCES.items():
        numbers = published(load_paper(), source=source, kind="residual", quantity="test error", variant="")
        by_depth = {int(row["depth"]): format_number(row) for _, row in numbers.iterrows()}
        if by_depth:
            errors = [by_depth.get(net.depth, "") for net in WITHOUT]
            rows.append([source.split(",")[0], warmup, *errors, numbers["protocol"].iloc[0]])
    return format_table(["source", "warm-up", *(net.depth for net in WITHOUT), "protocol"], rows)


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("W56", [Config(depth=56), Config(depth=56, warmup="iterations")])
def warmup_helps_at_56(nets: Sample) -> tuple[Finding, str]:
    """The warm-up that the paper gives 110 layers already matters at 56.

    Rule: the test error of ResNet-56 is lower with 400 iterations at a learning rate of 0.01 than without.
    """
    gap = nets.difference(0, 1)
    return is_positive(gap), f"{nets.list()}; without - with {gap}"
