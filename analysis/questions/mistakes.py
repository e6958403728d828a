"""Do the networks misclassify the same images?"""

from itertools import combinations

import numpy as np
import pandas as pd

from analysis.markdown import format_net, format_number, format_table, join_words
from analysis.paper import load_paper, published
from analysis.records import finished_runs, select_runs, to_configs
from analysis.sections import choose_runs
from experiments import degradation
from reproduce.record import RIGHT, WRONG


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    ours, precision = choose_runs(runs, degradation.CONFIGS)
    nets = pd.concat([select_runs(finished_runs(ours), net) for net in degradation.CONFIGS])
    nets = nets[nets["predictions"].notna()]
    answers = {folder: decode(text) for folder, text in zip(nets["folder"], nets["predictions"], strict=True)}
    first = nets[(nets["seed"] == 0) & nets["residual"]]
    labels = {folder: format_net(config) for folder, config in zip(first["folder"], to_configs(first), strict=True)}
    theirs, theirs_wrong = (
        format_number(published(load_paper(), quantity=quantity).iloc[0]) for quantity in ("disagreement", "both wrong")
    )
    return f"""## Do the networks misclassify the same images?

{describe_baseline(nets, answers)} For comparison, the published
predictions of ResNet-56 and ResNet-110 (CIFAR-10.1) disagree on {theirs}%, and both misclassify the same {theirs_wrong}%. The
errors of each class are in [classes.csv](analysis/tables/classes.csv).

{compare_answers(labels, answers)}

Test images in %, {precision}, seed 0: above the diagonal, those that two networks classify differently; below it, those that
both misclassify."""


def decode(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted class of each image, and whether it is right."""
    characters = np.array(list(text))
    right = np.isin(characters, list(RIGHT))
    return np.array([(RIGHT + WRONG).index(c) % len(RIGHT) for c in characters]), right


def disagreement(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the share of images that two networks classify differently, in %."""
    return 100 * float(np.mean(one[0] != other[0]))


def describe_baseline(nets: pd.DataFrame, answers: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Return how much two seeds of one network disagree, and how much two depths of the residual network do."""
    seeds = []
    for config in degradation.CONFIGS:
        for one, other in combinations(select_runs(nets, config)["folder"], 2):
            seeds.append(f"two seeds of {format_net(config)} disagree on {disagreement(answers[one], answers[other]):.2f}%")
    if not seeds:
        return "No network has two seeds to compare with yet."
    residual = [select_runs(nets[nets["seed"] == 0], net)["folder"] for net in degradation.RESIDUAL]
    folders = [folder.iloc[0] for folder in residual if len(folder)]
    words = join_words(seeds)
    shares = [disagreement(answers[one], answers[other]) for one, other in combinations(folders, 2)]
    common = [100 * np.mean(~answers[one][1] & ~answers[other][1]) for one, other in combinations(folders, 2)]
    if not shares:
        return f"{words[0].upper()}{words[1:]} of the test images."
    return (
        f"{words[0].upper()}{words[1:]} of the test images; residual networks of different depths on {min(shares):.2f} to "
        f"{max(shares):.2f}%, and both misclassify the same {min(common):.2f} to {max(common):.2f}%."
    )


def compare_answers(labels: dict[str, str], answers: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    rows: list[list[str]] = []
    for i, (one, label) in enumerate(labels.items()):
        row = [label]
        for j, other in enumerate(labels):
            both_wrong = 100 * float(np.mean(~answers[one][1] & ~answers[other][1]))
            row.append("-" if i == j else f"{disagreement(answers[one], answers[other]) if i < j else both_wrong:.2f}")
        rows.append(row)
    return format_table(["", *labels.values()], rows)
