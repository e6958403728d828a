"""The findings at the head of RESULTS.md, and the README's block."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy import stats

from analysis.claims import Verdict, count_verdicts
from analysis.markdown import format_estimates, format_number, format_table, join_words
from analysis.paper import HE, load_paper, paper_value, published
from analysis.questions.degradation import PLAIN_TWINS, TWINS, list_depths, recorded
from analysis.questions.mistakes import decode
from analysis.questions.warmup import SOURCES, start_errors
from analysis.records import finished_runs, select_runs
from analysis.sections import choose_runs, describe_trend, format_gap, format_verdict, list_means, mean_error
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
    return f"[Claims](#claims): {count_verdicts(verdicts)}."


def format_findings(runs: pd.DataFrame, curves: pd.DataFrame, verdicts: Sequence[Verdict]) -> str:
    """Return the findings as a numbered list, most important first; those without runs are left out."""
    ours, _ = choose_runs(runs, degradation.CONFIGS)
    verdict = {verdict.name: format_verdict(verdict) for verdict in verdicts}
    findings = [
        describe_plain(ours, verdict),
        describe_gaps(ours, verdict),
        describe_residual(ours, curves, verdict),
        describe_bn_placement(ours, verdict),
        describe_adam(ours, verdict),
    ]
    return "\n".join(f"{i}. {text}" for i, text in enumerate(filter(None, findings), start=1)) or "No full-length run yet."


def describe_plain(ours: pd.DataFrame, verdict: dict[str, str]) -> str:
    nets = recorded(ours, PLAIN_TWINS)
    if len(nets) < 2:
        return ""
    trend = describe_trend([mean_error(ours, net) for net in nets])
    headline = "get worse with depth, as in the paper" if trend.startswith("rises") else "do not get worse at every step"
    others = published(load_paper(), kind="plain", depth=nets[-1].depth, quantity="test error", variant="")
    others = others[(others["source"] != HE) & others["protocol"].str.contains("64k")]["value"]
    return (
        f"**Plain networks {headline}** ({verdict['C1']}): {list_means(ours, nets)}% at {list_depths(nets)} layers. The "
        f"training error is ordered in the same way ({list_means(ours, nets, 'train_error')}%): this is not overfitting. Other "
        f"reproductions with 64,000 iterations report {others.min():.2f} to {others.max():.2f}% at {nets[-1].depth} layers."
    )


def describe_gaps(ours: pd.DataFrame, verdict: dict[str, str]) -> str:
    gaps = {net.depth: format_gap(ours, plain, net) for plain, net in zip(PLAIN_TWINS, TWINS, strict=True)}
    words = [f"{gap} at {depth} layers" for depth, gap in gaps.items() if gap]
    return (
        f"**Residual networks beat plain ones, the more so the deeper they are** ({verdict['C3']}), by {', '.join(words)}."
        if words
        else ""
    )


def describe_residual(ours: pd.DataFrame, curves: pd.DataFrame, verdict: dict[str, str]) -> str:
    """Return how the test error goes on from 32 to 56 layers, and what is known of the reason."""
    nets = recorded(ours, TWINS[1:])
    if len(nets) < 3:
        return ""
    trend = describe_trend([mean_error(ours, net) for net in nets])
    paper = [f"{paper_value(HE, kind='residual', depth=net.depth):.2f}" for net in nets]
    errors = f"{list_means(ours, nets)}% at {list_depths(nets)} layers; the paper: {join_words(paper)}"
    if trend.startswith("falls"):
        return f"**Residual networks get better with depth, as in the paper** ({verdict['C2']}): {errors}."
    shallow, deep = nets[0], nets[-1]
    return (
        f"**Residual networks do not get better beyond {shallow.depth} layers, unlike in the paper** ({verdict['C2']}): "
        f"{errors}. "
        f"{compare_on_test_images(ours, deep, shallow)} ResNet-{deep.depth} does not underfit: its training error is "
        f"{mean_error(ours, deep, 'train_error'):.2f}%, against {mean_error(ours, shallow, 'train_error'):.2f}% of "
        f"ResNet-{shallow.depth}. It starts slowly: {describe_start(ours, curves, nets)}. {list_warmups(nets)} "
        "[Does ResNet-56 need a warm-up?](#does-resnet-56-need-a-warm-up)"
    )


def compare_on_test_images(ours: pd.DataFrame, deep: Config, shallow: Config) -> str:
    """Return McNemar's test of two networks with the same seed, the first that both have."""
    runs = [finished_runs(select_runs(ours, net)).set_index("seed")["predictions"].dropna() for net in (deep, shallow)]
    common = runs[0].index.intersection(runs[1].index)
    if common.empty:
        return ""
    seed = min(common)
    right, other_right = (decode(texts[seed])[1] for texts in runs)
    lost, won = int((other_right & ~right).sum()), int((right & ~other_right).sum())
    p = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    return (
        f"On the same test images, ResNet-{deep.depth} misclassifies {lost} that ResNet-{shallow.depth} classifies correctly, "
        f"and {won} the other way round (seed {seed}, McNemar's exact test: p = {p:.2g})."
    )


