"""The head of RESULTS.md, its table of claims, and the blocks of the README."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.claims import NOT_RUN, Verdict
from analysis.estimates import Interval, compare_predictions, holm_adjust
from analysis.markdown import format_estimates, format_figure, format_net, format_table, join_words, wrap_paragraphs
from analysis.paper import list_published_stds, load_paper, published
from analysis.questions.degradation import PLAIN, RESIDUAL, format_paper, subtract_reproductions
from analysis.questions.layer_responses import compare_responses
from analysis.questions.precision import describe_fp32
from analysis.questions.warmup import WITH_WARMUP
from analysis.records import comparable_runs, finished_runs, select_runs
from analysis.sections import (
    choose_runs,
    find_gap,
    increases,
    keep_recorded,
    list_depths,
    list_means,
    mean_error,
    select_finished,
)
from experiments import bn_placement, degradation
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.model_card import check_sha256
from reproduce.record import read_weights_header

CAPTION = (
    "*Fig. 6 from our runs: training error (dashed) and test error (solid) of plain networks (left) and residual networks "
    "(right), one line per run; markers: the paper's final test errors.*"
)


def describe_scope(runs: pd.DataFrame) -> str:
    """Summarize the records: runs, configurations, precision, hours."""
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    done = finished_runs(ours[ours["dataset"] == "cifar10"])
    return (
        f"{len(done)} full-length runs of {done['configuration'].nunique()} configurations on CIFAR-10 in {precision}, and "
        "other runs (shorter schedules, LeNet on MNIST, transfer learning); "
        f"{runs['seconds'].sum() / 3600:.0f} hours of training in total."
    )


# Findings -------------------------------------------------------------------------------------------------------------


def list_findings(runs: pd.DataFrame) -> list[str]:
    """Return the findings that have runs, most important first, as Markdown."""
    ours, _ = choose_runs(runs, degradation.CONFIGS)
    describe = (describe_plain, describe_gaps, describe_residual, describe_bn_placement, describe_adam, describe_responses)
    return list(filter(None, (each(ours) for each in describe)))


def name_seeds(ours: pd.DataFrame, nets: Sequence[Config]) -> str:
    """Return "one seed each", "3 seeds each", or "1 to 2 seeds each"."""
    counts = [len(select_finished(ours, net)) for net in nets]
    if max(counts) == 1:
        return "one seed each"
    return f"{min(counts)} seeds each" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)} seeds each"


def list_gaps(gaps: Mapping[int, Interval]) -> str:
    return f"{join_words([f'{gap} at {depth}' for depth, gap in gaps.items()])} layers"


def describe_plain(ours: pd.DataFrame) -> str:
    nets = keep_recorded(ours, PLAIN)
    if len(nets) < 2:
        return ""
    worse = increases([mean_error(ours, net) for net in nets])
    headline = "get worse with depth, as in the paper" if worse else "do not always get worse with depth"
    gap = subtract_reproductions(ours, nets[-1])
    training = f"training error {list_means(ours, nets, 'train_error')}%"
    if mean_error(ours, nets[-1], "train_error") > mean_error(ours, nets[0], "train_error"):
        training += ", so overfitting alone does not explain it"
    return (
        f"**Plain networks {headline}** ({name_seeds(ours, nets)}): test error {list_means(ours, nets)}% at "
        f"{list_depths(nets)} layers, {training}. Plain-{nets[-1].depth}'s test error minus the mean of "
        f"other reproductions is {str(gap).replace('(', '(prediction interval: ')}."
    )


def describe_gaps(ours: pd.DataFrame) -> str:
    pairs = zip(PLAIN, RESIDUAL, strict=True)
    gaps = {net.depth: gap for plain, net in pairs if (gap := find_gap(ours, plain, net))}
    if not gaps:
        return ""
    means = [gap.mean for gap in gaps.values()]
    better = "are better" if min(means) > 0 else "are not always better"
    growth = ", and the mean gap grows with depth" if increases(means) else ""
    seeds = name_seeds(ours, keep_recorded(ours, [*PLAIN, *RESIDUAL]))
    return f"**Residual networks {better} than plain ones{growth}** ({seeds}): plain minus residual is {list_gaps(gaps)}."


def describe_residual(ours: pd.DataFrame) -> str:
    """Return how the test error changes from 32 to 56 layers, and what may explain it."""
    first, *deeper = RESIDUAL[1:]
    if len(keep_recorded(ours, RESIDUAL[1:])) < 3 or not (gap := find_gap(ours, first, deeper[-1])):
        return ""
    finding = "undecided" if gap.low <= 0 <= gap.high else "better" if gap.low > 0 else "worse"
    errors = join_words([f"{format_net(net)} ({mean_error(ours, net):.2f}%)" for net in deeper])
    improve = "do not improve on" if all(mean_error(ours, net) >= mean_error(ours, first) for net in deeper) else "compare with"
    return (
        f"**Residual networks beyond {first.depth} layers: {finding}** ({name_seeds(ours, RESIDUAL[1:])}). {errors} {improve} "
        f"{format_net(first)} ({mean_error(ours, first):.2f}%); {first.depth} minus {deeper[-1].depth} layers is {gap}. "
        f"{compare_on_test_images(ours, deeper[-1], first)}"
        f"{describe_fp32(first, deeper[-1])}{describe_confound(ours)}{describe_published_56(ours)}"
    )


def compare_on_test_images(ours: pd.DataFrame, deep: Config, shallow: Config) -> str:
    """Return McNemar's test of two networks with the same seed, the lowest that both have."""
    runs = [select_finished(ours, net).set_index("seed")["predictions"].dropna() for net in (deep, shallow)]
    common = runs[0].index.intersection(runs[1].index)
    if common.empty:
        return ""
    lost, won, p = compare_predictions(*(texts[min(common)] for texts in runs))
    return (
        f"With seed {min(common)}, {lost} test images are misclassified by {format_net(deep)} only and {won} by "
        f"{format_net(shallow)} only (McNemar's test: p = {p:.2g}; it compares these two trained networks and ignores the "
        "variation between seeds). "
    )


