"""Does ResNet-56 need the warm-up that the paper gives ResNet-110 only?"""

import pandas as pd

from analysis.claims import claim
from analysis.estimates import Finding, compare_predictions, is_positive
from analysis.markdown import (
    format_estimates,
    format_figure,
    format_net,
    format_not_run,
    format_number,
    format_table,
    group_labels,
    join_words,
    name_run,
)
from analysis.paper import find_number, published
from analysis.questions.degradation import PLAIN, RESIDUAL, format_paper, subtract_reproductions
from analysis.questions.layer_responses import share_small_scales
from analysis.questions.precision import describe_fp32
from analysis.records import keep_recorded, select_finished, to_configs
from analysis.sample import Sample
from analysis.sections import choose_runs, find_gap, format_verdicts, mean_error
from experiments import degradation
from experiments.warmup import WITH
from reproduce.config import Config

COLD, WARM = Config(depth=56), Config(depth=56, warmup="iterations")
EARLY_ITERATIONS = (1000, 2000, 3000, 4000, 5000)
"""Iterations at whose evaluations the slow start is shown."""
WITH_WARMUP = ("Tony-Y/pytorch_warmup, 1k-step warm-up", "raphaelreme/torch-resnet")
"""Sources that warm up 56 layers."""


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, [*RESIDUAL, *WITH])
    rows = []
    for config in [*RESIDUAL, *WITH]:
        group = select_finished(ours, config)
        if len(group):
            warmup = "400 iterations" if config in WITH else "none"
            errors = [format_estimates(group, "train_error"), format_estimates(group)]
            rows.append([format_net(config), warmup, *format_early_errors(group, curves), *errors])
    spans = ["1-1,000", *(f"{end - 999:,}-{end:,}" for end in EARLY_ITERATIONS[1:])]
    header = ["network", "warm-up", *spans, "final training error", "final test error"]
    evidence = "\n".join(f"- {text}" for text in list_evidence(ours, curves))
    measured = describe_effect(ours)
    effect = f"Test error of ResNet-56 in %: {measured}" if measured else "No ResNet-56 with a warm-up has finished"
    return f"""## The 56-layer networks: does a warm-up help?

The paper warms up 110 layers only. {effect} ({format_verdicts(runs, "W56")}). This question
arose from the first 6,000 iterations of a ResNet-56 with and of one without a warm-up, so W56 is exploratory on these runs; its
rule was fixed before a run with a warm-up ended. What is known of the test error of ResNet-56:

{evidence}

{format_table(header, rows)}

Training error in % over each window of iterations (mean over seeds), then final training and test error; {precision}.
{format_not_run(ours, WITH, "python experiments/sweep.py warmup")}

{format_figure(ours, RESIDUAL, "warmup", "Training error at the start of training, one line per run")}"""


def describe_effect(ours: pd.DataFrame) -> str:
    """Return "8.43 without and 6.72 with ..., a difference of +1.71 (+0.40 to +3.01)", empty without runs of both."""
    gap = find_gap(ours, COLD, WARM)
    errors = [format_estimates(select_finished(ours, net)) for net in (COLD, WARM)]
    warmup = "a warm-up of 400 iterations at a learning rate of 0.01"
    return f"{errors[0]} without and {errors[1]} with {warmup}, a difference of {gap}" if gap else ""


