"""How many runs are trained at the same time on a device, where nobody has said so. Free of torch."""

import math
import os
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypedDict

from reproduce.errors import UserError
from reproduce.schema import Amount, Count, decode_json

THROUGHPUT = Path("experiments/records/throughput")
"""Folder of what experiments/devices/throughput.py has measured."""


class Candidate(TypedDict):
    """Of such a record, as far as it is read here: a way to train a net, and the milliseconds of an iteration of one run."""

    depth: Count
    precision: str
    candidate: str
    median: Amount


class Throughput(TypedDict):
    device_name: str
    rows: list[Candidate]


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_cpu_concurrency(runs: int) -> tuple[int, str]:
    """A run for each usable core, or for as many of them as OMP_NUM_THREADS gives a run; and why."""
    set_threads = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(set_threads) if set_threads.isdecimal() and int(set_threads) else 1
    lanes = max(1, count_cores() // threads)
    if runs < lanes:
        return max(1, runs), f"as many as there are to train; usable cores: {count_cores()}"
    return lanes, f"{threads} {'threads' if threads > 1 else 'thread'} each; usable cores: {count_cores()}"


def choose_accelerator_concurrency(name: str, precisions: Collection[str], folder: Path) -> tuple[int, str]:
    """The number that was the fastest when experiments/devices/throughput.py measured a device of that name, else 1; and why. Of a full
    record and one of --quick, the full one counts.

    precisions: of the runs; only what is measured in these counts, if anything is.

    Raises:
        UserError: a record cannot be read.
    """
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem.endswith("-quick")):
        record = read_throughput(path)
        if record["device_name"] == name:
            best = find_fastest(record["rows"], precisions)
            return (best, f"the fastest in {path}") if best else (1, f"{path} compares no other number")
    return 1, f"experiments/devices/throughput.py has not measured {name}"


def read_throughput(path: Path, schema: Any = Throughput) -> dict[str, Any]:
    """A record of experiments/devices/throughput.py.

    schema: what of it has to be there.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return decode_json(path.read_bytes(), schema)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it or measure again") from None


def find_fastest(rows: list[dict[str, Any]], precisions: Collection[str]) -> int | None:
    """The number of runs side by side whose times are the shortest over all nets, in the geometric mean; None if only one
    number is measured."""
    times: dict[Any, dict[int, float]] = defaultdict(dict)
    for row in [row for row in rows if row["precision"] in precisions] or rows:
        together = re.fullmatch(r"(\d+) together", row["candidate"])
        if together or row["candidate"] == "captured":
            times[row["depth"], row["precision"]][int(together[1]) if together else 1] = row["median"]
    numbers = set.intersection(*(set(of_net) for of_net in times.values())) if times else set()
    if len(numbers) < 2:
        return None
    return min(numbers, key=lambda number: math.prod(of_net[number] for of_net in times.values()))