def describe_confound(ours: pd.DataFrame) -> str:
    """Return which networks were trained at least partly on an accelerator, if only some were."""
    trained = keep_recorded(ours, degradation.CONFIGS)
    devices = {net: list_accelerators(ours, net) for net in trained}
    accelerated = [format_net(net) for net in trained if devices[net]]
    if len(accelerated) in (0, len(trained)):
        return ""
    names = join_words(sorted(set().union(*devices.values())))
    return (
        f"Depth and device are confounded: {join_words(accelerated)} were trained at least partly on an accelerator ({names}), "
        "the others on CPUs. "
    )


def list_accelerators(ours: pd.DataFrame, net: Config) -> set[str]:
    """Return the accelerators that trained a network's runs, at least for a part of the iterations."""
    sessions = select_finished(ours, net)["sessions"].explode().dropna()
    return {session["device_name"] for session in sessions if session["device"] != "cpu"}


def describe_published_56(ours: pd.DataFrame) -> str:
    """Return the published test errors of ResNet-56 with and without a warm-up."""
    numbers = published(load_paper(), kind="residual", depth=56, quantity="test error", variant="", comparable="yes")
    warm = numbers["source"].isin(WITH_WARMUP)
    cold = numbers[~warm]["value"]
    with_warmup = [f"{value:.2f}" for value in sorted(numbers[warm]["value"])]
    return (
        f"Published test errors at 56 layers are {cold.min():.2f} to {cold.max():.2f}% without a stated warm-up (the paper: "
        f"{format_paper(RESIDUAL[-1])}%) and {join_words(with_warmup)}% with one. {describe_warmup(ours)}"
    )


def describe_warmup(ours: pd.DataFrame) -> str:
    """Describe the effect of a warm-up in our runs."""
    gap = find_gap(ours, RESIDUAL[-1], replace(RESIDUAL[-1], warmup="iterations"))
    link = "[With a warm-up](#does-resnet-56-need-a-warm-up)"
    return f"{link} of 400 iterations, our error is lower by {gap}." if gap else f"{link}: not run yet."


def describe_bn_placement(ours: pd.DataFrame) -> str:
    pairs = zip(bn_placement.BEFORE, bn_placement.AFTER, strict=True)
    gaps = {net.depth: gap for net, after in pairs if (gap := find_gap(ours, after, net))}
    if not gaps:
        return ""
    clear = [str(depth) for depth, gap in gaps.items() if gap.low > 0 or gap.high < 0]
    headline = f"a difference is visible at {join_words(clear)} layers" if clear else "no difference detected"
    seeds = name_seeds(ours, [net for net in bn_placement.AFTER if net.depth in gaps])
    return (
        f"**BN after the addition: {headline}** ({seeds}): after minus before is {list_gaps(gaps)}. Others report a large "
        "increase in test error at 110 layers."
    )


def describe_adam(ours: pd.DataFrame) -> str:
    nets = {net: Config(depth=net.depth, optimizer="adam") for net in degradation.RESIDUAL}
    gaps = {net: gap for net, adam in nets.items() if (gap := find_gap(ours, adam, net))}
    if not gaps:
        return ""
    words = [f"{gap} on {format_net(net)}" for net, gap in gaps.items()]
    seeds = name_seeds(ours, [nets[net] for net in gaps])
    return (
        f"**Adam at a learning rate of 0.001 (not tuned)** ({seeds}): test error minus that of SGD is {join_words(words)}. "
        "With fewer than 3 seeds the interval assumes that Adam's runs vary like SGD's."
    )


