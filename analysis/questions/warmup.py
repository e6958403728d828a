"""Does ResNet-56 need the warm-up that the paper gives ResNet-110 only?"""

import numpy as np
import pandas as pd

from analysis.claims import claim
from analysis.estimates import Finding, is_positive
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
from analysis.paper import HE, WITH_WARMUP, find_number, published
from analysis.questions.degradation import RESIDUAL, format_paper
from analysis.questions.layer_responses import share_small_scales
from analysis.questions.precision import describe_fp32
from analysis.records import keep_recorded, select_finished, select_runs, to_configs
from analysis.sample import Sample
from analysis.sections import choose_runs, find_gap, format_verdicts, mean_error
from experiments import degradation
from experiments.warmup import WITH
from reproduce.config import Config

RESNET56, RESNET56_WARMUP = Config(depth=56), Config(depth=56, warmup="iterations")
EARLY_ITERATIONS = (1000, 2000, 3000, 4000, 5000)
"""Iterations at whose evaluations the slow start is shown."""


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, [*RESIDUAL, *WITH])
    rows = []
    for config in [*RESIDUAL, *WITH]:
        group = select_finished(ours, config)
        if len(group):
            warmup = "400 iterations" if config in WITH else "none"
            errors = [format_estimates(select_runs(ours, config), column) for column in ("train_error", "test_error")]
            rows.append([format_net(config), warmup, *format_early_errors(group, curves), *errors])
    spans = ["1-1,000", *(f"{end - 999:,}-{end:,}" for end in EARLY_ITERATIONS[1:])]
    header = ["network", "warm-up", *spans, "final training error", "final test error"]
    evidence = "\n".join(f"- {text}" for text in list_evidence(ours, curves))
    measured = describe_effect(ours)
    effect = (
        f"Test error of ResNet-56 in %: {measured}"
        if measured
        else "ResNet-56 has not finished both with and without a warm-up"
    )
    return f"""## The 56-layer networks: does a warm-up help?

The paper describes a warm-up for 110 layers only. {effect} ({format_verdicts(runs, "W56")}). We asked this
after seeing the test error of seed 0 without a warm-up and the first 6,000 iterations of two more runs (seed 1 without, seed 0
with one). The rule was fixed before those two ended and before later runs began; because of these three runs, W56 is
exploratory. What is known of the test error of ResNet-56:

{evidence}

{format_table(header, rows)}

Training error in % over each window of iterations (mean over seeds), then final training and test error; {precision}.
{format_not_run(ours, WITH, f"python experiments/sweep.py warmup --precision {precision}")}

{format_figure(ours, RESIDUAL, "warmup", "Training error at the start of training, one line per run")}"""


def describe_effect(ours: pd.DataFrame) -> str:
    """Return "8.43 without and 6.73 with ..., a difference of +1.70 (+0.63 to +2.76)", empty without runs of both."""
    gap = find_gap(ours, RESNET56, RESNET56_WARMUP)
    errors = [format_estimates(select_runs(ours, net)) for net in (RESNET56, RESNET56_WARMUP)]
    warmup = "a warm-up of 400 iterations at a learning rate of 0.01"
    return f"{errors[0]} without and {errors[1]} with {warmup}, a difference of {gap}" if gap else ""


