"""The findings at the head of RESULTS.md, and the README's block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.claims import Verdict, count_verdicts
from analysis.estimates import Interval, compare_predictions
from analysis.markdown import format_estimates, format_number, format_table, join_words
from analysis.paper import HE, load_paper, paper_value, published
from analysis.questions.degradation import PLAIN_TWINS, TWINS, list_depths, recorded
from analysis.questions.layer_responses import compare_responses
from analysis.questions.warmup import SOURCES, start_errors
from analysis.records import finished_runs, select_runs
from analysis.sections import choose_runs, describe_trend, find_gap, format_verdict, list_means, mean_error
from experiments import bn_placement, degradation
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.model_card import check_sha256, sha256_of_file
from reproduce.record import read_weights_header


def describe_scope(runs: pd.DataFrame) -> str:
    """Return what is recorded: runs, networks, precision, hours."""
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    done = finished_runs(ours[ours["dataset"] == "cifar10"])
    return (
        f"{len(done)} full-length runs of {done['cell'].nunique()} configurations on CIFAR-10 in {precision}, and further "
        f"questions on blocks, optimizers, LeNet and transfer; {runs['seconds'].sum() / 3600:.0f} hours of training."
    )


def describe_certainty(verdicts: Sequence[Verdict]) -> str:
    return f"Of {len(verdicts)} [claims](#claims): {count_verdicts(verdicts)}."


def format_verdicts(verdicts: Sequence[Verdict]) -> str:
    """Return the table of the judged claims, and a list of the others."""
    judged = [verdict for verdict in verdicts if verdict.seeds]
    rows = [[v.name, v.claim, f"**{format_verdict(v).partition(': ')[2]}**", v.numbers] for v in judged]
    table = format_table(["", "claim", "verdict", "numbers"], rows)
    others = "\n".join(f"- {v.name}: {v.claim.rstrip('.')}: {v.verdict}." for v in verdicts if not v.seeds)
    return f"{table if judged else 'No claim is judged yet.'}\n\nNot judged yet:\n\n{others}"


@dataclass(frozen=True)
class Finding:
    """A headline that the recorded numbers support, and the numbers."""

    headline: str
    details: str


def list_findings(runs: pd.DataFrame, curves: pd.DataFrame, verdicts: Sequence[Verdict]) -> list[Finding]:
    """Return the findings that have runs, most important first."""
    ours, _ = choose_runs(runs, degradation.CONFIGS)
    verdict = {verdict.name: format_verdict(verdict) for verdict in verdicts}
    findings = [
        judge_plain(ours, verdict),
        judge_gaps(ours, verdict),
        judge_residual(ours, curves, verdict),
        judge_bn_placement(ours, verdict),
        judge_adam(ours, verdict),
        judge_responses(ours, verdict),
    ]
    return [finding for finding in findings if finding is not None]


def format_findings(findings: Sequence[Finding]) -> str:
    lines = [f"{number}. **{finding.headline}** {finding.details}" for number, finding in enumerate(findings, start=1)]
    return "\n".join(lines) or "No full-length run yet."


def judge_plain(ours: pd.DataFrame, verdict: dict[str, str]) -> Finding | None:
    nets = recorded(ours, PLAIN_TWINS)
    if len(nets) < 2:
        return None
    rises = describe_trend([mean_error(ours, net) for net in nets]).startswith("rises")
    deepest = nets[-1]
    others = published(load_paper(), kind="plain", depth=deepest.depth, quantity="test error", variant="")
    others = others[(others["source"] != HE) & others["protocol"].str.contains("64k")]["value"]
    return Finding(
        f"Plain networks {'get worse' if rises else 'do not get worse at every step'} with depth{', as in the paper' * rises}",
        f"({verdict['C1']}): {list_means(ours, nets)}% at {list_depths(nets)} layers. The training error is "
        f"{list_means(ours, nets, 'train_error')}%, so this is not overfitting. Other reproductions with 64,000 iterations "
        f"report {others.min():.2f} to {others.max():.2f}% at {deepest.depth} layers.",
    )


def judge_gaps(ours: pd.DataFrame, verdict: dict[str, str]) -> Finding | None:
    twins = zip(recorded(ours, PLAIN_TWINS), recorded(ours, TWINS), strict=False)
    gaps = {net.depth: gap for plain, net in twins if (gap := find_gap(ours, plain, net))}
    if not gaps:
        return None
    means = [gap.mean for gap in gaps.values()]
    grow = ", and the gap grows with depth" * describe_trend(means).startswith("rises")
    return Finding(
        f"Residual networks {'beat' if min(means) > 0 else 'do not always beat'} plain ones{grow}",
        f"({verdict['C3']}): plain minus residual is {list_gaps(gaps)}.",
    )


def list_gaps(gaps: Mapping[int, Interval]) -> str:
    return f"{join_words([f'{gap} at {depth}' for depth, gap in gaps.items()])} layers"


def judge_residual(ours: pd.DataFrame, curves: pd.DataFrame, verdict: dict[str, str]) -> Finding | None:
    """Return how the test error goes on from 32 to 56 layers, and what is known of the reason."""
    nets = recorded(ours, TWINS[1:])
    if len(nets) < 3:
        return None
    paper = [f"{paper_value(HE, kind='residual', depth=net.depth):.2f}" for net in nets]
    errors = f"({verdict['C2']}): {list_means(ours, nets)}% at {list_depths(nets)} layers, the paper {join_words(paper)}%."
    if describe_trend([mean_error(ours, net) for net in nets]).startswith("falls"):
        return Finding("Residual networks get better with depth, as in the paper", errors)
    shallow, deep = nets[0], nets[-1]
    return Finding(
        f"Residual networks do not get better beyond {shallow.depth} layers, unlike in the paper",
        f"{errors} {compare_on_test_images(ours, deep, shallow)} ResNet-{deep.depth} does not underfit: its training error is "
        f"{mean_error(ours, deep, 'train_error'):.2f}%, that of ResNet-{shallow.depth} "
        f"{mean_error(ours, shallow, 'train_error'):.2f}%. It starts slowly: {describe_start(ours, curves, nets)}. "
        f"{list_warmups(nets)} [The warm-up](#does-resnet-56-need-a-warm-up) is the next question.",
    )


def compare_on_test_images(ours: pd.DataFrame, deep: Config, shallow: Config) -> str:
    """Return McNemar's test of two networks with the same seed, the first that both have."""
    runs = [finished_runs(select_runs(ours, net)).set_index("seed")["predictions"].dropna() for net in (deep, shallow)]
    common = runs[0].index.intersection(runs[1].index)
    if common.empty:
        return ""
    seed = min(common)
    lost, won, p = compare_predictions(*(texts[seed] for texts in runs))
    return (
        f"Of the same test images, only ResNet-{deep.depth} misclassifies {lost} and only ResNet-{shallow.depth} {won} "
        f"(McNemar's exact test: p = {p:.2g}; it compares the two networks of seed {seed}, not the depths)."
    )


