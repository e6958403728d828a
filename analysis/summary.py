"""The head of RESULTS.md, its table of claims, and the blocks of the README."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pandas as pd

from analysis.claims import NOT_RUN, TOLERANCE, Verdict
from analysis.estimates import Interval, holm_adjust
from analysis.markdown import format_estimates, format_figure, format_table, join_words, wrap_paragraphs
from analysis.paper import Pooling, list_published_stds
from analysis.questions.degradation import PLAIN, RESIDUAL, find_paper, format_paper, subtract_paper
from analysis.questions.layer_responses import compare_responses
from analysis.questions.warmup import RESNET56, RESNET56_WARMUP, describe_effect, list_published_errors
from analysis.records import comparable_runs, finished_runs, keep_recorded, select_finished, select_runs
from analysis.sample import Sample
from analysis.sections import choose_runs, find_gap, increases, list_depths, list_means, mean_error
from experiments import bn_placement, degradation
from reproduce.config import PAPER_TEST_ERROR, Config
from reproduce.errors import UserError
from reproduce.model_card import check_sha256, read_weights_header

CAPTION = (
    "*Fig. 6 from our runs: training error (dashed) and test error (solid) of plain networks (left) and residual networks "
    "(right), one line per run (with 3 or more seeds, mean ± standard deviation); markers: the paper's final test errors.*"
)


def describe_scope(runs: pd.DataFrame) -> str:
    """Summarize the records: runs, configurations, precision, hours."""
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    done = finished_runs(ours[ours["dataset"] == "cifar10"])
    return (
        f"{len(done)} full-length runs of {done['configuration'].nunique()} configurations on CIFAR-10 in {precision}, and "
        "other runs (among them shorter schedules, LeNet on MNIST and transfer learning); "
        f"{runs['seconds'].sum() / 3600:.0f} hours of training in total."
    )


# Findings -------------------------------------------------------------------------------------------------------------


def list_findings(runs: pd.DataFrame) -> list[str]:
    """Return the findings that have runs, most important first, as Markdown."""
    ours, _ = choose_runs(runs, degradation.CONFIGS)
    networks = (describe_plain, describe_gaps, describe_residual, describe_warmup)
    variants = (describe_bn_placement, describe_adam, describe_responses)
    return list(filter(None, (each(ours) for each in networks + variants)))


def name_seeds(ours: pd.DataFrame, nets: Sequence[Config]) -> str:
    """Return "one seed each", "3 seeds each", "1 or 2 seeds each" or "1 to 3 seeds each"."""
    counts = [len(select_finished(ours, net)) for net in nets]
    low, high = min(counts), max(counts)
    if high == 1:
        return "one seed each"
    return f"{low} seeds each" if low == high else f"{low} {'or' if high - low == 1 else 'to'} {high} seeds each"


def find_gaps(ours: pd.DataFrame, firsts: Sequence[Config], seconds: Sequence[Config]) -> dict[int, Interval]:
    """Return the test error of each of `firsts` minus that of the same depth in `seconds`, by depth, for those with runs."""
    gaps = {first.depth: find_gap(ours, first, second) for first, second in zip(firsts, seconds, strict=True)}
    return {depth: gap for depth, gap in gaps.items() if gap}


def list_gaps(gaps: Mapping[int, Interval]) -> str:
    return f"{join_words([f'{gap} at {depth}' for depth, gap in gaps.items()])} layers"


def describe_plain(ours: pd.DataFrame) -> str:
    nets = keep_recorded(ours, PLAIN)
    if len(nets) < 2:
        return ""
    worse = increases([mean_error(ours, net) for net in nets])
    headline = "get worse with depth, as in the paper" if worse else "do not always get worse with depth"
    training = f"training error {list_means(ours, nets, 'train_error')}%"
    if mean_error(ours, nets[-1], "train_error") > mean_error(ours, nets[0], "train_error"):
        training += ", so overfitting alone does not explain it"
    paper = join_words([format_paper(net).removesuffix(" (plot)") for net in nets])
    above = mean_error(ours, nets[-1]) - find_paper(nets[-1])[["value", "upto"]].max()
    points = math.floor(10 * above) / 10
    higher = f"; ours at {nets[-1].depth} layers is at least {points} points higher" if above > TOLERANCE else ""
    return (
        f"**Plain networks {headline}** ({name_seeds(ours, nets)}): test error {list_means(ours, nets)}% at "
        f"{list_depths(nets)} layers (paper, read off its Fig. 6: {paper}%{higher}), {training}."
    )


def describe_gaps(ours: pd.DataFrame) -> str:
    gaps = find_gaps(ours, PLAIN, RESIDUAL)
    if not gaps:
        return ""
    clear = [str(depth) for depth, gap in gaps.items() if gap.low > 0]
    where = "" if len(clear) == len(gaps) else f" at {join_words(clear)} layers" if clear else " at no depth with certainty"
    seeds = name_seeds(ours, keep_recorded(ours, [*PLAIN, *RESIDUAL]))
    sample = Sample(ours, *PLAIN, *RESIDUAL)
    total = growth = ""
    if sample.seeds:
        change = sample.weighted_sum({0: -1, len(PLAIN): 1, len(PLAIN) - 1: 1, 2 * len(PLAIN) - 1: -1})
        total = f"; from {PLAIN[0].depth} to {PLAIN[-1].depth} layers the gap changes by {change}"
        growth = ", and the gap grows with depth" if change.low > 0 and increases([gap.mean for gap in gaps.values()]) else ""
    return (
        f"**Residual networks are better than plain ones{where}{growth}** ({seeds}): plain minus residual is "
        f"{list_gaps(gaps)}{total}."
    )


def describe_residual(ours: pd.DataFrame) -> str:
    first, second, *_, last = RESIDUAL
    early, late = find_gap(ours, first, second), find_gap(ours, second, last)
    if not early or not late or keep_recorded(ours, RESIDUAL) != RESIDUAL:
        return ""
    theirs = {net: PAPER_TEST_ERROR[net.depth] for net in RESIDUAL}
    paper = join_words([f"{error:.2f}" for error in theirs.values()])
    warm = find_gap(ours, second, RESNET56_WARMUP)
    warmed = f" without and {warm} with a warm-up for ResNet-{last.depth}" if warm else ""
    finding = describe_improvement(late)
    without = "" if warm and describe_improvement(warm) == finding else "without a warm-up, "
    headline = f"{without}{finding} beyond {second.depth} layers"
    seeds = name_seeds(ours, keep_recorded(ours, [*RESIDUAL, RESNET56_WARMUP]))
    return (
        f"**{headline[0].upper()}{headline[1:]}** ({seeds}): {'' if without else 'without a warm-up, '}test error "
        f"{list_means(ours, RESIDUAL)}% at {list_depths(RESIDUAL)} layers (paper: {paper}%); {first.depth} minus "
        f"{second.depth} layers is {early}, in the paper {theirs[first] - theirs[second]:+.2f}; {second.depth} minus "
        f"{last.depth} layers is {late}{warmed}, in the paper {theirs[second] - theirs[last]:+.2f}."
    )


def describe_improvement(decrease: Interval) -> str:
    """Return "residual networks improve", "residual networks do not improve" or that this is undecided."""
    if decrease.low <= 0 <= decrease.high:
        return "it is undecided whether residual networks improve"
    return f"residual networks {'improve' if decrease.low > 0 else 'do not improve'}"


def describe_warmup(ours: pd.DataFrame) -> str:
    gap = find_gap(ours, RESNET56, RESNET56_WARMUP)
    if not gap:
        return ""
    effect = "a lower test error" if gap.low > 0 else "a higher test error" if gap.high < 0 else "no detected gain or loss"
    seeds, cold = name_seeds(ours, [RESNET56, RESNET56_WARMUP]), list_published_errors(warm=False)
    theirs = [subtract_paper(ours, net) for net in (RESNET56, RESNET56_WARMUP)]
    return (
        f"**With a warm-up, ResNet-56 has {effect}** ({seeds}). Test error in %: {describe_effect(ours)}. Ours minus the "
        f"paper's {PAPER_TEST_ERROR[RESNET56.depth]:.2f} is {theirs[0]} without and {theirs[1]} with the warm-up; comparable "
        f"reproductions without a stated warm-up report {cold[0]:.2f} to {cold[-1]:.2f}%. The paper describes a warm-up for "
        "110 layers only ([section](#the-56-layer-networks-does-a-warm-up-help))."
    )


def describe_bn_placement(ours: pd.DataFrame) -> str:
    gaps = find_gaps(ours, bn_placement.AFTER, bn_placement.BEFORE)
    if not gaps:
        return ""
    clear = [str(depth) for depth, gap in gaps.items() if gap.low > 0 or gap.high < 0]
    headline = f"a difference is visible at {join_words(clear)} layers" if clear else "no difference detected"
    seeds = name_seeds(ours, [net for net in [*bn_placement.AFTER, *bn_placement.BEFORE] if net.depth in gaps])
    return (
        f"**BN after the addition: {headline}** ({seeds}): after minus before is {list_gaps(gaps)}. Others report a large "
        "increase in test error at 110 layers."
    )


def describe_adam(ours: pd.DataFrame) -> str:
    adam = [Config(depth=net.depth, optimizer="adam") for net in degradation.RESIDUAL]
    gaps = find_gaps(ours, adam, degradation.RESIDUAL)
    if not gaps:
        return ""
    worse = "has a higher test error than" if all(gap.low > 0 for gap in gaps.values()) else "compared with"
    errors = []
    for config, sgd in zip(adam, degradation.RESIDUAL, strict=True):
        if config.depth in gaps:
            pair = (format_estimates(select_runs(ours, net)) for net in (config, sgd))
            errors.append(f"{' against '.join(pair)}, a difference of {gaps[config.depth]}")
    where = join_words([f"ResNet-{depth}" for depth in gaps])
    seeds = name_seeds(ours, [net for net in [*adam, *degradation.RESIDUAL] if net.depth in gaps])
    return (
        f"**On {where}, Adam (learning rate 0.001, not tuned) {worse} SGD** ({seeds}). Test error in %: {join_words(errors)}."
    )


def describe_responses(ours: pd.DataFrame) -> str:
    means = compare_responses(ours)
    if not means:
        return ""
    plain, residual = zip(*means.values(), strict=True)
    lower = "a lower" if all(map(operator.lt, residual, plain)) else "not always a lower"
    listed = [join_words([f"{mean:.2f}" for mean in each]) for each in (residual, plain)]
    return (
        f"**Averaged over layers, responses have {lower} standard deviation in residual networks** (no interval): {listed[0]} "
        f"in residual and {listed[1]} in plain networks of {join_words([str(depth) for depth in means])} layers "
        "([section](#are-the-layer-responses-of-residual-networks-smaller))."
    )


# Claims ---------------------------------------------------------------------------------------------------------------


def format_verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Return the table of claims that have runs, the names of the others, and verdicts that depend on the published values."""
    rows = [[verdict.name, verdict.claim, verdict.words] for verdict in verdicts if verdict.verdict != NOT_RUN]
    others = [verdict.name for verdict in verdicts if verdict.verdict == NOT_RUN]
    widest = list_published_stds(RESIDUAL[-1]).nlargest(1, "spread").iloc[0]
    parts = [
        format_table(["ID", "claim", "verdict"], rows) if rows else "",
        f"Not run yet: {', '.join(others) or 'none'} ([list](docs/statistics.md#rules)).",
        "Verdicts on one or two seeds depend on which published standard deviations are pooled. Leaving out the largest one "
        f"for each network ({widest['spread']:.2f} points at 56 layers, from {widest['source']}) changes "
        f"{list_changed(verdicts, 'without the largest')}. Pooling, up to 56 layers, only sources that match the network in "
        f"using a warm-up or none changes {list_changed(verdicts, 'same warm-up')}.",
    ]
    return "\n\n".join(filter(None, parts))


