"""docs/statistics.md: the rules of claims, their error rates, and published standard deviations."""

from collections.abc import Sequence
from typing import get_args

import pandas as pd
from scipy import stats

from analysis.claims import CLAIMS, TOLERANCE, Verdict
from analysis.estimates import MINIMUM, estimate
from analysis.markdown import fill_template, format_net, format_table, group_labels, join_words
from analysis.paper import WITH_WARMUP, Pooling, list_published_stds, published_std
from analysis.power import RATES, TRIALS, find_smallest_difference
from analysis.records import select_finished
from analysis.sections import choose_runs
from experiments import deep, degradation
from reproduce.config import Config

FIXED, COMMIT = "2026-11-28T17:49:20+00:00", "2ec4fd4"
"""When the rules were fixed (UTC), and in which commit."""
SHARES = ("right", "inconclusive", "wrong")


def describe_exploratory(runs: pd.DataFrame) -> str:
    """Return how many runs began before the rules were fixed; those without a start time did."""
    began = [min((session.get("began") or "" for session in sessions), default="") for sessions in runs["sessions"]]
    older = sum(start < FIXED for start in began)
    count, which = f"{older} of {len(runs)}", "Verdicts that use any of them"
    if older == len(runs):
        count, which = f"All {older}", "All verdicts"
    return (
        f"{count} runs began before the rules were fixed ({FIXED[:10]}, commit {COMMIT}), so their results or "
        f"first iterations were known ({began.count('')} of them, the oldest, have no recorded start time). {which} are "
        "exploratory."
    )


def describe_single_seeds() -> str:
    """Return how often verdicts on one seed are wrong if runs vary more than the published ones."""
    rates = pd.read_csv(RATES)
    either = read_rate(rates, "a difference, as", "right, false", "wrong, false", seeds=1, std=0.5, published=0.2)
    number = read_rate(rates, "T: one", "wrong, true", seeds=1, std=0.5, published=0.2)
    found = read_rate(rates, "a difference, as", "right, true", seeds=1, std=0.5)
    order = read_rate(rates, "C2", "right, true", seeds=1, std=0.5)
    return (
        "If our true standard deviation is 0.5 points and the published one 0.2, comparing one seed each shows a "
        f"difference that does not exist in {either}% of cases, and one seed contradicts a correct published number in "
        f"{number}%. If both are 0.5 points, about as published for ResNet-56, one seed detects a difference of 1 point in "
        f"only {found}% and, if the paper's numbers are the true means, confirms C2 in only {order}%"
    )


def describe_larger_stds(runs: pd.DataFrame) -> str:
    """Return which networks' test errors vary more than the published ones (one-sided chi-squared test), empty without any."""
    ours, _ = choose_runs(runs, degradation.CONFIGS)
    larger = []
    for config in degradation.CONFIGS:
        done = select_finished(ours, config)
        test, train = (estimate(done[column].astype(float)) for column in ("test_error", "train_error"))
        published = published_std(config)
        if test.n > 1 and stats.chi2.sf((test.n - 1) * (test.std / published) ** 2, test.n - 1) < 0.05:
            spread = f"{test.std:.2f} for the test error and {train.std:.2f} for the training error"
            larger.append(f"{format_net(config)} ({spread}, n={test.n}; published: {published:.2f})")
    return f"Our standard deviation is significantly larger (chi-squared test, 5%) for {join_words(larger)}." if larger else ""


def format_statistics(runs: pd.DataFrame, verdicts: Sequence[Verdict]) -> str:
    """Return docs/statistics.md from all runs of `load_records`, all verdicts, and the simulated error rates."""
    rates = pd.read_csv(RATES)
    claims = [[verdict.name, verdict.claim, verdict.rule, CLAIMS[verdict.name].least_seeds] for verdict in verdicts]
    smallest = [[std, *(f"{find_smallest_difference(seeds, std):.2f}" for seeds in (3, 5, 8))] for std in (0.2, 0.5)]
    return fill_template(
        "statistics",
        exploratory=describe_exploratory(runs),
        minimum=MINIMUM,
        tolerance=TOLERANCE,
        claims=format_table(["ID", "claim", "rule", "seeds needed"], claims),
        trials=f"{TRIALS:,}",
        ordered=read_rate(rates, "an ordering of three", "wrong, false"),
        any_number=read_rate(rates, "T: any of four", "wrong, true", seeds=5, std=0.5),
        one_number=read_rate(rates, "T: one", "wrong, true", seeds=5, std=0.5),
        any_difference=read_rate(rates, "any of ten differences (", "wrong, false"),
        any_difference_holm=read_rate(rates, "any of ten differences, Holm", "wrong, false"),
        single_seeds=describe_single_seeds(),
        equality=read_rate(rates, "equality", "right, true"),
        rates=format_rates(rates),
        smallest=format_table(["standard deviation", "3 seeds", "5 seeds", "8 seeds"], smallest),
        warmed=join_words(WITH_WARMUP),
        published_stds=format_published_stds(),
    )


def read_rate(
    rates: pd.DataFrame, rule: str, *columns: str, seeds: int = 3, std: float = 0.2, published: float | None = None
) -> str:
    """Return the sum of simulated rates in %. rule: the start of the rule's name. published: by default `std`."""
    chosen = rates[rates["rule"].str.startswith(rule) & (rates["seeds"] == seeds) & (rates["std"] == std)]
    return f"{chosen[chosen['published_std'] == (published or std)][[*columns]].sum(axis=1).item():.0f}"


def format_rates(rates: pd.DataFrame) -> str:
    """Return the rates for a standard deviation of 0.2, both true and published."""
    settings = [(truth, seeds) for truth in ("true", "false") for seeds in (1, 3, 5)]
    rows = []
    for rule, group in rates[rates["std"] == 0.2].groupby("rule", sort=False):
        cells = {}
        for _, row in group.iterrows():
            for truth in ("true", "false"):
                cells[truth, row["seeds"]] = " / ".join(f"{row[f'{share}, {truth}']:.0f}" for share in SHARES)
        rows.append([rule, *(cells.get(setting, "-") for setting in settings)])
    return format_table(["rule", *(f"{truth}, {seeds} seed{'s' if seeds > 1 else ''}" for truth, seeds in settings)], rows)


def format_published_stds() -> str:
    rows = []
    warm = Config(depth=56, warmup="iterations")
    for net in [*degradation.RESIDUAL, deep.DEEPEST, warm, *degradation.PLAIN]:
        sources = list_published_stds(net)
        listed = [f"{row['source']} ± {row['spread']:.2f}" for _, row in sources.iterrows()]
        exact = (sources["depth"] == net.depth).all()
        pooled = [f"{published_std(net, pooling):.2f}" for pooling in get_args(Pooling)]
        rows.append([group_labels([net]), *pooled, "; ".join(listed) if exact else f"{len(listed)} results at other depths"])
    return format_table(["network", *get_args(Pooling), "sources (n=5 each)"], rows)
