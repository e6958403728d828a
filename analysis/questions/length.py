"""How much of the schedule is needed? Test error by length of training."""

from dataclasses import replace

import pandas as pd

from analysis.markdown import format_estimates, format_figure, format_net, format_table, join_words
from analysis.records import keep_recorded, select_finished, select_runs
from analysis.sample import choose_precision
from analysis.sections import mean_error
from experiments import degradation
from reproduce.config import PAPER_ITERATIONS, Config

NETS = [net for net in degradation.CONFIGS if net.depth in (20, 56)]


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs_of_all_lengths(runs)
    lengths = find_lengths(ours)
    rows = []
    for length in lengths:
        errors = [format_estimates(select_runs(ours, at(net, length))) for net in NETS]
        rows.append([f"{length:,}", f"{length / PAPER_ITERATIONS:.1%}", *errors])
    figure = format_figure(ours, [at(net, n) for net in NETS for n in lengths], "length", "Test error by length of training")
    return f"""## How much of the schedule is needed?

{describe_lengths(ours, lengths)} These differences have no intervals.

{format_table(["iterations", "fraction of the schedule", *map(format_net, NETS)], rows)}

Test error in %, {precision}, at the end of schedules of the same shape (learning rate divided by 10 after 1/2 and 3/4). A
network is stuck if its training error stays at 80% or more. `python experiments/sweep.py degradation --iterations 16000
--precision {precision}` trains a quarter of the schedule. Only full-length runs are compared with the paper.

{figure}"""


def describe_lengths(ours: pd.DataFrame, lengths: list[int]) -> str:
    """Return by how much schedules of at least a twentieth of the full one increase the test error."""
    sentences = []
    for length in lengths:
        nets = [net for net in NETS if len(keep_recorded(ours, [net, at(net, length)])) == 2]
        losses = [f"{mean_error(ours, at(net, length)) - mean_error(ours, net):.2f} points ({format_net(net)})" for net in nets]
        if losses and PAPER_ITERATIONS / 20 <= length < PAPER_ITERATIONS:
            share = f"{length / PAPER_ITERATIONS:.0%}"
            sentences.append(f"With {share} of the schedule, the test error is higher by {join_words(losses)}.")
    return " ".join(sentences) or "Not known yet."


def find_lengths(runs: pd.DataFrame) -> list[int]:
    """Return the lengths of the finished runs, in iterations, sorted."""
    return sorted({length for net in NETS for length in select_finished(runs, net, ["iterations"])["iterations"]})


def choose_runs_of_all_lengths(runs: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the runs in the precision to compare, and this precision; full-length runs decide it if there are any."""
    lengths = find_lengths(runs)
    if PAPER_ITERATIONS in lengths or not lengths:
        lengths = [PAPER_ITERATIONS]
    precision = choose_precision(runs, [at(net, length) for net in NETS for length in lengths])
    return runs[runs["precision"] == precision], precision


def at(net: Config, iterations: int) -> Config:
    return replace(net, iterations=iterations)