def list_changed(verdicts: Sequence[Verdict], pooling: Pooling) -> str:
    """Return the verdicts that change with another pooling of the published standard deviations."""
    changed = [f"{verdict.name} ({verdict.changed[pooling]})" for verdict in verdicts if pooling in verdict.changed]
    return ", ".join(changed) or "no verdict"


def format_claims_csv(verdicts: Sequence[Verdict]) -> str:
    """Return a row per claim: verdict, p-value before and after Holm's adjustment, and the numbers behind it."""
    tested = {verdict.name: verdict.p for verdict in verdicts if verdict.p is not None}
    adjusted = dict(zip(tested, holm_adjust(list(tested.values())), strict=True))
    rows = [
        [
            v.name,
            v.claim,
            v.verdict,
            v.seeds or None,
            *map(v.changed.get, get_args(Pooling)[1:]),
            v.p,
            adjusted.get(v.name),
            v.numbers,
        ]
        for v in verdicts
    ]
    header = ["claim", "statement", "verdict", "seeds", "verdict_without_widest_std", "verdict_same_warmup_std"]
    header += ["p", "p_holm", "numbers"]
    table = pd.DataFrame(rows, columns=pd.Index(header)).astype({"seeds": "Int64"})
    return table.to_csv(index=False, lineterminator="\n", float_format="%.3g")


