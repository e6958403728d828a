"""Which test images do the nets get wrong, and are they the same ones?"""

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.markdown import format_label, format_number, format_table
from analysis.paper import load_paper, published
from analysis.records import comparable_runs, finished_runs, to_configs
from experiments import degradation
from reproduce.config import Config
from reproduce.dataset import DATASETS
from reproduce.record import RIGHT, WRONG

CLASSES = DATASETS["cifar10"].class_names
IMAGES_PER_CLASS = 1000
"""In its test set."""


def format_section(runs: pd.DataFrame, link: str) -> str:
    known = finished_runs(comparable_runs(runs[runs["dataset"] == "cifar10"]))
    known = known[known["predictions"].notna()]
    nets = to_configs(known)
    names = [f"{format_label(config)} {config.precision} seed {config.seed}" for config in nets]
    answers = [decode(text) for text in known["predictions"]]
    compared = [i for i, net in enumerate(nets) if replace(net, precision=Config().precision) in degradation.CONFIGS]
    disagreement, both_wrong = (
        format_number(published(load_paper(), quantity=quantity).iloc[0]) for quantity in ("disagreement", "both wrong")
    )
    return f"""## Mistakes

Errors of each class in %, from the records' `predictions.txt` (the class given to every test image at the last iteration):

{compare_classes(names, answers)}

Of the plain and residual nets, seed 0, the test images in %: above the diagonal those to which two nets give different
answers, below it those which both get wrong. Published of a ResNet-56 and a ResNet-110: {disagreement} and {both_wrong}
(computed from CIFAR-10.1's predictions).

{compare_answers([names[i] for i in compared], [answers[i] for i in compared])}"""


def decode(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The predicted class of each image, and whether it is right."""
    characters = np.array(list(text))
    right = np.isin(characters, list(RIGHT))
    return np.array([(RIGHT + WRONG).index(c) % len(RIGHT) for c in characters]), right


def compare_classes(names: list[str], answers: list[tuple[np.ndarray, np.ndarray]]) -> str:
    rows = []
    for name, (predicted, right) in zip(names, answers, strict=True):
        hits = np.bincount(predicted[right], minlength=len(CLASSES))
        rows.append([name, *(f"{100 * (1 - count / IMAGES_PER_CLASS):.1f}" for count in hits)])
    return format_table(["net", *CLASSES], rows) if rows else "No full-length record has its predictions yet."


def compare_answers(names: list[str], answers: list[tuple[np.ndarray, np.ndarray]]) -> str:
    if len(names) < 2:
        return "Two such records are needed."
    rows: list[list[str]] = [[name] for name in names]
    for row, (one, one_right) in enumerate(answers):
        for column, (other, other_right) in enumerate(answers):
            share = 100 * np.mean(one != other if row < column else ~one_right & ~other_right)
            rows[row].append("" if row == column else f"{share:.2f}")
    return format_table(["net", *names], rows)