def list_evidence(ours: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Return what is known of the errors of ResNet-56."""
    evidence = [
        *(describe_training(ours, curves), describe_small_scales(ours), describe_fp32()),
        *(describe_devices(ours), describe_reproductions()),
    ]
    return list(filter(None, evidence))


def format_early_errors(group: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Return the mean training error over each of the spans that end at EARLY_ITERATIONS."""
    rows = curves[curves["folder"].isin(group["folder"])]
    errors = rows.groupby("iteration")["train_error"].mean()
    return [f"{errors[end]:.1f}" if end in errors else "" for end in EARLY_ITERATIONS]


def describe_training(ours: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return the training error of ResNet-32 and of ResNet-56 without and with a warm-up, early and at the end."""
    nets = [Config(depth=32), RESNET56, RESNET56_WARMUP]
    if len(keep_recorded(ours, nets)) < len(nets):
        return ""
    early = [format_early_errors(select_finished(ours, net), curves)[-1] for net in nets]
    final = [mean_error(ours, net, "train_error") for net in nets]
    conclusion = ""
    if final[1] < final[0] and mean_error(ours, RESNET56) > mean_error(ours, nets[0]):
        conclusion = ", so underfitting does not explain why its test error without a warm-up is above ResNet-32's"
    return (
        f"Over iterations 4,001 to 5,000, ResNet-56's training error is {early[1]}% without and {early[2]}% with a warm-up "
        f"(ResNet-32: {early[0]}%), at the end {final[1]:.2f} and {final[2]:.2f}% (ResNet-32: {final[0]:.2f}%){conclusion}."
    )


def describe_small_scales(ours: pd.DataFrame) -> str:
    """Return the share of small BN scales by network."""
    shares = {net: share_small_scales(ours, net, "0.02") for net in [*RESIDUAL, *WITH]}
    shares = {net: share for net, share in shares.items() if share}
    if not shares:
        return ""
    words = [f"{share['all']:.2f}% in {group_labels([net])}" for net, share in shares.items()]
    return (
        f"At the end, the share of BN scales below 0.02 in absolute value is {join_words(words)}. Whether "
        "such scales are a cause or a symptom is open ([table](#are-the-layer-responses-of-residual-networks-smaller))."
    )


def describe_devices(ours: pd.DataFrame) -> str:
    """Return which runs were trained at least partly on an accelerator, if only some were, and W56 on the others."""
    trained = pd.concat([select_finished(ours, net) for net in [*degradation.CONFIGS, *WITH]])
    names = [{session["device_name"] for session in sessions if session["device"] != "cpu"} for sessions in trained["sessions"]]
    is_accelerated = np.array(list(map(bool, names)), bool)
    if is_accelerated.all() or not is_accelerated.any():
        return ""
    listed = join_words([*map(name_run, to_configs(trained[is_accelerated]))])
    rest = trained[~is_accelerated]
    gap = find_gap(rest, RESNET56, RESNET56_WARMUP)
    errors = []
    for net, how in ((RESNET56, "without"), (RESNET56_WARMUP, "with a warm-up")):
        seeds = sorted(map(str, select_finished(rest, net)["seed"]))
        errors.append(f"{format_estimates(select_runs(rest, net))} {how} (seed{'s' * (len(seeds) > 1)} {join_words(seeds)})")
    on_cpus = f" Test error of ResNet-56 on CPUs only, in %: {' and '.join(errors)}, a difference of {gap}." if gap else ""
    return (
        f"Devices differ between runs: {listed} were trained at least partly on an accelerator "
        f"({join_words(sorted(set().union(*names)))}), the other runs on CPUs.{on_cpus}"
    )


def list_published_errors(warm: bool) -> list[float]:
    """Return the test errors of ResNet-56 in comparable reproductions with or without a stated warm-up, sorted."""
    numbers = published(kind="residual", depth=56, quantity="test error", variant="", comparable="yes")
    numbers = numbers[numbers["source"] != HE]
    return sorted(numbers[numbers["source"].isin(WITH_WARMUP) == warm]["value"])


def describe_reproductions() -> str:
    """Return the published test errors of ResNet-56 without and with a warm-up."""
    cold = list_published_errors(warm=False)
    warm = join_words([f"{error:.2f}" for error in list_published_errors(warm=True)])
    tony = "Tony-Y/pytorch_warmup"
    sources = "akamaster/pytorch_resnet_cifar10#18", f"{tony}, no warm-up", f"{tony}, 1k-step warm-up"
    means = [format_number(find_number(source=source, kind="residual", depth=56)).partition(" (n")[0] for source in sources]
    return (
        f"Test errors of ResNet-56 in comparable reproductions are {cold[0]:.2f} to {cold[-1]:.2f}% without a stated warm-up "
        f"(the paper: {format_paper(RESNET56)}%) and {warm}% with one. The best evaluations of another user's six runs of "
        f"akamaster's code, without a warm-up, average {means[0]}% ({sources[0]}; its author suspects the version of PyTorch). "
        f"Only {tony} compares both, at 20 to 110 layers (table above): at 56 layers {means[1]}% without and {means[2]}% with "
        "a linear warm-up over 1,000 iterations (n=5 each)."
    )


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("W56", [RESNET56, RESNET56_WARMUP])
def warmup_helps_at_56(sample: Sample) -> tuple[Finding, str]:
    """A warm-up like that of the paper for 110 layers also helps at 56.

    Rule: the test error of ResNet-56 is lower with 400 iterations at a learning rate of 0.01 than without.
    """
    gap = sample.difference(0, 1)
    return is_positive(gap), f"{sample.format_means()}; without - with {gap}"