def describe_start(ours: pd.DataFrame, curves: pd.DataFrame, nets: Sequence[Config]) -> str:
    errors = [start_errors(finished_runs(select_runs(ours, net)), curves)[-1] for net in nets]
    return f"over iterations 4,001 to 5,000 the training error is {join_words(errors)}% at {list_depths(nets)} layers"


def list_warmups(nets: Sequence[Config]) -> str:
    """Return the published test errors of these networks without a warm-up, and of the deepest with one or without saying."""
    residual = published(load_paper(), kind="residual", quantity="test error", variant="", comparable="yes")
    depth, without = nets[-1].depth, []
    for source, warmup in SOURCES.items():
        errors = published(residual, source=source).set_index("depth")["value"]
        if warmup == "none":
            without.append(f"{source.split(',')[0]}: {join_words([f'{errors[net.depth]:.2f}' for net in nets])}%")
    deepest = published(residual, depth=depth)
    deepest = deepest[deepest["source"] != HE].set_index("source")["value"]
    warm = deepest[[source for source, warmup in SOURCES.items() if warmup != "none"]]
    others = deepest.drop(list(SOURCES))
    return (
        f"Two reproductions state that they use no warm-up ({'; '.join(without)}); those with one end at {warm.min():.2f} and "
        f"{warm.max():.2f}% at {depth} layers, those that do not say at {others.min():.2f} to {others.max():.2f}%."
    )


