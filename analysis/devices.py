"""docs/devices.md: hardware and hours, throughput, and device validation."""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from analysis.markdown import fill_template, format_commit, format_net_name, format_table, join_words, name_run
from analysis.records import comparable_runs, to_configs
from experiments.devices import Throughput, Timing, load_measurements
from experiments.devices.acceptance import (
    ALPHA,
    FAULTS,
    ITERATIONS,
    MEASURES,
    REFERENCE,
    Measures,
    compare,
    list_alarms,
    load_runs,
)

GROUP_SIZES = (1, 3)
"""Numbers of runs per group in the device validation."""


def format_devices(runs: pd.DataFrame, records: Path) -> str:
    """Return docs/devices.md; `records` is the folder of the run folders.

    Raises:
        UserError: a record is damaged.
    """
    benchmarks = map(format_benchmark, load_measurements(records / "throughput", Throughput))
    return fill_template(
        "devices",
        hours=format_hours(runs),
        benchmarks="\n\n".join(benchmarks) or "Not measured yet.",
        iterations=ITERATIONS,
        half=ITERATIONS // 2,
        significance=f"{ALPHA:.0%}",
        validation=format_validation(records / "acceptance"),
    )


# Hardware and hours ---------------------------------------------------------------------------------------------------


def format_hours(runs: pd.DataFrame) -> str:
    """Return the table of hours by device."""
    if runs.empty:
        return "No run is recorded yet."
    hours = runs["seconds"] / 3600
    torch = [join_in_order(str(each["versions"].get("torch")) for each in sessions) for sessions in runs["sessions"]]
    keys = {"device": runs["sessions"].map(name_devices), "torch": pd.Series(torch, runs.index), "precision": runs["precision"]}
    parts = hours.groupby(list(keys.values()))
    full = comparable_runs(runs[runs["dataset"] == "cifar10"])
    rows = [[*key, len(group), f"{group.sum():.1f}"] for key, group in parts]
    return f"""{format_table([*keys, "runs", "hours"], rows)}

{hours.sum():.1f} hours of training in total, {hours[full.index].sum():.1f} of them in full-length runs on CIFAR-10.
Hours are summed over runs and include evaluations; concurrent runs count separately. Tests, benchmarks and runs without a
record are not counted. A run that moved is listed with its devices in the order of use; its hours are not split."""


def name_devices(sessions: Sequence[dict[str, Any]]) -> str:
    """Return the devices that trained a run in the order of use: "NVIDIA H200; then AMD EPYC"."""
    return join_in_order(session["device_name"] for session in sessions)


def name_software(sessions: Sequence[dict[str, Any]]) -> str:
    return join_in_order(format_versions(session["versions"]) for session in sessions)


def join_in_order(names: Iterable[str]) -> str:
    return "; then ".join(dict.fromkeys(names)) or "unknown"


def format_versions(versions: dict[str, str | int | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def describe_moves(runs: pd.DataFrame) -> str:
    """Return which runs moved between devices, and whether the others were trained on CPUs."""
    nets = pd.Series([*map(name_run, to_configs(runs))], index=runs.index, dtype=str)
    devices = runs["sessions"].map(name_devices)
    moved = nets[devices.str.contains("; then ", regex=False)].groupby(devices)
    moves = [f"{join_words(group.tolist())} on {name.replace('; then ', ', then ')}" for name, group in moved]
    others = runs[~devices.str.contains("; then ", regex=False)]["sessions"].explode().dropna()
    rest = " All other runs were trained on CPUs." if {session["device"] for session in others} == {"cpu"} else ""
    return f"Runs that moved between devices: {'; '.join(moves) or 'none'}.{rest}"


# Throughput -----------------------------------------------------------------------------------------------------------


def format_benchmark(record: Throughput) -> str:
    """Return a device's peak rates and the throughput of each implementation."""
    rates = ", ".join(f"{rate / 1e12:.3g} TFLOP/s in {name}" for name, rate in record.ceilings.items() if name != "copy")
    return f"""### {record.device_name}{" (quick benchmark)" if record.quick else ""}

{record.threads} threads, {format_versions(record.versions)}, commit {format_commit(record.git)}. Peak rates: copy
{record.ceilings["copy"] / 1e9:,.1f} GB/s, matrix product {rates}. Batches of {record.batch_size} images;
{record.rounds} rounds; the DataLoader of the baseline has {record.workers} workers.

{format_timings(record.rows)}"""


def format_timings(timings: Sequence[Timing]) -> str:
    header = ["depth", "precision", "implementation", "median ms (range)", "images/s", "speed-up", "% of roofline"]
    rows = []
    for row in timings:
        median, low, high = (f"{time:.3g}" if time < 1000 else f"{time:,.0f}" for time in (row.median, row.min, row.max))
        speed_up = "-" if row.times_plain is None else f"{row.times_plain:.1f}"
        speed = [f"{row.images_per_second:,.0f}", speed_up, f"{100 * row.floor_fraction:.1f}", f"{row.seconds_to_start:.0f}"]
        rows.append([row.depth, row.precision, name_implementation(row.candidate), f"{median} ({low} to {high})", *speed])
    return format_table([*header, "start-up, s"], rows)


def name_implementation(name: str) -> str:
    """Return the name of an implementation for readers: "4 interleaved runs" for "4 together"."""
    name = re.sub(r"^plain", "baseline", name).replace(" compiled", ", compiled")
    return name.replace("together", "interleaved runs").replace("side by side", "processes")


# Device validation ----------------------------------------------------------------------------------------------------


def format_validation(folder: Path) -> str:
    """Return the table of the reference runs and of those with an injected fault, with the rate of alarms.

    Raises:
        UserError: a record is damaged.
    """
    reference = load_runs(folder / REFERENCE)
    if not reference:
        return "No reference is recorded yet."
    rows = []
    for path in (folder / REFERENCE, *sorted((folder / FAULTS).glob("*"))):
        found = load_runs(path)
        for net in sorted({config.net for config in found}, reverse=True):
            runs = [measures for config, measures in found.items() if config.net == net]
            healthy = [measures for config, measures in reference.items() if config.net == net]
            alarms = [count_alarms(net, healthy, runs, size) for size in GROUP_SIZES]
            fault = "none (reference)" if path.name == REFERENCE else path.name.replace("-", " ")
            rows.append([fault, format_net_name(net), len(runs), *map(format_values, zip(*runs, strict=True)), *alarms])
    measures = (f"{measure}, %" if measure.endswith("error") else measure for measure in MEASURES)
    header = ["fault", "network", "runs", *measures, *(f"alarms, {size} run{'s' if size > 1 else ''}" for size in GROUP_SIZES)]
    return format_table(header, rows)


def format_values(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ± {stdev(values):.3f}" if math.isfinite(sum(values)) else "diverged"


def count_alarms(net: str, reference: Sequence[Measures], runs: Sequence[Measures], size: int) -> str:
    """Return how many of all groups of runs differ from the reference runs that are not in the group."""
    groups = list(combinations(runs, size))
    alarms = [list_alarms(compare(net, [run for run in reference if run not in group], group)) for group in groups]
    return f"{sum(map(bool, alarms))} of {len(groups):,}"
