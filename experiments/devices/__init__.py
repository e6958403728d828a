"""Scripts that validate and measure a device, and the schemas of their records. Imports no torch."""

import re
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from reproduce.errors import UserError
from reproduce.schema import Amount, Count, decode_json

T = TypeVar("T")


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


class GradientNoise(Struct):
    """One network in a record of gradient_noise.py, whose docstring defines the numbers."""

    net: str
    weights: str
    relative_error: float
    bias: float
    bias_by_chance: float
    noise: float
    test_error_fp32: float | None = None
    test_error_bf16: float | None = None


class GradientNoiseRecord(Struct):
    """A record of gradient_noise.py."""

    device_name: str
    batches: int
    rows: list[GradientNoise]


def load_measurements(folder: Path, schema: type[T]) -> list[T]:
    """Read the records *.json of a script, sorted by name.

    Raises:
        UserError: a record is damaged.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(decode_json(path.read_bytes(), schema))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): restore it or measure again") from None
    return records


def format_file_name(device_name: str) -> str:
    """Return a device's name as a file name, such as nvidia-h200."""
    return re.sub("[^a-z0-9]+", "-", device_name.lower()).strip("-")