def describe_start(ours: pd.DataFrame, curves: pd.DataFrame, nets: Sequence[Config]) -> str:
    errors = [start_errors(finished_runs(select_runs(ours, net)), curves)[-1] for net in nets]
    return f"over iterations 4,001 to 5,000 the training error is {join_words(errors)}% at {list_depths(nets)} layers"


def list_warmups(nets: Sequence[Config]) -> str:
    """Return the published test errors of these networks without a warm-up, and of the deepest with one."""
    residual = published(load_paper(), kind="residual", quantity="test error", variant="")
    without, warm = [], []
    for source, warmup in SOURCES.items():
        errors = published(residual, source=source).set_index("depth")["value"]
        if warmup == "none" and set(errors.index) >= {net.depth for net in nets}:
            without.append(f"{source.split(',')[0]}: {join_words([f'{errors[net.depth]:.2f}' for net in nets])}")
        elif warmup != "none" and nets[-1].depth in errors:
            warm.append(errors[nets[-1].depth])
    return (
        f"Reproductions without a warm-up show the same shape ({'; '.join(without)}), those with one end at {min(warm):.2f} to "
        f"{max(warm):.2f}% at {nets[-1].depth} layers."
    )


def describe_bn_placement(ours: pd.DataFrame, verdict: dict[str, str]) -> str:
    pairs = zip(bn_placement.BEFORE, bn_placement.AFTER, strict=True)
    gaps = [f"{gap} at {net.depth} layers" for net, after in pairs if (gap := format_gap(ours, after, net))]
    if not gaps:
        return ""
    return (
        f"**BN after the addition** changes the test error by {join_words(gaps)} ({verdict['B1']}; {verdict['B3']}); the loss "
        "reported elsewhere is at 110 layers."
    )


def describe_adam(ours: pd.DataFrame, verdict: dict[str, str]) -> str:
    gaps = [
        f"{gap} on ResNet-{net.depth}"
        for net in degradation.RESIDUAL
        if (gap := format_gap(ours, Config(depth=net.depth, optimizer="adam"), net))
    ]
    return f"**Adam** at 0.001 changes SGD's test error by {join_words(gaps)} ({verdict['A5']})." if gaps else ""


# README.md ------------------------------------------------------------------------------------------------------------


def format_readme_block(runs: pd.DataFrame, verdicts: Sequence[Verdict], weights: Path) -> str:
    """Return Fig. 6, our errors beside the paper's, the verdicts, and the published weights."""
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
    return f"""{figure}{format_table(header, rows)}

Test error in % at the last of 64,000 iterations, {precision}: mean ± standard deviation over n seeds, one seed where no n is
given. The paper's plain networks are read off its Fig. 6. Claims: {count_verdicts(verdicts)}; see [RESULTS.md](RESULTS.md).

{format_weights(runs, weights)}"""


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
