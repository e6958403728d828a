"""The sections of RESULTS.md that belong to no question: sessions, shortened runs, runs without a result."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.estimates import MINIMUM
from analysis.markdown import (
    NO_RESULT,
    format_command,
    format_commit,
    format_estimates,
    format_failures,
    format_folders,
    format_label,
    format_runs,
    format_table,
)
from analysis.records import comparable_runs, finished_runs, select_runs, to_configs
from reproduce.config import Config


def describe_sessions(runs: pd.DataFrame) -> str:
    """Hardware, versions and hours. A run counts for the machine of its last session, with the commits of all of them."""
    rows, full = [], comparable_runs(runs).index
    elsewhere: dict[tuple[str, str], list[str]] = defaultdict(list)
    for place, run in runs.iterrows():
        sessions = run["sessions"] or [{}]
        options = name_machine(sessions[-1])
        others = {name_machine(session) for session in sessions} - {options}
        for other in others:
            elsewhere[other].append(run["folder"])
        rows.append(
            {
                "device": options[0],
                "software": options[1],
                "precision": run["precision"],
                "commits": [format_commit(each.get("git")) for each in sessions],
                "seconds": run["seconds"],
                "speed": None if others else run["images_per_second"],
                "finished": run["status"] == "finished",
                "full": place in full,
            }
        )
    if not rows:
        return "No run is recorded yet."
    table = []
    for options, group in pd.DataFrame(rows).groupby(["device", "software", "precision"]):
        speed = group["speed"].dropna().astype(float)
        runs_of = f"{group['finished'].sum()} of {len(group)}"
        numbers = [f"{group['seconds'].sum() / 3600:.2f}", f"{speed.median():,.0f}" if len(speed) else "-"]
        table.append([*options, runs_of, *numbers, ", ".join(sorted(set(group["commits"].explode())))])
    header = ["device", "software", "precision", "runs finished", "hours", "images/s", "commits"]
    total = pd.DataFrame(rows)
    total["length"] = np.where(total["full"], "full length", "shortened")
    total["kind"] = total["length"] + np.where(total["finished"], "", " without a result")
    hours = total.groupby("kind")["seconds"].sum() / 3600
    moved = [f"on {device}, {software}: {', '.join(folders)}" for (device, software), folders in sorted(elsewhere.items())]
    parts = [f"{value:.2f} h {kind}" for kind, value in hours.items()]
    return format_table(header, table) + (
        f"\n\nIn all {hours.sum():.2f} hours of training: {', '.join(parts)}. Preliminary runs are among them as far as they "
        "left a record; tests, benchmarks and what was given up without a record are not counted.\n\n"
        "Hours are summed over the runs, evaluations included; runs that share a device share its hours, too. "
        "A run stands under the device and the software with which it ended. Trained in part elsewhere: "
        f"{'; '.join(moved) or 'none'}. "
        "Images/s is the median over the other runs, in training alone. A commit with * had uncommitted changes."
    )


def name_machine(session: dict[str, Any]) -> tuple[str, str]:
    """Device and versions of a session, in words."""
    versions = session.get("versions", {})
    software = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return session.get("device_name", "-"), software or "-"


def name_older_records(runs: pd.DataFrame, date: str) -> str:
    """Which runs were begun before a date, as far as their records tell it."""
    began = [min((session.get("began", "") for session in sessions), default="") for sessions in runs["sessions"]]
    older = [folder for folder, start in zip(runs["folder"], began, strict=True) if start[:10] < date]
    if not older:
        return "No record is older."
    return f"Records that were begun before that day, or do not say when: {len(older)} of {len(runs)} ({', '.join(older)})."


def describe_seed_correlation(runs: pd.DataFrame) -> str:
    """Over pairs of nets with at least MINIMUM seeds in common, in one precision."""
    done = finished_runs(comparable_runs(runs[runs["dataset"] == "cifar10"])).astype({"test_error": float})
    found = []
    for _, same in done.groupby("precision"):
        matrix = same.pivot_table(index="seed", columns="cell", values="test_error").corr(min_periods=MINIMUM).to_numpy()
        found += [value for value in matrix[np.triu_indices_from(matrix, k=1)] if np.isfinite(value)]
    if not found:
        return f"not measured yet (no two nets share {MINIMUM} seeds)"
    return f"{np.mean(found):+.2f} on average over {len(found)} pairs"


def leave_out(runs: pd.DataFrame, text: str) -> pd.DataFrame:
    """The runs whose folders the text does not name."""
    named = [folder.split("/")[0] in text for folder in runs["folder"]]
    return runs[~np.array(named, dtype=bool)]


def list_others(runs: pd.DataFrame, questions: str, link: str) -> str:
    """The runs that are comparable with the paper, and that the text of the questions does not name."""
    others = leave_out(comparable_runs(runs), questions)
    if others.empty:
        return "None."
    default = Config()  # write_runs has a row for each precision itself
    nets = dict.fromkeys(replace(config, seed=default.seed, precision=default.precision) for config in to_configs(others))
    return format_runs(others, nets, link)


def list_shortened(runs: pd.DataFrame, questions: str, link: str) -> str:
    """The runs that are not comparable with the paper, a row per config and precision. Of those on pictures, whose configs are
    many, only what the text of the questions does not name."""
    others = runs.drop(comparable_runs(runs).index)
    on_pictures = others["dataset"] == "pictures"
    others = pd.concat([others[~on_pictures], leave_out(others[on_pictures], questions)])
    rows = []
    default = Config()
    shown = {
        "iterations": default.iterations,
        "dataset": default.dataset,
        "split": default.split,
    }  # in their own columns
    every = dict.fromkeys(replace(config, seed=default.seed) for config in to_configs(others))
    for config in sorted(every, key=lambda config: (config.family, config.residual, config.depth, config.iterations)):
        cell = select_runs(others, config)
        cell = cell[cell["precision"] == config.precision]
        errors = [format_estimates(cell, column, config.precision) for column in ("test_error", "held_out_error")]
        made_by = [format_failures(cell), f"`{format_command(config)}`", format_folders(cell, link)]
        kind = [format_label(replace(config, **shown)), config.iterations, config.dataset, config.split, config.precision]
        rows.append([*kind, *errors, *made_by])
    header = ["net", "iterations", "data", "split", "precision", "test error", "held-out error", NO_RESULT]
    return format_table([*header, "command", "records"], rows) if rows else "None."


def list_without_result(runs: pd.DataFrame) -> str:
    """Diverged and unfinished runs of any kind, and where they stopped."""
    rows = runs[runs["status"] != "finished"]
    lines = []
    for (_, row), config in zip(rows.iterrows(), to_configs(rows), strict=True):
        reached = f"{row['iteration']:.0f} of {row['iterations']}"
        lines.append([row["folder"], row["status"], reached, f"`{format_command(config)} --seed {config.seed}`"])
    return format_table(["run", "state", "iteration", "command"], lines) if lines else "None."
