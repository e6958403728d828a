"""The findings at the head of RESULTS.md, and the README's block."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis.claims import NOT_REPRODUCED, NOT_RUN, REPRODUCED, SUGGESTS, SUGGESTS_OTHERWISE, Verdict, count_verdicts, judge
from analysis.estimates import Interval, compare_predictions, holm_adjust
from analysis.markdown import format_estimates, format_net, format_number, format_table, join_words, wrap_paragraphs
from analysis.paper import HE, load_paper, paper_value, published
from analysis.questions.degradation import PLAIN_TWINS, TWINS, list_depths, recorded
from analysis.questions.layer_responses import compare_responses
from analysis.questions.warmup import SOURCES
from analysis.records import finished_runs, select_runs
from analysis.sections import choose_runs, describe_trend, find_gap, list_means, mean_error
from experiments import bn_placement, degradation
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.model_card import check_sha256
from reproduce.record import read_weights_header

FIGURE = (
    "Fig. 6 from our runs: training error (dashed) and test error (solid) of plain networks (left) and residual networks "
    "(right), one line per run; "
    "markers: the paper's final test errors"
)


def describe_scope(runs: pd.DataFrame) -> str:
    """Return what is recorded: runs, networks, precision, hours."""
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    done = finished_runs(ours[ours["dataset"] == "cifar10"])
    return (
        f"{len(done)} full-length runs of {done['configuration'].nunique()} configurations on CIFAR-10 in {precision}, and "
        "shorter experiments on block design, optimizers, LeNet and transfer learning; "
        f"{runs['seconds'].sum() / 3600:.0f} hours of training in total."
    )


def describe_answer(runs: pd.DataFrame) -> str:
    """Return the main result in three sentences."""
    ours, _ = choose_runs(runs, degradation.CONFIGS)
    plain, residual = recorded(ours, PLAIN_TWINS), recorded(ours, TWINS)
    gaps = [gap.mean for net, twin in zip(PLAIN_TWINS, TWINS, strict=True) if (gap := find_gap(ours, net, twin))]
    if len(plain) < 2 or len(residual) < 3 or not gaps:
        return "Too few networks have been trained to compare depths."
    errors = [mean_error(ours, net) for net in plain]
    trend = describe_trend(errors)
    deepest, verdict = residual[-1], judge("C2", runs).verdict
    beyond = {REPRODUCED: "They keep improving with depth", SUGGESTS: "They keep improving with depth"}
    beyond |= {
        NOT_REPRODUCED: "They do not keep improving with depth",
        SUGGESTS_OTHERWISE: "They do not keep improving with depth",
    }
    untrained = "" if recorded(ours, degradation.RESIDUAL[-1:]) else " 110 layers have not been trained."
    return (
        f"The test error of plain networks {trend} with depth, as in the paper: {errors[0]:.2f}% at {plain[0].depth} layers, "
        f"{errors[-1]:.2f}% at {plain[-1].depth} ({name_seeds(ours, plain)}). "
        f"Residual networks are {min(gaps):.1f} to {max(gaps):.1f} points better than plain networks of the same depth. "
        f"{beyond.get(verdict, 'Whether they keep improving beyond 32 layers is undecided')}: ResNet-{deepest.depth} ends at "
        f"{mean_error(ours, deepest):.2f}%, the paper's at {paper_value(HE, kind='residual', depth=deepest.depth):.2f}%."
        f"{untrained}"
    )


def name_seeds(ours: pd.DataFrame, nets: Sequence[Config]) -> str:
    """Return "one seed each", "3 seeds each", or the range."""
    counts = sorted({len(finished_runs(select_runs(ours, net))) for net in nets})
    return (
        ("one seed each" if counts == [1] else f"{counts[0]} seeds each")
        if len(counts) == 1
        else (f"{counts[0]} to {counts[-1]} seeds each")
    )


def describe_verdicts(verdicts: Sequence[Verdict]) -> str:
    """Return what single runs decide, and which verdicts hang on one published standard deviation."""
    other = [f"{verdict.name} ({verdict.without_widest})" for verdict in verdicts if verdict.without_widest]
    text = f"{count_verdicts(verdicts)}."
    if other:
        text += (
            " Sensitivity: without the largest published standard deviation of each network (1.01 points at 56 layers, from "
            f"Tony-Y/pytorch_warmup without a warm-up), these verdicts change: {', '.join(other)}."
        )
    return text


def format_verdicts(verdicts: Sequence[Verdict]) -> str:
    """Return the table of claims that have runs, and the names of the others."""
    rows = [[verdict.name, verdict.claim, verdict.words] for verdict in verdicts if verdict.verdict != NOT_RUN]
    others = [verdict.name for verdict in verdicts if verdict.verdict == NOT_RUN]
    table = f"{format_table(['ID', 'claim', 'verdict'], rows)}\n\n" if rows else ""
    return f"{table}Not run yet: {', '.join(others) or 'none'} ([list](docs/statistics.md#rules))."


def format_claims_csv(verdicts: Sequence[Verdict]) -> str:
    """Return a row per claim: verdict, p-value before and after Holm's adjustment, and the numbers behind it."""
    tested = [verdict for verdict in verdicts if verdict.p is not None]
    adjusted = dict(zip(tested, holm_adjust([verdict.p for verdict in tested if verdict.p is not None]), strict=True))
    rows = [
        [v.name, v.claim, v.verdict, v.seeds or None, v.without_widest, v.p, adjusted.get(v), v.numbers.strip()]
        for v in verdicts
    ]
    header = ["claim", "statement", "verdict", "seeds", "verdict_without_widest_std", "p", "p_holm", "numbers"]
    table = pd.DataFrame(rows, columns=pd.Index(header))
    table["seeds"] = table["seeds"].astype("Int64")
    return table.to_csv(index=False, lineterminator="\n", float_format="%.3g")


