"""Do deeper plain networks get worse, and deeper residual networks better? Fig. 6 and Table 6."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.claims import TOLERANCE, Judge, claim
from analysis.estimates import (
    MINIMUM,
    Estimate,
    Finding,
    Interval,
    all_of,
    combine,
    estimate,
    is_positive,
    matches_published,
    prediction,
)
from analysis.markdown import format_estimates, format_not_run, format_number, format_table, join_words
from analysis.paper import HE, WITH_WARMUP, find_number, kind_of, published
from analysis.records import finished_runs, keep_recorded, select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, format_gap, format_verdicts, mean_error
from experiments import deep, degradation, warmup
from reproduce.config import PAPER_TEST_ERROR, Config

RESIDUAL = [net for net in degradation.RESIDUAL if net.depth < 110]
PLAIN = [net for net in degradation.PLAIN if net.depth < 110]
"""Up to 56 layers; the paper's plain-110 does not converge."""


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    return f"""## Do deeper plain networks get worse, and deeper residual networks better?

{format_verdicts(runs, "C1", "C2", "C3")}. {describe_selection(ours)}

{compare_depths(ours)}

Errors in %, {precision}; mean ± standard deviation over n seeds, n = 1 unless stated; "plot": read off the paper's Fig. 6. The
paper presumably reports single runs, so the interval of "ours - paper" is a 95% prediction interval for our mean
minus one run of theirs (at 110 layers, the paper reports five runs: a confidence interval). With a warm-up, ResNet-56 is
compared with the paper's ResNet-56.
{format_not_run(ours, degradation.CONFIGS, f"python experiments/sweep.py degradation --precision {precision}")}

Test error in % of residual networks in the paper and in other reproductions ("final": at the last iteration; otherwise, the
source does not state the iteration; -: not reported; †: weight decay other than 0.0001, not comparable):

{format_published(ours, [*degradation.RESIDUAL, deep.DEEPEST])}

Plain networks:

{format_published(ours, degradation.PLAIN)}

Final training errors in other reproductions (like ours, averages over augmented mini-batches), in %: residual networks
{list_training_errors("residual")}; plain networks {list_training_errors("plain")}.

The row "reproductions" is the mean ± standard deviation over the comparable sources, without the paper, ranges and, up to 56
layers, sources with a warm-up. The last row is our mean minus that mean if there are at least {MINIMUM} sources. Its
interval is the 95% prediction interval of one more source, so it covers differences in seeds, recipes and code."""


def describe_selection(ours: pd.DataFrame) -> str:
    """Return by how much the best evaluation on the test set would be better than the final iterate."""
    done = finished_runs(pd.concat([select_runs(ours, net) for net in [*degradation.CONFIGS, *warmup.WITH]]))
    if done.empty:
        return ""
    gains = (done["test_error"] - done["best_test_error"]).astype(float)
    return (
        f"Errors are those of the final iterate; the best evaluation of each run, selected on the test set, would be "
        f"{gains.mean():.2f} points lower on average ({len(done)} runs)."
    )


def compare_depths(ours: pd.DataFrame) -> str:
    rows = []
    for residual, plain in zip(degradation.RESIDUAL, degradation.PLAIN, strict=True):
        if keep_recorded(ours, [residual, plain]):
            row: list[object] = [residual.depth]
            for net in (residual, plain):
                group = select_runs(ours, net)
                row += [format_paper(net), format_estimates(group), format_estimates(group, "train_error")]
            rows.append([*row, subtract_paper(ours, residual), format_gap(ours, plain, residual)])
        warm = [replace(net, warmup="iterations") for net in (residual, plain)]
        if residual.depth < 110 and keep_recorded(ours, warm):
            errors = [
                [format_estimates(select_runs(ours, net), name) for name in ("test_error", "train_error")] for net in warm
            ]
            gaps = [subtract_paper(ours, warm[0]), format_gap(ours, *reversed(warm))]
            rows.append([f"{residual.depth}, warm-up", "-", *errors[0], "-", *errors[1], *gaps])
    header = ["layers", *(f"{kind}: {what}" for kind in ("ResNet", "plain") for what in ("paper", "ours, test", "ours, train"))]
    return format_table([*header, "ResNet: ours - paper", "ours: plain - ResNet"], rows)


def find_paper(net: Config) -> pd.Series:
    """Return the paper's test error."""
    return find_number(source=HE, quantity="test error", kind=kind_of(net), depth=net.depth)


def format_paper(net: Config) -> str:
    return format_number(find_paper(net))


def subtract_paper(ours: pd.DataFrame, net: Config) -> str:
    """Return our test error minus the paper's, with the 95% interval of the difference; the paper reports runs or means."""
    sample = Sample(ours, net)
    if not sample.seeds:
        return ""
    number = find_paper(net)
    if pd.isna(number["spread"]):
        return str(prediction(sample.mean(0)) - number["value"])
    return str(combine([sample.mean(0), Estimate(int(number["n"]), number["value"], number["spread"])], [1, -1]))