def describe_responses(ours: pd.DataFrame) -> str:
    means = compare_responses(ours).values()
    if not means:
        return ""
    smaller = sum(residual < plain for plain, residual in means)
    have = "have" if smaller == len(means) else "do not always have"
    return (
        f"**Averaged over layers, residual networks {have} smaller responses** than plain ones: at {smaller} of {len(means)} "
        "[depths](#are-the-layer-responses-of-residual-networks-smaller)."
    )


# Claims ---------------------------------------------------------------------------------------------------------------


def format_verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Return the table of claims that have runs, the names of the others, and verdicts that depend on one published value."""
    rows = [[verdict.name, verdict.claim, verdict.words] for verdict in verdicts if verdict.verdict != NOT_RUN]
    others = [verdict.name for verdict in verdicts if verdict.verdict == NOT_RUN]
    changed = [f"{verdict.name} ({verdict.without_widest})" for verdict in verdicts if verdict.without_widest]
    widest = list_published_stds(RESIDUAL[-1]).nlargest(1, "spread").iloc[0]
    parts = [
        format_table(["ID", "claim", "verdict"], rows) if rows else "",
        f"Not run yet: {', '.join(others) or 'none'} ([list](docs/statistics.md#rules)).",
        f"Without the largest published standard deviation of each network ({widest['spread']:.2f} points at 56 layers, from "
        f"{widest['source']}), these verdicts change: {', '.join(changed) or 'none'}.",
    ]
    return "\n\n".join(filter(None, parts))


def format_claims_csv(verdicts: Sequence[Verdict]) -> str:
    """Return a row per claim: verdict, p-value before and after Holm's adjustment, and the numbers behind it."""
    tested = {verdict.name: verdict.p for verdict in verdicts if verdict.p is not None}
    adjusted = dict(zip(tested, holm_adjust(list(tested.values())), strict=True))
    rows = [
        [v.name, v.claim, v.verdict, v.seeds or None, v.without_widest, v.p, adjusted.get(v.name), v.numbers.strip()]
        for v in verdicts
    ]
    header = ["claim", "statement", "verdict", "seeds", "verdict_without_widest_std", "p", "p_holm", "numbers"]
    table = pd.DataFrame(rows, columns=pd.Index(header)).astype({"seeds": "Int64"})
    return table.to_csv(index=False, lineterminator="\n", float_format="%.3g")


# README.md ------------------------------------------------------------------------------------------------------------


def format_comparison(runs: pd.DataFrame) -> str:
    """Return the table of our errors and the paper's with its caption, and Fig. 6."""
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    rows = []
    for residual, plain in zip(degradation.RESIDUAL, degradation.PLAIN, strict=True):
        errors = [[format_paper(net), format_estimates(select_runs(ours, net)) or "not run yet"] for net in (residual, plain)]
        rows.append([residual.depth, *errors[0], *errors[1]])
    header = ["layers", "residual, paper", "residual, ours", "plain, paper", "plain, ours"]
    figure = format_figure(comparable_runs(runs), degradation.CONFIGS, "degradation", "Fig. 6 from our runs")
    return f"""{format_table(header, rows)}

Test error in % after 64,000 iterations, {precision}; mean ± standard deviation over n seeds, n = 1 unless stated. The errors of
the paper's plain networks are read off its Fig. 6 (plot) or from its caption. Differences in the text are in percentage points,
with approximate 95% intervals in parentheses.

{figure}

{CAPTION if figure else ""}"""


def format_readme_results(runs: pd.DataFrame, findings: Sequence[str]) -> str:
    """Return the first findings, our errors and the paper's, and Fig. 6."""
    listed = "\n".join(f"- {finding.replace('(#', '(RESULTS.md#')}" for finding in findings[:3])
    return wrap_paragraphs(f"{format_comparison(runs).replace('degradation.svg', 'degradation.png')}\n\n{listed}").strip()


def format_weights(runs: pd.DataFrame, folder: Path) -> str:
    """Return the published weights files with the test error of their runs' records.

    Raises:
        UserError: a file is damaged, differs from its model card, or its run has no finished record.
    """
    rows = []
    for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.stem):
        check_sha256(path)
        run = read_weights_header(path)[0].folder
        record = finished_runs(runs[runs["folder"] == str(run)])
        if record.empty:
            raise UserError(f"{path} was exported from {run}, which has no finished record: add the record or remove the file")
        row = record.iloc[0]
        rows.append([f"[{path.stem}](weights/{path.stem}.md)", f"{row['test_error']:.2f}%", row["precision"], f"`{run}`"])
    return format_table(["weights", "test error, one run", "precision", "record"], rows) if rows else "No weights yet."
