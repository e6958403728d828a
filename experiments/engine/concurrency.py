"""The number of concurrent runs per device. Imports no torch at module level."""

import math
import os
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypedDict

from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.progress import print_line
from reproduce.schema import Amount, Count, decode_json

THROUGHPUT = Path("experiments/records/throughput")
"""Folder of the records of experiments/devices/throughput.py."""


class CandidateTime(TypedDict):
    """The fields of a candidate that this module reads; median: milliseconds per iteration of one run."""

    depth: Count
    precision: str
    candidate: str
    median: Amount


class CandidateTimes(TypedDict):
    """The fields of a throughput record that this module reads."""

    device_name: str
    rows: list[CandidateTime]


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_concurrency(devices: Sequence[str], runs: Sequence[Config]) -> dict[str, int]:
    """Return the number of concurrent runs for each device, and print each with the reason.

    Raises:
        UserError: a throughput record is damaged.
    """
    slots = {}
    for device in devices:
        kind, _, index = device.partition(":")
        if kind == "cpu":
            slots[device], reason = choose_cpu_concurrency(len(runs))
        else:
            from reproduce.device import DEVICES

            name = DEVICES[kind].backend.get_device_name(int(index))
            slots[device], reason = choose_accelerator_concurrency(name, {config.precision for config in runs})
        print_line(f"concurrent runs on {device}: {slots[device]} ({reason}); set another number with --per-device")
    return slots


def choose_cpu_concurrency(runs: int) -> tuple[int, str]:
    """Return one run per core, or per OMP_NUM_THREADS cores, and the reason."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = max(1, int(given)) if given.isdecimal() else 1
    slots = max(1, min(runs, count_cores() // threads))
    return slots, f"{runs} to train, {count_cores()} cores, OMP_NUM_THREADS={threads}"


def choose_accelerator_concurrency(name: str, precisions: Collection[str]) -> tuple[int, str]:
    """Return the number of runs with the highest measured throughput on the device, or else 1, and the reason.

    name: the device, as in the throughput records. precisions: the runs' precisions.

    Raises:
        UserError: a throughput record is damaged.
    """
    for path in sorted(
        THROUGHPUT.glob("*.json"), key=lambda path: path.stem.endswith("-quick")
    ):  # full records before quick ones
        record = read_throughput(path)
        if record["device_name"] == name:
            fastest = find_best_concurrency(record["rows"], precisions)
            return (fastest, f"the fastest in {path}") if fastest else (1, f"{path} has no measurement of concurrent runs")
    return 1, f"experiments/devices/throughput.py has not been run on {name}"


def read_throughput(path: Path, schema: Any = CandidateTimes) -> dict[str, Any]:
    """Return the fields of a throughput record that `schema` describes.

    Raises:
        UserError: it is damaged.
    """
    try:
        return decode_json(path.read_bytes(), schema)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it or measure again") from None


def find_best_concurrency(rows: list[dict[str, Any]], precisions: Collection[str]) -> int | None:
    """Return the number of concurrent runs with the lowest time per iteration, as a geometric mean over the networks.

    Uses the rows in `precisions` or, if there are none, all rows. Returns None if fewer than two numbers were measured.
    """
    times: dict[Any, dict[int, float]] = defaultdict(dict)
    for row in [row for row in rows if row["precision"] in precisions] or rows:
        match = re.fullmatch(r"(\d+) together", row["candidate"])
        if match or row["candidate"] == "captured":
            times[row["depth"], row["precision"]][int(match[1]) if match else 1] = row["median"]
    counts = set.intersection(*map(set, times.values())) if times else set()
    if len(counts) < 2:
        return None
    return min(counts, key=lambda count: math.prod(by_count[count] for by_count in times.values()))