def format_published(ours: pd.DataFrame, nets: Sequence[Config]) -> str:
    """Return the published test errors of plain or residual networks, a row per source, and how ours compare with them."""
    paper = published(kind=kind_of(nets[0]), variant="", quantity="test error")
    rows = []
    for source, group in paper.groupby("source", sort=False):
        by_depth = {int(row["depth"]): format_number(row) for _, row in group.iterrows()}
        name = f"{source}†" if (group["comparable"] == "no").any() else source
        rows.append([name, *(by_depth.get(net.depth, "-") for net in nets), describe_protocol(group)])
    others = [estimate_reproductions(net) for net in nets]
    rows.append(["**reproductions**", *(str(each).replace("n=", "rows: ") for each in others), ""])
    known = [bool(keep_recorded(ours, [net])) and each.n >= MINIMUM for net, each in zip(nets, others, strict=True)]
    gaps = [str(subtract_reproductions(ours, net)) if is_known else "" for net, is_known in zip(nets, known, strict=True)]
    rows.append(["**ours - reproductions**", *gaps, ""])
    return format_table(["source", *(net.depth for net in nets), "protocol"], rows)


def list_training_errors(kind: str) -> str:
    """Return the published training errors of plain or residual networks with the paper's recipe, without the paper's."""
    numbers = published(kind=kind, variant="", quantity="training error")
    words = []
    for source, group in numbers[numbers["source"] != HE].groupby("source", sort=False):
        columns = ([f"{value:.2f}" for value in group["value"]], [f"{depth:.0f}" for depth in group["depth"]])
        words.append("{} at {} layers".format(*map(join_words, columns)) + f" ({source})")
    return join_words(words)


def describe_protocol(group: pd.DataFrame) -> str:
    """Return what the protocols of a source's rows have in common, then what holds at single depths only."""
    protocols = {int(row["depth"]): str(row["protocol"]).split("; ") for _, row in group.iterrows()}
    parts: dict[str, list[int]] = {}
    for depth, words in protocols.items():
        for word in words:
            parts.setdefault(word, []).append(depth)
    return "; ".join(
        part if len(depths) == len(protocols) else f"{part} at {join_words([str(depth) for depth in depths])} layers"
        for part, depths in parts.items()
    )


def estimate_reproductions(net: Config) -> Estimate:
    """Return the mean over the comparable sources, and the standard deviation between them.

    Leaves out the paper and, up to 56 layers, sources that warm up.
    """
    rows = published(kind=kind_of(net), depth=net.depth, quantity="test error", variant="", comparable="yes")
    left_out = [HE, *(WITH_WARMUP if net.depth < 110 else ())]
    return estimate(rows[~rows["source"].isin(left_out) & rows["upto"].isna()]["value"])


def subtract_reproductions(ours: pd.DataFrame, net: Config) -> Interval:
    """Return our test error minus the mean of other reproductions, with the 95% interval of one more source."""
    others = prediction(estimate_reproductions(net))
    return Interval(mean_error(ours, net) - others.mean, others.error, others.degrees)


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("C1", PLAIN)
def deeper_plain_is_worse(sample: Sample) -> tuple[Finding, str]:
    """Deeper plain networks have higher training and test error.

    Rule: the test error rises at each step from 20 to 32, 44 and 56 layers, and the training error from 20 to 56.
    """
    steps = [sample.difference(i + 1, i) for i in range(3)]
    training = sample.difference(3, 0, "train_error")
    numbers = f"{sample.format_means()}; steps {', '.join(map(str, steps))}; {sample.format_means('train_error')}"
    return all_of(*map(is_positive, [*steps, training])), f"{numbers}; 56 - 20: {training}"


@claim("C2", RESIDUAL)
def deeper_residual_is_better(sample: Sample) -> tuple[Finding, str]:
    """Deeper residual networks have lower test error, from 20 to 56 layers.

    Rule: the test error falls from 20 to 32 and from 32 to 56 layers (44 layers are too close to both in the paper for a test).
    """
    steps = sample.difference(0, 1), sample.difference(1, 3)
    return all_of(*map(is_positive, steps)), f"{sample.format_means()}; 20 - 32: {steps[0]}, 32 - 56: {steps[1]}"


@claim("C9", [RESIDUAL[-1], degradation.RESIDUAL[-1]])
def residual_110_is_better_than_56(sample: Sample) -> tuple[Finding, str]:
    """ResNet-110 has a lower test error than ResNet-56.

    Rule: the test error falls from 56 to 110 layers.
    """
    gap = sample.difference(0, 1)
    return is_positive(gap), f"{sample.format_means()}; 56 - 110: {gap}"


@claim("C3", [*PLAIN, *RESIDUAL])
def residual_beats_plain(sample: Sample) -> tuple[Finding, str]:
    """Residual networks have lower test error than plain ones, and the gap grows with depth.

    Rule: plain minus residual is above zero at 20, 32, 44 and 56 layers, and greater at 56 than at 20.
    """
    gaps = [sample.difference(i, i + 4) for i in range(4)]
    growth = sample.weighted_sum({0: -1, 4: 1, 3: 1, 7: -1})
    listed = ", ".join(f"{net.depth}: {gap}" for net, gap in zip(PLAIN, gaps, strict=True))
    return all_of(*map(is_positive, [*gaps, growth])), f"plain - residual, {listed}; 56 - 20: {growth}"


def compare_with_table_6(net: Config) -> Judge:
    number = PAPER_TEST_ERROR[net.depth]

    def rule(sample: Sample) -> tuple[Finding, str]:
        gap = prediction(sample.mean(0)) - number
        return matches_published(gap, TOLERANCE), f"{sample.format_means()}; ours - paper: {gap}"

    rule.__doc__ = f"""ResNet-{net.depth} is consistent with the test error of {number:.2f}% in Table 6.

    Rule: the published number lies in the 95% prediction interval of one more run of ours and within 0.5 points of our mean;
    refuted if neither is true.
    """
    return rule


for net in RESIDUAL:
    claim(f"T{net.depth}", [net])(compare_with_table_6(net))
