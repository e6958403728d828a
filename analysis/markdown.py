"""Cells in words and commands; numbers, tables and figures in Markdown. Errors are in percent."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.estimates import estimate
from analysis.records import PRECISIONS, finished_runs, select_runs, stuck_runs
from reproduce.config import PAPER_ITERATIONS, Config, format_flags

NO_RESULT = "no result, or stuck"
"""Head of a column of `format_failures`."""


def nondefault_fields(config: Config) -> dict[str, Any]:
    """The fields in which a config differs from the default of its depth and optimizer, the seed left out."""
    default = asdict(Config(depth=config.depth, optimizer=config.optimizer)) | {"optimizer": Config().optimizer}
    default |= {"family": config.family, "iterations": config.dataset_info.iterations or PAPER_ITERATIONS}
    return {name: value for name, value in asdict(config).items() if name != "seed" and value != default[name]}


def format_command(config: Config) -> str:
    """What trains it, without the seed: the depth, and the flags that differ from the defaults."""
    flags = format_flags(replace(config, seed=0))
    depth = [] if "--depth" in flags or config.family != "6n+2" else ["--depth", str(config.depth)]
    return shlex.join(["python", "reproduce/run.py", *depth, *flags])


def format_label(config: Config) -> str:
    """A cell in words, its precision left out: residual32, or residual32 (adam, no augment)."""
    words = []
    for name, value in nondefault_fields(config).items():
        plain_name = name.replace("_", " ")
        if name in ("residual", "precision"):
            continue
        if isinstance(value, bool):
            words.append(plain_name if value else f"no {plain_name}")
        elif name in ("optimizer", "block", "dataset"):
            words.append(value)
        else:
            words.append(f"{plain_name} {value:g}" if isinstance(value, float | int) else f"{plain_name} {value}")
    return f"{config.net} ({', '.join(words)})" if words else config.net


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def format_estimates(runs: pd.DataFrame, column: str = "test_error", precision: str | None = None) -> str:
    """Mean ± std (n) of a cell's finished runs, with several precisions one each, named; where none has finished, what became
    of the others."""
    done = finished_runs(runs)
    found = [p for p in PRECISIONS if (done["precision"] == p).any() and precision in (None, p)]
    estimates = [str(estimate(done.loc[done["precision"] == p, column].dropna().astype(float))) for p in found]
    if not found:
        return format_failures(runs if precision is None else runs[runs["precision"] == precision])
    if precision is not None:
        return estimates[0]
    return "; ".join(f"{text}, {p}" for text, p in zip(estimates, found, strict=True))


def format_runs(runs: pd.DataFrame, configs: Iterable[Config], link: str) -> str:
    """The cells of a section, one row per config and precision, with command and records."""
    header = ["net", "precision", "test error", "95% interval", "median", "best", "best evaluation", "training error"]
    rows = []
    for config in configs:
        cell = select_runs(runs, config)
        for precision in [p for p in PRECISIONS if (cell["precision"] == p).any()] or [config.precision]:
            same = cell[cell["precision"] == precision]
            done = finished_runs(same)
            errors, best = estimate(done["test_error"].astype(float)), done["best_test_error"].astype(float)
            flatters = f"{best.mean():.2f} ({(best - done['test_error'].astype(float)).mean():+.2f})"
            train = format_estimates(done, "train_error", precision)
            numbers = [
                errors,
                errors.interval,
                f"{errors.median:.2f}",
                f"{errors.best:.2f}",
                flatters,
                train,
            ]
            made_by = f"`{format_command(replace(config, precision=precision))}`"
            rows.append(
                [format_label(config), precision if len(same) else "-"]
                + (numbers if errors.n else ["-"] * 6)
                + [format_failures(same), made_by, format_folders(same, link)]
            )
    return format_table([*header, NO_RESULT, "command", "records"], rows)


def format_failures(runs: pd.DataFrame) -> str:
    counts = {status: int((runs["status"] == status).sum()) for status in ("diverged", "unfinished")}
    counts["stuck"] = len(stuck_runs(runs))
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or ("0" if len(runs) else "-")


def format_folders(runs: pd.DataFrame, link: str) -> str:
    """The folder of a cell with its seeds: [residual20-1a2b3c4d](...)/seed0, 1, 2."""
    if runs.empty:
        return "-"
    folders = runs["folder"].str.split("/").str[0].unique()
    seeds = ", ".join(str(seed) for seed in sorted(runs["seed"]))
    return ", ".join(f"[{folder}]({link}/{folder})" for folder in folders) + f" seed {seeds}"


def format_number(row: pd.Series) -> str:
    """A published number, e.g. "6.61 ± 0.16 (n=5)", "9 to 9.5 (plot)", "> 60"."""
    text = f"{row['value']:.2f}" if row["value"] % 1 else f"{row['value']:g}"
    if row["upto"] == np.inf:
        text = f"> {text}"
    elif not np.isnan(row["upto"]):
        text = f"{text} to {row['upto']:g}" if row["value"] else f"< {row['upto']:g}"
    text += "" if np.isnan(row["spread"]) else f" ± {row['spread']:.2f}"
    text += f" (n={row['n']:.0f})" if row["n"] > 1 else ""
    return text + (" (plot)" if row["read_off_plot"] == "yes" else "")


def format_commit(git: dict[str, Any] | None) -> str:
    """The commit's first digits, with a star where there were uncommitted changes."""
    return (git or {}).get("commit", "-")[:8] + ("*" if (git or {}).get("dirty") else "")


def figure_path(name: str, iterations: int | None = None) -> str:
    """The picture of full-length runs, or of runs of another length, without its suffix."""
    return f"analysis/figures/{name}" + (f"_{iterations}" if iterations not in (None, PAPER_ITERATIONS) else "")


def format_figure(runs: pd.DataFrame, nets: Sequence[Config], name: str, iterations: int | None = PAPER_ITERATIONS) -> str:
    """The picture where there are runs to draw it from, else the command that will draw it.

    iterations: the length of the runs that it shows; None where the nets say it themselves.
    """
    drawn_by, picture = f"python analysis/plot_{name}.py", figure_path(name, iterations)
    if iterations not in (None, PAPER_ITERATIONS):
        drawn_by += f" --iterations {iterations} --output {picture}"
    shown = nets if iterations is None else [replace(net, iterations=iterations) for net in nets]
    if any(len(finished_runs(select_runs(runs, net))) for net in shown):
        return f"![{name.replace('_', ' ')}]({picture}.svg)\n\nDrawn by `{drawn_by}`."
    return f"`{drawn_by}` draws the figure once there are runs."