# README.md ------------------------------------------------------------------------------------------------------------


def format_fig6(runs: pd.DataFrame) -> str:
    """Return Fig. 6 with its caption, empty without runs."""
    figure = format_figure(comparable_runs(runs), degradation.CONFIGS, "degradation", "Fig. 6 from our runs")
    return f"{figure}\n\n{CAPTION}" if figure else ""


def format_readme_results(runs: pd.DataFrame, findings: Sequence[str]) -> str:
    """Return Fig. 6, our errors and the paper's, and the first findings."""
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    rows = []
    for residual, plain in zip(degradation.RESIDUAL, degradation.PLAIN, strict=True):
        errors = [[format_paper(net), format_estimates(select_runs(ours, net)) or "not run yet"] for net in (residual, plain)]
        rows.append([residual.depth, *errors[0], *errors[1]])
        warm = [replace(net, warmup="iterations") for net in (residual, plain)]
        if residual.depth < 110 and keep_recorded(ours, warm):
            cells = [format_estimates(select_runs(ours, net)) or "not run yet" for net in warm]
            rows.append([f"{residual.depth}, warm-up", "-", cells[0], "-", cells[1]])
    header = ["layers", "residual, paper", "residual, ours", "plain, paper", "plain, ours"]
    listed = "\n".join(f"- {finding.replace('(#', '(RESULTS.md#')}" for finding in findings[:4])
    text = f"""{format_fig6(runs).replace("degradation.svg", "degradation.png")}

{format_table(header, rows)}

Test error in % after 64,000 iterations, {precision}; mean ± standard deviation over n seeds, n = 1 unless stated. The errors of
the paper's plain networks are read off its Fig. 6 (plot) or from its caption. Differences in the text are in percentage points,
with 95% intervals in parentheses. With one or two seeds of some network, findings are suggestive, and the intervals use the
standard deviations of other reproductions ([statistics](docs/statistics.md)); they are too narrow where our runs vary more and
too wide where they vary less ([limits](RESULTS.md#limits)).

{listed}"""
    return wrap_paragraphs(text).strip()


def format_weights(runs: pd.DataFrame, folder: Path) -> str:
    """Return the published weights files with their test errors.

    Raises:
        UserError: a file is damaged, differs from its model card, or its run has no finished record.
    """
    files = []
    for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.stem):
        check_sha256(path)
        config, result = read_weights_header(path)
        run = config.folder
        record = finished_runs(runs[runs["folder"] == str(run)])
        if record.empty or "test_error" not in result:  # it is missing in other repositories' checkpoints
            raise UserError(f"{path} is not the export of a run with a finished record: add that of {run} or remove the file")
        files.append(f"[{path.stem}](weights/{path.stem}.md) {result['test_error']:.2f}%")
    listed = f"Test error of one run each: {', '.join(files)}."
    return wrap_paragraphs(listed).strip() if files else "No weights yet."
