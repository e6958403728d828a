"""What was found, in few words: the head of RESULTS.md and the README's block."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.claims import Verdict, count_verdicts
from analysis.markdown import figure_path, format_estimates, format_failures, format_number, format_table
from analysis.paper import HE, load_paper, paper_value, published
from analysis.records import PRECISIONS, comparable_runs, finished_runs, select_runs
from analysis.sample import NotEnoughRuns, Sample, format_spread_source
from experiments import bn_placement, deep, degradation, lenet
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.model_card import check_sha256, sha256_of_file
from reproduce.record import read_weights_header


def format_summary(runs: pd.DataFrame, verdicts: Sequence[Verdict], preview: int) -> str:
    """What was asked and what was found, with the figure of the full-length runs or, until both kinds of nets have any, of the
    shortened ones."""
    full, done = finished_runs(comparable_runs(runs)), finished_runs(runs)
    said = {verdict.name: verdict.words for verdict in verdicts}
    ours = full[full["dataset"] == "cifar10"]
    precisions = ", ".join(precision for precision in PRECISIONS if (ours["precision"] == precision).any())
    devices = ", ".join(sorted({session["device_name"] for sessions in ours["sessions"] for session in sessions}))
    nets = ours[["family", "depth", "residual", "block", "shortcut"]].drop_duplicates()
    recorded = f"{count(len(ours), 'full-length run')} of {count(len(nets), 'net')} on CIFAR-10"
    recorded += f" ({precisions}; on {devices})" if len(ours) else ""
    recorded += f", {len(full) - len(ours)} on MNIST" if len(full) > len(ours) else ""
    recorded += (
        f", {len(done) - len(full)} shortened, on pictures or with images held out, {len(runs) - len(done)} without a result"
    )
    every = comparable_runs(runs)
    residual = list_errors(every, [*degradation.RESIDUAL, deep.DEEPEST])
    adam = [Config(depth=net.depth, optimizer="adam") for net in degradation.RESIDUAL]
    lines = [
        "**Asked**: do deeper plain nets get worse and deeper residual nets better, as section 4.2 says? Where does BN belong, "
        "and does Adam do as well as SGD?",
        f"**Recorded**: {recorded}; {runs['seconds'].sum() / 3600:.1f} hours of training.",
        f"**Plain nets**, test error in %: {list_errors(every, degradation.PLAIN)}. Deeper is worse (C1): {said['C1']}.",
        f"**Residual nets**: {residual}. Deeper is better (C2): {said['C2']}; the errors of Table 6 (T6): {said['T6']}.",
        f"**Residual less plain**, with 95% intervals: {list_gaps(full, degradation.RESIDUAL, degradation.PLAIN)}. "
        f"Better, and more so the deeper (C3): {said['C3']}.",
        f"**Layer responses** are smaller in residual nets (C6): {said['C6']}; the smaller the deeper (C7): {said['C7']}.",
        f"**BN after the addition**: {list_errors(every, bn_placement.AFTER)}. No difference at 20 layers (B1): {said['B1']}; "
        f"worse at 110 (B2): {said['B2']}.",
        f"**Adam less SGD**, residual nets, Adam at 0.001: {list_gaps(full, adam, degradation.RESIDUAL)}. SGD is "
        f"better at 20 and 56 layers (A5): {said['A5']}.",
        f"**Beyond section 4.2**: ResNet-32 is nearly as good as a wide ResNet-18 (W1): {said['W1']}; LeNet on MNIST, test "
        f"error {format_estimates(select_runs(full, lenet.LENET))}, reaches a tutorial's 2.74 (M1): {said['M1']}.",
        f"**Transfer**: pretraining helps the more, the fewer pictures there are (P1): {said['P1']}; the fewer there are, the "
        f"fewer layers should learn (P2): {said['P2']}; the more, the more (P3): {said['P3']}.",
        f"**Of {len(verdicts)} claims**: {count_verdicts(verdicts)}. Single runs only point, by published spreads; what the "
        "words mean stands under [The rules](#the-rules).",
    ]
    text = "\n".join(f"- {line}" for line in lines)
    if show_both_kinds(full):
        return f"{text}\n\n![Fig. 6 from our runs]({figure_path('degradation')}.svg)"
    shortened = [replace(net, iterations=preview) for net in degradation.CONFIGS]
    if any(len(select_runs(done, net)) for net in shortened):
        text += f"\n\n![Runs of {preview:,} iterations, too short for any claim]({figure_path('degradation', preview)}.svg)"
    return text


def count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def list_errors(full: pd.DataFrame, nets: Sequence[Config]) -> str:
    """Test and training error of those nets that have runs, with the paper's test error where it gives a number; of those
    whose runs all have none, what became of them."""
    words = []
    for net in nets:
        try:
            sample = Sample(full, net)
        except NotEnoughRuns:
            cell = select_runs(full, net)
            words += [f"{net.depth} layers {format_failures(cell)}"] * bool(len(cell))
            continue
        test, train = sample.means()[0], sample.means("train_error")[0]
        paper = (
            f"; the paper's test error {paper_value(HE, kind='residual', depth=net.depth):.2f}"
            if net == Config(depth=net.depth)
            else ""
        )
        words.append(f"{net.depth} layers {test}, {sample.precision} (training {train.mean:.2f}{paper})")
    return "; ".join(words) or "no full-length run yet"


def list_gaps(full: pd.DataFrame, nets: Sequence[Config], others: Sequence[Config]) -> str:
    """Test error of each net less that of the other in its place, where both have runs."""
    words = []
    for net, other in zip(nets, others, strict=True):
        try:
            sample = Sample(full, net, other)
            words.append(f"{net.depth} layers {sample.difference(0, 1)}{format_spread_source(sample)}")
        except NotEnoughRuns:
            continue
    return "; ".join(words) or "no depth has both yet"


def show_both_kinds(full: pd.DataFrame) -> bool:
    """Whether both panels of Fig. 6 have a run."""
    done = finished_runs(full)
    return all(any(len(select_runs(done, net)) for net in nets) for nets in (degradation.PLAIN, degradation.RESIDUAL))


# README.md -------------------------------------------------------------------------------------------------------------


def format_weights(runs: pd.DataFrame, folder: Path) -> str:
    """The published weights files, the test error that their runs' records give, and their SHA-256.

    Raises:
        UserError: a file is not by reproduce/export.py or not the one of its card, or the record of its run is not there.
    """
    rows = []
    for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.stem):
        check_sha256(path)
        run = read_weights_header(path)[0].folder
        found = finished_runs(runs[runs["folder"] == str(run)])
        if found.empty:
            raise UserError(f"{path} is of {run}, which has no finished record: add the record or remove the file")
        row = found.iloc[0]
        card = f"[{path.stem}](weights/{path.stem}.md)"
        rows.append(
            [
                card,
                f"{row['test_error']:.2f}",
                f"{row['iterations']:,}",
                row["precision"],
                f"`{run}`",
                f"`{sha256_of_file(path)}`",
            ]
        )
    if not rows:
        return "No trained weights are published yet: they come with the runs of full length."
    return format_table(["weights", "test error", "iterations", "precision", "record", "SHA-256"], rows)


def format_readme_block(runs: pd.DataFrame, verdicts: Sequence[Verdict], weights: Path) -> str:
    """Table 6 and the plain nets, the paper beside ours, Fig. 6, how many claims came out, and the weights."""
    full = comparable_runs(runs)
    numbers = published(load_paper(), source=HE, quantity="test error")
    paper = {(row["kind"], row["depth"]): format_number(row) for _, row in numbers.iterrows()}
    rows = []
    for residual, plain in zip(degradation.RESIDUAL, degradation.PLAIN, strict=True):
        errors = []
        for kind, net in (("residual", residual), ("plain", plain)):
            errors += [paper[kind, net.depth], format_estimates(select_runs(full, net))]
        rows.append([residual.depth, *errors])
    header = ["layers", "residual, paper", "residual, ours", "plain, paper", "plain, ours"]
    basis = "" if len(finished_runs(full)) else " No full-length run is recorded yet."
    figure = f"![Fig. 6 from our runs]({figure_path('degradation')}.png)\n\n" if show_both_kinds(full) else ""
    return (
        f"{figure}{format_table(header, rows)}\n\n"
        "Test error in % at the last of 64,000 iterations: mean ± standard deviation (n seeds), precision. The paper's "
        f"plain nets are read off its Fig. 6.{basis} Claims: {count_verdicts(verdicts)}. Peers, rules, commands and "
        f"records are in [RESULTS.md](RESULTS.md).\n\n{format_weights(runs, weights)}"
    )
