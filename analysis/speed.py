"""The section of RESULTS.md on speed: what experiments/devices/throughput.py has measured, device by device."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from analysis.markdown import format_commit, format_table
from analysis.records import PRECISIONS
from experiments.engine.concurrency import read_throughput
from reproduce.schema import Amount, Code, Count


class Ceilings(TypedDict):
    """Of a record of experiments/devices/throughput.py: what the device could do at best, in bytes and in operations a second."""

    copy: Amount
    fp32: NotRequired[Amount]
    tf32: NotRequired[Amount]
    bf16: NotRequired[Amount]


class Net(TypedDict):
    """Of such a record: what a net's step asks of a device."""

    depth: Count
    precision: str
    operations: Amount
    bytes: Amount
    floor: Amount
    preparation: Amount


class Candidate(TypedDict):
    """Of such a record: how long the iterations of one way to train took, in milliseconds."""

    depth: Count
    precision: str
    candidate: str
    iterations: NotRequired[Count]
    seconds_to_start: Amount
    median: Amount
    min: Amount
    max: Amount
    images_per_second: Amount
    floor_fraction: Amount
    times_plain: NotRequired[Amount]


class Throughput(TypedDict):
    """Such a record, as far as it is read."""

    git: Code | None
    device_name: str
    threads: Count
    quick: NotRequired[bool]
    versions: dict[str, str | int | None]
    batch_size: Count
    iterations: Count
    rounds: Count
    workers: Count
    ceilings: Ceilings
    nets: list[Net]
    rows: list[Candidate]


def load_throughput(records: Path) -> list[dict[str, Any]]:
    """The benchmark's records, from the folder `throughput` beside the run folders.

    Raises:
        UserError: one cannot be read.
    """
    return [read_throughput(path, Throughput) for path in sorted(records.glob("throughput/*.json"))]


def list_throughput(records: Sequence[dict[str, Any]]) -> str:
    return "\n\n".join(describe(record) for record in records) or "Nothing is measured yet."


def describe(record: dict[str, Any]) -> str:
    """One device: its ceilings, the floor of each net, and the candidates."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    ceilings = record["ceilings"]
    counts = " or ".join(str(n) for n in sorted({row.get("iterations", record["iterations"]) for row in record["rows"]}))
    rates = ", ".join(f"{ceilings[p] / 1e12:.3g} TFLOP/s in {p}" for p in PRECISIONS if p in ceilings)
    return "\n\n".join(
        [
            f"### {record['device_name']}{', in short' if record.get('quick') else ''}",
            f"{record['threads']} threads, {versions}, commit {format_commit(record['git'])}. A large copy moves "
            f"{ceilings['copy'] / 1e9:,.1f} GB/s, read and written; a large matrix product makes {rates}.",
            list_nets(record["nets"]),
            f"Medians, and in brackets minimum and maximum, of {record['rounds']} rounds of {counts} iterations of "
            f"{record['batch_size']} images; the plain loop's DataLoader has {record['workers']} worker processes.",
            list_candidates(record["rows"]),
        ]
    )


def list_nets(nets: Sequence[dict[str, Any]]) -> str:
    header = ["depth", "precision", "GFLOP a step", "MB a step, at least", "floor, ms", "preparing a batch, ms"]
    rows = []
    for net in nets:
        work = [f"{net['operations'] / 1e9:.1f}", f"{net['bytes'] / 1e6:.0f}"]
        rows.append([net["depth"], net["precision"], *work, f"{net['floor']:.3f}", f"{net['preparation']:.3f}"])
    return format_table(header, rows)


def list_candidates(rows: Sequence[dict[str, Any]]) -> str:
    header = ["depth", "precision", "candidate", "ms per iteration", "images/s", "times plain", "of the floor's speed"]
    lines = []
    for row in rows:
        times = f"{row['median']:.3f} ({row['min']:.3f} to {row['max']:.3f})"
        beside = f"{row['times_plain']:.2f}" if "times_plain" in row else "-"
        speed = [f"{row['images_per_second']:,}", beside, f"{100 * row['floor_fraction']:.1f}%"]
        lines.append([row["depth"], row["precision"], row["candidate"], times, *speed, f"{row['seconds_to_start']:.0f}"])
    return format_table([*header, "seconds to start"], lines)
