"""How much of the schedule do the nets need? Test error against the length of training."""

from dataclasses import replace

import pandas as pd

from analysis.markdown import format_estimates, format_figure, format_label, format_table
from analysis.records import finished_runs, select_runs
from experiments import degradation
from reproduce.config import PAPER_ITERATIONS, Config

NETS = [net for net in degradation.CONFIGS if net.depth in (20, 56)]


def format_section(runs: pd.DataFrame, link: str) -> str:
    lengths = find_lengths(runs)
    rows = [
        [
            f"{length:,}",
            f"{length / PAPER_ITERATIONS:.3g}",
            *(format_estimates(select_runs(runs, at(net, length))) for net in NETS),
        ]
        for length in lengths
    ]
    header = ["iterations", "part of the schedule", *(format_label(net) for net in NETS)]
    figure = format_figure(runs, [at(net, length) for net in NETS for length in lengths], "length", None)
    return f"""## Length of training

Test error after schedules of other lengths, all of the same shape (learning rate divided by 10 after 1/2 and 3/4). Nothing
here is comparable with the paper but the last row, and the claims see only that. `python experiments/sweep.py degradation
--iterations 3200` (a twentieth) and `--iterations 16000` (a quarter) make such rows.

{format_table(header, rows) if rows else "No run is recorded yet."}

{figure}"""


def at(net: Config, iterations: int) -> Config:
    return replace(net, iterations=iterations)


def find_lengths(runs: pd.DataFrame) -> list[int]:
    """The lengths at which one of the nets has a finished run."""
    found = pd.concat([finished_runs(select_runs(runs, net, free=("iterations",))) for net in NETS])
    return sorted(set(found["iterations"]))
