"""How much of the schedule is needed? Test error by length of training."""

from dataclasses import replace

import pandas as pd

from analysis.markdown import format_estimates, format_figure, format_net, format_table, join_words
from analysis.records import finished_runs, select_runs
from analysis.sample import choose_precision
from analysis.sections import mean_error
from experiments import degradation
from reproduce.config import PAPER_ITERATIONS, Config

NETS = [net for net in degradation.CONFIGS if net.depth in (20, 56)]


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    precision = choose_precision(runs, NETS)
    ours = runs[runs["precision"] == precision]
    found = pd.concat([finished_runs(select_runs(ours, net, free=("iterations",))) for net in NETS])
    lengths = sorted(set(found["iterations"]))
    rows = [
        [
            f"{length:,}",
            f"{length / PAPER_ITERATIONS:.1%}",
            *(format_estimates(select_runs(ours, at(net, length))) for net in NETS),
        ]
        for length in lengths
    ]
    figure = format_figure(ours, [at(net, n) for net in NETS for n in lengths], "length", "Test error by length of training")
    return f"""## How much of the schedule is needed?

{describe_lengths(ours)}

{format_table(["iterations", "fraction of the schedule", *map(format_net, NETS)], rows)}

Test error in %, {precision}, at the end of schedules of the same shape (learning rate divided by 10 after 1/2 and 3/4). A
network is stuck if its training error stays at 80% or more. `python experiments/sweep.py degradation --iterations 16000`
trains a quarter of the schedule. Only full-length runs are compared with the paper.

{figure}"""


def describe_lengths(ours: pd.DataFrame) -> str:
    """Return by how much shorter schedules increase the test error, at each length that several networks have."""
    words = []
    for length in sorted(set(ours["iterations"]) - {PAPER_ITERATIONS}):
        pairs = ((net, at(net, length)) for net in NETS)
        losses = {net: mean_error(ours, short) - mean_error(ours, net) for net, short in pairs}
        known = [f"{loss:.2f} ({format_net(net)})" for net, loss in losses.items() if loss == loss]
        if known and length >= PAPER_ITERATIONS / 20:
            words.append(
                f"at {length / PAPER_ITERATIONS:.0%} of the schedule, the test error is higher by {join_words(known)} points"
            )
    text = "; ".join(words)
    return f"{text[0].upper()}{text[1:]}." if text else "Not known yet."


def at(net: Config, iterations: int) -> Config:
    return replace(net, iterations=iterations)
