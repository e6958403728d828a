"""Scripts that validate and measure a device, and the schema of throughput records. Imports no torch."""

import re
from typing import Any

from msgspec import Struct

from reproduce.schema import Amount, Count


class Timing(Struct):
    """One row of a throughput record: the timing of one implementation (`candidate`).

    median, min, max: ms per iteration, over the rounds. floor_fraction: roofline bound / median. times_plain: speed-up over the
    baseline, if that was measured.
    """

    depth: Count
    precision: str
    candidate: str
    seconds_to_start: Amount
    median: Amount
    min: Amount
    max: Amount
    images_per_second: Amount
    floor_fraction: Amount
    times_plain: Amount | None = None


class Throughput(Struct):
    """A record of throughput.py.

    ceilings: bytes/s of a copy, and FLOP/s of a matrix product in each precision. quick: measured with fewer iterations, by an
    earlier version.
    """

    git: dict[str, Any] | None
    device_name: str
    threads: Count
    versions: dict[str, str | int | None]
    batch_size: Count
    rounds: Count
    workers: Count
    ceilings: dict[str, Amount]
    rows: list[Timing]
    quick: bool = False


def format_file_name(device_name: str) -> str:
    """Return a device's name as a file name, such as nvidia-h200."""
    return re.sub("[^a-z0-9]+", "-", device_name.lower()).strip("-")
