"""How much of the schedule do the nets need? Test error against the length of training."""

from dataclasses import replace

import pandas as pd

from analysis.markdown import format_estimates, format_figure, format_net, format_table, join_words
from analysis.records import finished_runs, select_runs
from analysis.sample import choose_precision
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

{format_table(["iterations", "share of the schedule", *map(format_net, NETS)], rows)}

Test error in %, {precision}, at the end of schedules of the same shape (learning rate divided by 10 after 1/2 and 3/4).
`python experiments/sweep.py degradation --iterations 16000` trains a quarter of the schedule. Only full-length runs are
compared with the paper.

{figure}"""


def describe_lengths(ours: pd.DataFrame) -> str:
    """Return what the shortest and longest recorded schedules cost each network."""
    words = []
    for net in NETS:
        done = finished_runs(select_runs(ours, net, free=("iterations",)))
        means = done.groupby("iterations")["test_error"].mean()
        shorter = means[means.index < PAPER_ITERATIONS]
        if len(shorter) and PAPER_ITERATIONS in means.index:
            length = shorter.index.max()
            loss = shorter[length] - means[PAPER_ITERATIONS]
            words.append(f"{format_net(net)} loses {loss:.2f} points with {length / PAPER_ITERATIONS:.0%} of the schedule")
    return f"{join_words(words)}." if words else "Not known yet."


def at(net: Config, iterations: int) -> Config:
    return replace(net, iterations=iterations)
