"""The sections of RESULTS.md that belong to no question: sessions, shortened runs, runs without a result."""

from dataclasses import replace

import pandas as pd

from analysis.markdown import (
    command,
    describe_commit,
    label,
    write_estimates,
    write_failures,
    write_folders,
    write_table,
)
from analysis.records import comparable, configs, select
from reproduce.config import Config


def describe_sessions(runs: pd.DataFrame) -> str:
    """Hardware, versions and hours. A run counts for the machine of its last session."""
    rows = []
    for _, run in runs.iterrows():
        session = run["sessions"][-1] if run["sessions"] else {}
        versions = session.get("versions", {})
        rows.append(
            {
                "device": session.get("device_name", "-"),
                "software": ", ".join(f"{name} {version}" for name, version in versions.items() if version) or "-",
                "precision": run["precision"],
                "commit": describe_commit(session.get("git")),
                "seconds": run["seconds"],
                "speed": run["images_per_second"],
                "finished": run["status"] == "finished",
            }
        )
    if not rows:
        return "No run is recorded yet."
    table = []
    for machine, group in pd.DataFrame(rows).groupby(["device", "software", "precision"]):
        speed = group["speed"].dropna().astype(float)
        runs_of = f"{group['finished'].sum()} of {len(group)}"
        numbers = [f"{group['seconds'].sum() / 3600:.2f}", f"{speed.median():,.0f}" if len(speed) else "-"]
        table.append([*machine, runs_of, *numbers, ", ".join(sorted(set(group["commit"])))])
    header = ["device", "software", "precision", "runs finished", "hours", "images/s", "commits"]
    return write_table(header, table) + (
        "\n\nHours are summed over the runs, evaluations included; runs that share a device share its hours, too. "
        "Images/s is the median over the runs, in training alone. A commit with * had uncommitted changes."
    )


def list_shortened(runs: pd.DataFrame, link: str) -> str:
    """All runs that are not comparable with the paper, a row per config and precision."""
    others = runs.drop(comparable(runs).index)
    rows = []
    default = Config()
    shown = {
        "iterations": default.iterations,
        "dataset": default.dataset,
        "split": default.split,
    }  # in their own columns
    every = dict.fromkeys(replace(config, seed=default.seed) for config in configs(others))
    for config in sorted(every, key=lambda config: (config.residual, config.depth, config.iterations)):
        cell = select(others, config)
        cell = cell[cell["precision"] == config.precision]
        errors = [write_estimates(cell, column, config.precision) for column in ("test_error", "held_out_error")]
        made_by = [write_failures(cell), f"`{command(config)}`", write_folders(cell, link)]
        kind = [label(replace(config, **shown)), config.iterations, config.dataset, config.split, config.precision]
        rows.append([*kind, *errors, *made_by])
    header = ["net", "iterations", "data", "split", "precision", "test error", "held-out error", "without result"]
    return write_table([*header, "command", "records"], rows) if rows else "None."


def list_without_result(runs: pd.DataFrame) -> str:
    """Diverged and unfinished runs of any kind, and where they stopped."""
    rows = runs[runs["status"] != "finished"]
    lines = []
    for (_, row), config in zip(rows.iterrows(), configs(rows), strict=True):
        reached = f"{row['iteration']:.0f} of {row['iterations']}"
        lines.append([row["folder"], row["status"], reached, f"`{command(config)} --seed {config.seed}`"])
    return write_table(["run", "state", "iteration", "command"], lines) if lines else "None."
