"""analysis/tables/*.csv: a row per run, and a row per run and class."""

import pandas as pd

from analysis.devices import name_devices, name_software
from analysis.markdown import format_command, format_commit, format_label
from analysis.records import to_configs

COLUMNS = [
    "folder", "dataset", "iterations", "split", "precision", "seed", "status", "iteration", "test_error", "best_test_error",
    "mean_of_last_five_test_error", "held_out_error", "train_error", "train_loss", "parameters", "warmup_ended",
    "images_per_second", "peak_memory",
]  # fmt: skip


def format_runs_csv(runs: pd.DataFrame) -> str:
    """Return a row per run: its configuration, result, cost, device, software, commits and command."""
    configs = to_configs(runs)
    table = runs[COLUMNS].copy()
    table.insert(1, "configuration", [format_label(config) for config in configs])
    table["mean_response"] = runs["mean_response"].round(4)
    table["hours"] = (runs["seconds"] / 3600).astype(float).round(3)
    table["device"] = runs["sessions"].map(name_devices)
    table["software"] = runs["sessions"].map(name_software)
    table["commits"] = [" ".join(sorted({format_commit(each["git"]) for each in sessions})) for sessions in runs["sessions"]]
    table["command"] = [f"{format_command(config)} --seed {config.seed}" for config in configs]
    return table.to_csv(index=False, lineterminator="\n", float_format="%.6g")


def format_classes_csv(runs: pd.DataFrame) -> str:
    """Return a row per run and class: the class's test images, and its error in percent."""
    rows = []
    known = runs[runs["confusion"].notna()]
    for folder, confusion, config in zip(known["folder"], known["confusion"], to_configs(known), strict=True):
        for position, (name, counts) in enumerate(zip(config.dataset_info.class_names, confusion, strict=True)):
            images = sum(counts)
            rows.append([folder, name, images, f"{100 * (1 - counts[position] / images):.2f}"])
    return pd.DataFrame(rows, columns=pd.Index(["folder", "class", "images", "error"])).to_csv(index=False, lineterminator="\n")
