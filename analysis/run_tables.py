"""analysis/tables/*.csv: a row per run, and a row per run and class."""

import numpy as np
import pandas as pd

from analysis.devices import format_versions, name_device
from analysis.markdown import format_command, format_commit, format_label
from analysis.records import to_configs
from reproduce.record import RIGHT

COLUMNS = [
    "folder", "dataset", "iterations", "split", "precision", "seed", "status", "iteration", "test_error", "best_test_error",
    "mean_of_last_five_test_error", "held_out_error", "train_error", "train_loss", "parameters", "warmup_ended",
    "images_per_second", "peak_memory",
]  # fmt: skip


def format_runs_csv(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return a row per run: its configuration, result, cost, device, software, commits and command."""
    configs = to_configs(runs)
    table = runs[COLUMNS].copy()
    table.insert(1, "configuration", [format_label(config) for config in configs])
    table["mean_response"] = [round(float(np.mean(std)), 4) if isinstance(std, list) else None for std in runs["responses"]]
    table["hours"] = (runs["seconds"] / 3600).astype(float).round(3)
    table["device"] = [name_device(run, curves) for _, run in runs.iterrows()]
    table["software"] = [format_versions(sessions[-1]["versions"]) if sessions else "" for sessions in runs["sessions"]]
    commits = [sorted({format_commit(session["git"]) for session in sessions}) for sessions in runs["sessions"]]
    table["commits"] = [" ".join(names) for names in commits]
    table["command"] = [f"{format_command(config)} --seed {config.seed}" for config in configs]
    return table.to_csv(index=False, lineterminator="\n", float_format="%.6g")


def format_classes_csv(runs: pd.DataFrame) -> str:
    """Return a row per run and class: the class's test images, and its error in percent."""
    rows = []
    known = runs[runs["confusion"].notna() | runs["predictions"].notna()]
    for (_, run), config in zip(known.iterrows(), to_configs(known), strict=True):
        for name, (images, error) in zip(config.dataset_info.class_names, count_errors(run), strict=True):
            rows.append([run["folder"], name, images, f"{error:.2f}"])
    return pd.DataFrame(rows, columns=pd.Index(["folder", "class", "images", "error"])).to_csv(index=False, lineterminator="\n")


def count_errors(run: pd.Series) -> list[tuple[int, float]]:
    """Return the number of images and the error in percent of each class."""
    if isinstance(run["confusion"], list):
        counts = np.array(run["confusion"])
        return list(zip(counts.sum(1).tolist(), (100 * (1 - counts.diagonal() / counts.sum(1))).tolist(), strict=True))
    right = np.array([RIGHT.index(character) for character in run["predictions"] if character in RIGHT])
    images = len(run["predictions"]) // 10  # the test set of CIFAR-10 is balanced
    return [(images, 100 * (1 - count / images)) for count in np.bincount(right, minlength=10).tolist()]