def judge_bn_placement(ours: pd.DataFrame, verdict: dict[str, str]) -> Finding | None:
    pairs = zip(bn_placement.BEFORE, bn_placement.AFTER, strict=True)
    gaps = {net.depth: gap for net, after in pairs if (gap := find_gap(ours, after, net))}
    if not gaps:
        return None
    clear = [depth for depth, gap in gaps.items() if gap.low > 0 or gap.high < 0]
    depths = join_words([str(depth) for depth in clear or gaps])
    return Finding(
        f"BN after the addition makes {'a' if clear else 'no clear'} difference at {depths} layers",
        f"(one seed): {list_gaps(gaps)}. The loss that others report is at 110 layers.",
    )


def judge_adam(ours: pd.DataFrame, verdict: dict[str, str]) -> Finding | None:
    nets = recorded(ours, degradation.RESIDUAL)
    gaps = {net.depth: gap for net in nets if (gap := find_gap(ours, Config(depth=net.depth, optimizer="adam"), net))}
    if not gaps:
        return None
    worse = all(gap.low > 0 for gap in gaps.values())
    words = [f"{gap} on ResNet-{depth}" for depth, gap in gaps.items()]
    return Finding(
        f"Adam is {'worse than' if worse else 'not shown to be worse than'} SGD",
        f"({verdict['A5']}): {join_words(words)}, at its usual learning rate of 0.001.",
    )


def judge_responses(ours: pd.DataFrame, verdict: dict[str, str]) -> Finding | None:
    means = compare_responses(ours)
    if not means:
        return None
    smaller = all(residual < plain for plain, residual in means.values())
    words = [f"{residual:.2f} and {plain:.2f} at {depth}" for depth, (plain, residual) in means.items()]
    return Finding(
        f"Layer responses are {'smaller' if smaller else 'not always smaller'} in residual than in plain networks",
        f"({verdict['C6']}): their mean standard deviation is {join_words(words)} layers.",
    )


# README.md ------------------------------------------------------------------------------------------------------------


def format_readme_results(runs: pd.DataFrame, findings: Sequence[Finding], verdicts: Sequence[Verdict]) -> str:
    """Return Fig. 6, our errors beside the paper's, and the first findings."""
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    numbers = published(load_paper(), source=HE, quantity="test error")
    paper = {(row["kind"], row["depth"]): format_number(row) for _, row in numbers.iterrows()}
    rows = []
    for residual, plain in zip(degradation.RESIDUAL, degradation.PLAIN, strict=True):
        errors = []
        for kind, net in (("residual", residual), ("plain", plain)):
            errors += [paper[kind, net.depth], format_estimates(select_runs(ours, net)) or "not run yet"]
        rows.append([residual.depth, *errors])
    header = ["layers", "residual, paper", "residual, ours", "plain, paper", "plain, ours"]
    figure = "![Fig. 6 from our runs](analysis/figures/degradation.png)\n\n" * bool(len(finished_runs(ours)))
    headlines = "\n".join(f"- {finding.headline}." for finding in findings[:3])
    return f"""{figure}{format_table(header, rows)}

Test error in % at the last of 64,000 iterations, {precision}: mean ± standard deviation over n seeds, one seed where no n is
given. The paper's plain networks are read off its Fig. 6.

{headlines}

Claims: {count_verdicts(verdicts)}."""


def format_weights(runs: pd.DataFrame, folder: Path) -> str:
    """Return the published weights files with the test error of their runs' records and their SHA-256.

    Raises:
        UserError: a file is damaged, differs from its model card, or its run has no finished record.
    """
    rows = []
    for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.stem):
        check_sha256(path)
        run = read_weights_header(path)[0].folder
        found = finished_runs(runs[runs["folder"] == str(run)])
        if found.empty:
            raise UserError(f"{path} was exported from {run}, which has no finished record: add the record or remove the file")
        row = found.iloc[0]
        card, sha256 = f"[{path.stem}](weights/{path.stem}.md)", f"`{sha256_of_file(path)}`"
        rows.append([card, f"{row['test_error']:.2f}", row["precision"], f"`{run}`", sha256])
    return format_table(["weights", "test error", "precision", "record", "SHA-256"], rows) if rows else "No weights yet."
