"""Do the networks misclassify the same images?"""

from itertools import combinations
from statistics import fmean

import numpy as np
import pandas as pd

from analysis.markdown import format_net, format_number, format_table, group_labels, join_words
from analysis.paper import find_number
from analysis.records import finished_runs, select_runs
from analysis.sections import choose_runs
from experiments import degradation
from experiments.warmup import WITH
from reproduce.config import Config
from reproduce.record import RIGHT, WRONG

Answers = tuple[np.ndarray, np.ndarray]
"""The predicted class of each test image, and whether it is right."""


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    ours = finished_runs(ours[ours["predictions"].notna()])
    first = {}
    for net in degradation.RESIDUAL:
        texts = select_runs(ours[ours["seed"] == 0], net)["predictions"]
        if len(texts):
            first[net] = decode(texts.item())
    theirs, theirs_wrong = (format_number(find_number(quantity=quantity)) for quantity in ("disagreement", "both wrong"))
    return f"""## Do the networks misclassify the same images?

{describe_seeds(ours)} {describe_depths(list(first.values()))} For comparison, the published predictions of ResNet-56 and
ResNet-110 (CIFAR-10.1) disagree on {theirs}% and both misclassify {theirs_wrong}%. The errors of each class are in
[classes.csv](analysis/tables/classes.csv).

{compare_answers(first)}

Test images in %, {precision}, seed 0: above the diagonal, those that two networks classify differently; below it, those that
both misclassify."""


def decode(text: str) -> Answers:
    characters = np.array(list(text))
    return np.array([(RIGHT + WRONG).index(c) % len(RIGHT) for c in characters]), np.isin(characters, list(RIGHT))


def disagreement(one: Answers, other: Answers) -> float:
    """Return the share of images that two networks classify differently, in %."""
    return 100 * float(np.mean(one[0] != other[0]))


def both_wrong(one: Answers, other: Answers) -> float:
    """Return the share of images that two networks misclassify, in %."""
    return 100 * float(np.mean(~one[1] & ~other[1]))


def describe_seeds(ours: pd.DataFrame) -> str:
    """Return on how many test images two seeds of one network disagree, on average over the pairs of seeds."""
    words = []
    for net in [*degradation.CONFIGS, *WITH]:
        pairs = list(combinations(map(decode, select_runs(ours, net)["predictions"]), 2))
        if pairs:
            words.append(f"{fmean(disagreement(*pair) for pair in pairs):.2f}% for {group_labels([net])}")
    return f"The average share of test images on which two seeds disagree is {join_words(words)}." if words else ""


def describe_depths(answers: list[Answers]) -> str:
    """Return how much residual networks of different depths disagree."""
    pairs = list(combinations(answers, 2))
    shares, wrong = ([measure(*pair) for pair in pairs] for measure in (disagreement, both_wrong))
    if not pairs:
        return ""
    chance = fmean(100 * float(np.mean(~one[1])) * float(np.mean(~other[1])) for one, other in pairs)
    return (
        f"Two residual networks of different depths disagree on {min(shares):.2f} to {max(shares):.2f}% and both misclassify "
        f"{min(wrong):.2f} to {max(wrong):.2f}%, not always as the same class; networks with independent mistakes would both "
        f"misclassify {chance:.2f}%."
    )


def compare_answers(answers: dict[Config, Answers]) -> str:
    nets, rows = list(answers), []
    for i, one in enumerate(nets):
        shares = [(disagreement if i < j else both_wrong)(answers[one], answers[other]) for j, other in enumerate(nets)]
        rows.append([format_net(one), *("-" if i == j else f"{share:.2f}" for j, share in enumerate(shares))])
    return format_table(["", *map(format_net, nets)], rows)
