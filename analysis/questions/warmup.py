"""Does ResNet-56 need the warm-up that the paper gives ResNet-110 only?"""

import pandas as pd

from analysis.claims import claim
from analysis.estimates import Finding, is_positive
from analysis.markdown import (
    format_estimates,
    format_figure,
    format_net,
    format_not_run,
    format_number,
    format_table,
    join_words,
)
from analysis.paper import HE, load_paper, published
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
CPU_START = Config(depth=56, iterations=3200, precision="bf16")


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, [*WITHOUT, *WITH])
    rows = []
    for config in [*WITHOUT, *WITH]:
        cell = finished_runs(select_runs(ours, config))
        if len(cell):
            warmup = "400 iterations" if config in WITH else "none"
            errors = [format_estimates(cell, "train_error"), format_estimates(cell)]
            rows.append([format_net(config), warmup, *start_errors(cell, curves), *errors])
    spans = ["1-1,000", *(f"{end - 999:,}-{end:,}" for end in START[1:])]
    header = ["network", "warm-up", *spans, "final training error", "final test error"]
    return f"""## Does ResNet-56 need a warm-up?

Unknown: the paper uses one for 110 layers only ({format_verdicts(runs, "W56")}). {describe_training(ours, curves)}

{format_table(header, rows)}

Training error in % over each window of iterations (mean over seeds), then final training and test error; {precision}.
{format_not_run(ours, WITH, "python experiments/sweep.py warmup")}

{format_figure(ours, WITHOUT, "warmup", "Training error at the start of training, mean over seeds")}

Among the reproductions above, only Tony-Y/pytorch_warmup compares both: at 20, 32, 44 and 56 layers, {compare_warmups()}.
With a warm-up, raphaelreme/torch-resnet ends at {list_source("raphaelreme/torch-resnet")}; without one,
surajit-13-sutradhar/resnet at
{list_source("surajit-13-sutradhar/resnet")}, and the paper at {list_source(HE)}."""


def list_source(source: str) -> str:
    """Return a source's test errors at 20, 32, 44 and 56 layers."""
    numbers = published(load_paper(), source=source, kind="residual", quantity="test error", variant="")
    by_depth = {int(row["depth"]): format_number(row) for _, row in numbers.iterrows()}
    return f"{join_words([by_depth[net.depth].removesuffix(' (n=5)') for net in WITHOUT])}%"


def compare_warmups() -> str:
    without, with_one = (list_source(f"Tony-Y/pytorch_warmup, {name}") for name in ("no warm-up", "1k-step warm-up"))
    return f"{without} without and {with_one} with a warm-up of 1,000 iterations (n=5)"


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
        f"Without a warm-up, ResNet-56's training error is {slow}% over iterations 4,001 to 5,000 (ResNet-32: {fast}%), and "
        f"{fits[-1]:.2f}% at the end{lowest} (ResNet-32: {fits[1]:.2f}%), so underfitting does not explain its test error. "
        f"{describe_cpu_start(curves)}"
    )


def describe_cpu_start(curves: pd.DataFrame) -> str:
    """Return the start of ResNet-56 in a run with a shorter schedule, which was trained on a CPU."""
    rows = curves[(curves["folder"] == f"{CPU_START.folder}") & (curves["iteration"] <= 1000)]
    if rows.empty:
        return ""
    return (
        f"The slow start is not specific to the H200, on which ResNet-56 was trained up to iteration 56,000: a CPU run with "
        f"{CPU_START.iterations:,} iterations (the same learning rate so far) has a training error of "
        f"{rows['train_error'].mean():.1f}% over the first {rows['iteration'].max():,}."
    )


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("W56", [Config(depth=56), Config(depth=56, warmup="iterations")])
def warmup_helps_at_56(nets: Sample) -> tuple[Finding, str]:
    """The warm-up that the paper uses for 110 layers also helps at 56.

    Rule: the test error of ResNet-56 is lower with 400 iterations at a learning rate of 0.01 than without.
    """
    gap = nets.difference(0, 1)
    return is_positive(gap), f"{nets.list()}; without - with {gap}"