def list_findings(runs: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Return the findings that have runs, most important first, as Markdown."""
    ours, _ = choose_runs(runs, degradation.CONFIGS)
    findings = [
        describe_plain(ours),
        describe_gaps(ours),
        describe_residual(ours, curves),
        describe_bn_placement(ours),
        describe_adam(ours),
        describe_responses(ours),
    ]
    return list(filter(None, findings))


def format_findings(findings: Sequence[str]) -> str:
    return "\n".join(f"{number}. {text}" for number, text in enumerate(findings, start=1)) or "No full-length run yet."


def describe_plain(ours: pd.DataFrame) -> str:
    nets = recorded(ours, PLAIN_TWINS)
    if len(nets) < 2:
        return ""
    worse = describe_trend([mean_error(ours, net) for net in nets]) == "increases"
    both = worse and mean_error(ours, nets[-1], "train_error") > mean_error(ours, nets[0], "train_error")
    return (
        f"**Plain networks {'get' if worse else 'do not always get'} worse with depth in our "
        f"runs{', as in the paper' * worse}** "
        f"({name_seeds(ours, nets)}): {list_means(ours, nets)}% at {list_depths(nets)} layers. "
        + f"The training error {'increases, too' if both else 'is'} ({list_means(ours, nets, 'train_error')}%)"
        + ", so overfitting alone does not explain it." * both
        + "." * (not both)
    )


def describe_gaps(ours: pd.DataFrame) -> str:
    twins = zip(PLAIN_TWINS, TWINS, strict=True)
    gaps = {net.depth: gap for plain, net in twins if (gap := find_gap(ours, plain, net))}
    if not gaps:
        return ""
    means = [gap.mean for gap in gaps.values()]
    grow = ", and the gap grows with depth" * (describe_trend(means) == "increases")
    return (
        f"**Residual networks {'are better' if min(means) > 0 else 'are not always better'} than plain ones in our "
        f"runs{grow}** "
        f"({name_seeds(ours, recorded(ours, [*PLAIN_TWINS, *TWINS]))}): the difference is {list_gaps(gaps)}."
    )


def list_gaps(gaps: Mapping[int, Interval]) -> str:
    return f"{join_words([f'{gap} at {depth}' for depth, gap in gaps.items()])} layers"


def describe_residual(ours: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return how the test error changes from 32 to 56 layers, and what may explain it."""
    nets = recorded(ours, TWINS[1:])
    gap = find_gap(ours, nets[0], nets[-1]) if len(nets) > 2 else None
    if gap is None:
        return ""
    first, *deeper = nets
    found = "undecided" if gap.low <= 0 <= gap.high else "better" if gap.low > 0 else "worse"
    words = [f"ResNet-{net.depth} ({mean_error(ours, net):.2f}%)" for net in deeper]
    improve = "do not improve on" if all(mean_error(ours, net) >= mean_error(ours, first) for net in deeper) else "compare with"
    sentence = (
        f"**Residual networks beyond {first.depth} layers: {found}.** In our runs ({name_seeds(ours, nets)}), "
        f"{join_words(words)} "
        f"{improve} ResNet-{first.depth} ({mean_error(ours, first):.2f}%); {first.depth} minus {nets[-1].depth} layers is "
        f"{gap}. "
    )
    paired = compare_on_test_images(ours, nets[-1], first)
    return f"{sentence}{paired}{describe_confound(ours)}{describe_published_56()}"


def compare_on_test_images(ours: pd.DataFrame, deep: Config, shallow: Config) -> str:
    """Return McNemar's test of two networks with the same seed, the lowest that both have."""
    runs = [finished_runs(select_runs(ours, net)).set_index("seed")["predictions"].dropna() for net in (deep, shallow)]
    common = runs[0].index.intersection(runs[1].index)
    if common.empty:
        return ""
    lost, won, p = compare_predictions(*(texts[min(common)] for texts in runs))
    return (
        f"With seed {min(common)}, {lost} test images are misclassified by ResNet-{deep.depth} only and {won} by "
        f"ResNet-{shallow.depth} only (McNemar's test of these two networks: p = {p:.2g}). "
    )


def describe_confound(ours: pd.DataFrame) -> str:
    """Return which networks were trained at least partly on an accelerator, if only some were."""
    accelerated = [net for net in degradation.CONFIGS if list_accelerators(ours, net)]
    trained = recorded(ours, degradation.CONFIGS)
    if not accelerated or len(accelerated) == len(trained):
        return ""
    devices = sorted({name for net in accelerated for name in list_accelerators(ours, net)})
    return (
        f"Depth and device are confounded: {join_words([format_net(net) for net in accelerated])} were trained at least "
        f"partly on an accelerator ({join_words(devices)}), the others on CPUs. "
    )


def list_accelerators(ours: pd.DataFrame, net: Config) -> list[str]:
    """Return the accelerators that trained a network's runs, at least for a part of the iterations."""
    sessions = finished_runs(select_runs(ours, net))["sessions"].explode().dropna()
    return sorted({session["device_name"] for session in sessions if session["device"] != "cpu"})


def describe_published_56() -> str:
    """Return the published test errors of ResNet-56 with and without a warm-up."""
    numbers = published(load_paper(), kind="residual", depth=56, quantity="test error", variant="", comparable="yes")
    values = numbers.set_index("source")["value"]
    warm = values[[source for source in values.index if SOURCES.get(source, "none") != "none"]]
    cold = values.drop(warm.index)
    return (
        f"Published test errors at 56 layers are {cold.min():.2f} to {cold.max():.2f}% without a stated warm-up (the paper: "
        f"{values[HE]:.2f}%) and {join_words([f'{value:.2f}' for value in sorted(warm)])}% with one; "
        "[a run with a warm-up](#does-resnet-56-need-a-warm-up) is planned."
    )


def describe_bn_placement(ours: pd.DataFrame) -> str:
    pairs = zip(bn_placement.BEFORE, bn_placement.AFTER, strict=True)
    gaps = {net.depth: gap for net, after in pairs if (gap := find_gap(ours, after, net))}
    if not gaps:
        return ""
    clear = [depth for depth, gap in gaps.items() if gap.low > 0 or gap.high < 0]
    depths = join_words([str(depth) for depth in clear or gaps])
    seeds = name_seeds(ours, recorded(ours, [net for net in bn_placement.AFTER if net.depth in gaps]))
    return (
        f"**BN after the addition: {'a' if clear else 'no'} difference is visible at {depths} layers** ({seeds}): "
        f"{list_gaps(gaps)}. "
        "The large increase in test error that others report is at 110 layers."
    )


def describe_adam(ours: pd.DataFrame) -> str:
    nets = recorded(ours, degradation.RESIDUAL)
    gaps = {net: gap for net in nets if (gap := find_gap(ours, Config(depth=net.depth, optimizer="adam"), net))}
    if not gaps:
        return ""
    words = [f"{gap} on ResNet-{net.depth}" for net, gap in gaps.items()]
    seeds = name_seeds(ours, [Config(depth=net.depth, optimizer="adam") for net in gaps])
    return (
        f"**Adam at a learning rate of 0.001 (not tuned)** ({seeds}): test error minus that of SGD is {join_words(words)}. "
        "With fewer than 3 seeds the interval assumes that Adam's runs vary like SGD's."
    )


def describe_responses(ours: pd.DataFrame) -> str:
    means = compare_responses(ours)
    if not means:
        return ""
    smaller = all(residual < plain for plain, residual in means.values())
    words = [f"{residual:.2f} (plain: {plain:.2f}) at {depth}" for depth, (plain, residual) in means.items()]
    return (
        f"**Averaged over layers, residual networks {'have' if smaller else 'do not always have'} smaller responses**: the "
        f"mean "
        f"standard deviation is {join_words(words)} layers."
    )


# README.md ------------------------------------------------------------------------------------------------------------


def format_comparison(runs: pd.DataFrame) -> str:
    """Return the table of our errors and the paper's, with its caption."""
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
    return f"""{format_table(header, rows)}

Test error in % after 64,000 iterations, {precision}; mean ± standard deviation over n seeds, n = 1 unless stated. The errors of
the paper's plain networks are read off its Fig. 6 (plot) or from its caption."""


def format_readme_results(runs: pd.DataFrame, findings: Sequence[str]) -> str:
    """Return the answer, our errors and the paper's, Fig. 6, and the first findings."""
    ours, _ = choose_runs(runs, degradation.CONFIGS)
    figure = f"\n\n![Fig. 6 from our runs](analysis/figures/degradation.png)\n\n*{FIGURE}.*" * bool(len(finished_runs(ours)))
    listed = "".join(f"\n- {finding.replace('(#', '(RESULTS.md#')}" for finding in findings[:3])
    return wrap_paragraphs(f"{describe_answer(runs)}\n\n{format_comparison(runs)}{figure}\n\n{listed}").strip()


def format_weights(runs: pd.DataFrame, folder: Path) -> str:
    """Return the published weights files with the test error of their runs' records.

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
        rows.append([f"[{path.stem}](weights/{path.stem}.md)", f"{row['test_error']:.2f}%", row["precision"], f"`{run}`"])
    return format_table(["weights", "test error, one run", "precision", "record"], rows) if rows else "No weights yet."
