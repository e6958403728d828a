"""Configurations, numbers, tables and figures as Markdown."""

import re
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from string import Template, digits
from typing import Any

import numpy as np
import pandas as pd

from analysis.estimates import Estimate, estimate
from analysis.records import finished_runs, keep_recorded, select_runs, stuck_runs
from reproduce.config import PAPER_ITERATIONS, Config, format_flags

TEMPLATES = Path(__file__).with_name("templates")
WARMUPS = {"none": "no warm-up", "error": "warm-up by training error", "iterations": "warm-up of 400 iterations"}


def nondefault_fields(config: Config) -> dict[str, Any]:
    """Return the fields that differ from the defaults of the depth and optimizer, without the seed."""
    default = asdict(Config(depth=config.depth, optimizer=config.optimizer)) | {"optimizer": Config().optimizer}
    default |= {"family": config.family, "iterations": config.dataset_info.published_iterations or PAPER_ITERATIONS}
    return {name: value for name, value in asdict(config).items() if name != "seed" and value != default[name]}


def format_command(config: Config) -> str:
    """Return the command that trains a configuration, without --seed."""
    flags = format_flags(replace(config, seed=0))
    depth = [] if "--depth" in flags or config.family != "6n+2" else ["--depth", str(config.depth)]
    return shlex.join(["python", "reproduce/run.py", *depth, *flags])


def format_label(config: Config) -> str:
    """Return a configuration's name without its precision: residual32, or residual32 (adam, no augment)."""
    words = []
    for name, value in nondefault_fields(config).items():
        plain_name = name.replace("_", " ")
        if name in ("residual", "precision"):
            continue
        if isinstance(value, bool):
            words.append(plain_name if value else f"no {plain_name}")
        elif name == "warmup":
            words.append(WARMUPS[value])
        elif name in ("optimizer", "block", "dataset"):
            words.append(value)
        elif name in ("pictures", "initial"):
            words.append(f"{plain_name} {value[:8]}")  # a SHA-256
        else:
            words.append(f"{plain_name} {value:g}" if isinstance(value, float | int) else f"{plain_name} {value}")
    return f"{config.net} ({', '.join(words)})" if words else config.net


def format_net(config: Config) -> str:
    """Return "ResNet-20" or "plain-20"; the configuration's label for other families."""
    return format_net_name(config.net) if config.family == "6n+2" else format_label(config)


def format_net_name(net: str) -> str:
    """Return "ResNet-20" for "residual20", and "plain-20" for "plain20"."""
    return re.sub(r"(\d+)$", r"-\1", net.replace("residual", "ResNet"))


def format_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def fill_template(name: str, **values: object) -> str:
    """Return analysis/templates/NAME.md with its $placeholders replaced and its paragraphs wrapped."""
    template = Template((TEMPLATES / f"{name}.md").read_text(encoding="utf-8"))
    return wrap_paragraphs(template.substitute(values))


def wrap_paragraphs(text: str) -> str:
    """Wrap paragraphs and list items at 128 columns; leave headings, tables and figures as they are."""
    blocks = []
    for block in re.split(r"\n\n+", text.strip()):
        if not block.startswith(("|", "#", "!")):
            items = re.split(r"\n(?=- |\d+\. )", block)
            block = "\n".join(fill(item) for item in items)
        blocks.append(block)
    return "\n\n".join(blocks) + "\n"


def fill(item: str) -> str:
    """Wrap a paragraph or list item, but not within `code`."""
    bullet = re.match(r"- |\d+\. |", item)
    indent = " " * len(bullet[0]) if bullet else ""
    item = re.sub(r"\n\s*", " ", item)
    item = re.sub(r"`[^`]*`", lambda code: re.sub(r"\s+", "\0", code[0]), item)
    lines = textwrap.wrap(item, 128, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def join_words(words: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def format_mean(mean: Estimate) -> str:
    """Return "8.51 ± 0.18 (n=2)", or "7.40" for a single run."""
    return str(mean).removesuffix(" (n=1)")


def format_estimates(runs: pd.DataFrame, column: str = "test_error") -> str:
    """Return the mean ± std (n) of the finished runs, and the numbers of diverged and stuck runs; empty without runs."""
    values = finished_runs(runs)[column].dropna().astype(float)
    counts = {"diverged": int((runs["status"] == "diverged").sum()), "stuck": len(stuck_runs(runs))}
    words = [format_mean(estimate(values))] if len(values) else []
    return ", ".join([*words, *(f"{count} {name}" for name, count in counts.items() if count)])


def format_not_run(runs: pd.DataFrame, configs: Iterable[Config], command: str) -> str:
    """Return the configurations whose runs diverged, those without a run to its end, and the command that trains them."""
    statuses = {config: set(select_runs(runs, config)["status"]) - {"unfinished"} for config in configs}
    diverged = [config for config, found in statuses.items() if found == {"diverged"}]
    missing = [config for config, found in statuses.items() if not found]
    text = f"Not run yet: {group_labels(missing)} (`{command}`)." if missing else f"`{command}` trains these networks."
    return f"Diverged: {group_labels(diverged)}. {text}" if diverged else text


def group_labels(configs: Iterable[Config]) -> str:
    """Return the names of several configurations, those that differ only in depth as one: "ResNet-20/56 (adam)"."""
    depths: dict[tuple[str, str], list[str]] = {}
    for config in configs:
        name, _, words = format_label(config).partition(" ")
        net = format_net(config).rstrip(digits) if config.family == "6n+2" else name
        depths.setdefault((net, words), []).append(str(config.depth) if config.family == "6n+2" else "")
    return ", ".join(f"{net}{'/'.join(found)} {words}".strip() for (net, words), found in depths.items())


def name_run(config: Config) -> str:
    """Return "ResNet-56 (seed 0)" or "ResNet-56 (adam, seed 0)"."""
    name = group_labels([config])
    return f"{name.removesuffix(')')}{', ' if name.endswith(')') else ' ('}seed {config.seed})"


def format_number(row: pd.Series) -> str:
    """Return a published number: "6.61 ± 0.16 (n=5)", "9 to 9.5 (plot)", "> 60"."""
    text = f"{row['value']:.2f}" if row["value"] % 1 else f"{row['value']:g}"
    if row["upto"] == 100:
        text = f"> {text}"
    elif not np.isnan(row["upto"]):
        text = f"{text} to {row['upto']:g}" if row["value"] else f"< {row['upto']:g}"
    text += "" if np.isnan(row["spread"]) else f" ± {row['spread']:.2f}"
    text += f" (n={row['n']:.0f})" if row["n"] > 1 else ""
    return text + (" (plot)" if row["read_off_plot"] == "yes" else "")


def format_commit(git: dict[str, Any] | None) -> str:
    """Return the abbreviated commit, with a star after it for uncommitted changes."""
    return (git or {}).get("commit", "-")[:8] + ("*" if (git or {}).get("dirty") else "")


def format_figure(runs: pd.DataFrame, configs: Iterable[Config], name: str, caption: str) -> str:
    """Return the figure, or an empty string if none of `configs` has a finished run."""
    return f"![{caption}](analysis/figures/{name}.svg)" if keep_recorded(runs, configs) else ""