def list_evidence(ours: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Return what is known of the errors of ResNet-56."""
    shallow, deep = RESIDUAL[1], RESIDUAL[-1]
    evidence = [
        *(describe_training(ours, curves), describe_small_scales(ours), compare_on_test_images(ours, deep, shallow)),
        *(describe_fp32(shallow, deep), describe_confound(ours), describe_reproductions(ours)),
    ]
    return list(filter(None, evidence))


def list_published(source: str) -> str:
    """Return a source's test errors at 20, 32, 44 and 56 layers."""
    where = {"source": source, "kind": "residual", "quantity": "test error", "variant": ""}
    numbers = [format_number(find_number(**where, depth=net.depth)).removesuffix(" (n=5)") for net in RESIDUAL]
    return f"{join_words(numbers)}%"


def format_early_errors(group: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Return the mean training error over each of the spans that end at EARLY_ITERATIONS."""
    rows = curves[curves["folder"].isin(group["folder"])]
    errors = rows.groupby("iteration")["train_error"].mean()
    return [f"{errors[end]:.1f}" if end in errors else "" for end in EARLY_ITERATIONS]


def describe_training(ours: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return how ResNet-56 starts and ends without a warm-up, compared with ResNet-32."""
    shallow, deep = (select_finished(ours, Config(depth=depth)) for depth in (32, 56))
    if shallow.empty or deep.empty:
        return ""
    slow, fast = (format_early_errors(group, curves)[-1] for group in (deep, shallow))
    final = [mean_error(ours, net, "train_error") for net in RESIDUAL]
    is_lowest = final[-1] == min(final)
    lowest = ", the lowest of the four" if is_lowest else ""
    conclusion = ", so underfitting does not explain its test error" if is_lowest else ""
    return (
        f"Without a warm-up, ResNet-56's training error is {slow}% over iterations 4,001 to 5,000 (ResNet-32: {fast}%), and "
        f"{final[-1]:.2f}% at the end{lowest} (ResNet-32: {final[1]:.2f}%){conclusion}."
    )


def describe_small_scales(ours: pd.DataFrame) -> str:
    """Return the share of small BN scales by network, and where in the deepest network's blocks it is highest."""
    shares = {net: share_small_scales(ours, net, "0.02") for net in [*RESIDUAL, *WITH]}
    shares = {net: share for net, share in shares.items() if share}
    if not shares:
        return ""
    words = [f"{share['all']:.1f}% in {group_labels([net])}" for net, share in shares.items()]
    net, deepest = next((net, share) for net, share in reversed(shares.items()) if net in RESIDUAL)
    place = max(deepest, key=lambda name: deepest[name])
    return (
        f"At the end, the share of BN scales below 0.02 in absolute value is {join_words(words)}; in the blocks of "
        f"{format_net(net)} without a warm-up it is highest in {place} ({deepest[place]:.1f}%). Whether such scales are a "
        "cause or a symptom is open ([table](#are-the-layer-responses-of-residual-networks-smaller))."
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
        "variation between seeds)."
    )


def describe_confound(ours: pd.DataFrame) -> str:
    """Return which runs were trained at least partly on an accelerator, if only some were."""
    trained = pd.concat([select_finished(ours, net) for net in [*degradation.CONFIGS, *WITH]])
    names = [{session["device_name"] for session in sessions if session["device"] != "cpu"} for sessions in trained["sessions"]]
    accelerated = trained[list(map(bool, names))]
    if len(accelerated) in (0, len(trained)):
        return ""
    listed = join_words([*map(name_run, to_configs(accelerated))])
    return (
        f"Depth and device are confounded: {listed} were trained at least partly on an accelerator "
        f"({join_words(sorted(set().union(*names)))}), the other runs on CPUs."
    )


def describe_reproductions(ours: pd.DataFrame) -> str:
    """Compare the 56-layer networks with other reproductions, with and without a warm-up."""
    numbers = published(kind="residual", depth=56, quantity="test error", variant="", comparable="yes")
    warm = numbers["source"].isin(WITH_WARMUP)
    cold = numbers[~warm]["value"]
    with_warmup = [f"{value:.2f}" for value in sorted(numbers[warm]["value"])]
    nets = keep_recorded(ours, [RESIDUAL[-1], PLAIN[-1]])
    gaps = [f"{subtract_reproductions(ours, net)} for {format_net(net)}" for net in nets]
    listed = f"Our test error minus the mean of other reproductions is {join_words(gaps)} (prediction intervals). "
    return (
        f"{listed if gaps else ''}Comparable published test errors of ResNet-56 are {cold.min():.2f} to {cold.max():.2f}% "
        f"without a stated warm-up (the paper: {format_paper(RESIDUAL[-1])}%) and {join_words(with_warmup)}% with one. Only "
        "Tony-Y/pytorch_warmup compares both: at 20, 32, 44 and 56 layers, "
        f"{list_published('Tony-Y/pytorch_warmup, no warm-up')} without and "
        f"{list_published('Tony-Y/pytorch_warmup, 1k-step warm-up')} with a warm-up of 1,000 iterations (n=5)."
    )


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("W56", [COLD, WARM])
def warmup_helps_at_56(sample: Sample) -> tuple[Finding, str]:
    """The warm-up that the paper uses for 110 layers also helps at 56.

    Rule: the test error of ResNet-56 is lower with 400 iterations at a learning rate of 0.01 than without.
    """
    gap = sample.difference(0, 1)
    return is_positive(gap), f"{sample.format_means()}; without - with {gap}"
