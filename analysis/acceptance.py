"""The section of RESULTS.md on acceptance: the reference of experiments/devices/acceptance.py, and the faults that it finds."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from analysis.estimates import estimate
from analysis.markdown import format_table
from experiments.devices.acceptance import (
    ALPHA,
    FAULTS,
    ITERATIONS,
    LEAST,
    MEASURES,
    NETS,
    REFERENCE,
    Measures,
    compare,
    is_alarm,
    load_runs,
    select_seeds,
)

HEALTHY, FAULTY = (1, 3), (3, 5)
"""Numbers of runs that are judged together: to count false alarms, and faults that are found."""


def describe_acceptance(records: Path) -> str:
    """The reference, its false alarms, and the faults that it finds.

    records: of experiments/devices/acceptance.py, the folder REFERENCE and a folder for each fault in the folder FAULTS.

    Raises:
        UserError: one of them is damaged.
    """
    runs = load_runs(records / REFERENCE)
    references = {net.net: reference for net in NETS if len(reference := select_seeds(runs, net)) >= LEAST}
    if not references:
        return "No reference is recorded yet."
    rows = [describe_reference(net, reference) for net, reference in references.items()]
    parts = [
        f"The reference, {ITERATIONS} iterations in fp32 on a CPU: means and standard deviations, and how many groups of its "
        "own runs the rest of it takes for faulty. All groups of a size are tried, so that a run is in many of them.",
        format_table(["net", "runs", *MEASURES, *(f"false alarms, {name_group(size)}" for size in HEALTHY)], rows),
    ]
    faults = [rows for folder in sorted((records / FAULTS).glob("*")) for rows in describe_fault(folder, references)]
    if faults:
        header = ["fault", "net", "runs", *MEASURES, *(f"found by {name_group(size)}" for size in FAULTY)]
        parts += [
            f"Faults put in on purpose, on a CPU: their means, and how many groups of such runs are found at {ALPHA:.0%}. The "
            "command is the reference's, under the seeds from 100 on, with the flag that the name tells; for BN in evaluation "
            "mode, which has none, `Network.train` was made to choose that mode.",
            format_table(header, faults),
        ]
    return "\n\n".join(parts)


def name_group(size: int) -> str:
    return f"{size} runs" if size > 1 else "1 run"


def describe_reference(net: str, reference: Sequence[Measures]) -> list[str]:
    def judge_group(chosen: tuple[int, ...]) -> bool:
        rest = [measures for number, measures in enumerate(reference) if number not in chosen]
        return is_alarm(compare(net, rest, [reference[number] for number in chosen]))

    spread = [f"{estimate(values).mean:.3f} ± {estimate(values).std:.3f}" for values in zip(*reference, strict=True)]
    return [net, str(len(reference)), *spread, *count_groups(len(reference), HEALTHY, judge_group)]


def describe_fault(folder: Path, references: Mapping[str, Sequence[Measures]]) -> list[list[str]]:
    """A row for each net that was trained with a fault."""
    runs, rows = load_runs(folder), []
    for net, reference in references.items():
        found = [measures for config, measures in runs.items() if config.net == net]

        def judge_group(
            chosen: tuple[int, ...], net: str = net, reference: Sequence[Measures] = reference, found: list[Measures] = found
        ) -> bool:
            return is_alarm(compare(net, reference, [found[number] for number in chosen]))

        if found:
            means = [f"{sum(values) / len(values):.3f}" for values in zip(*found, strict=True)]
            rows.append(
                [folder.name.replace("-", " "), net, str(len(found)), *means, *count_groups(len(found), FAULTY, judge_group)]
            )
    return rows


def count_groups(runs: int, sizes: Sequence[int], judge_group: Callable[[tuple[int, ...]], bool]) -> list[str]:
    """Of all groups of each size, how many are alarms."""
    counts = []
    for size in sizes:
        groups = [judge_group(chosen) for chosen in combinations(range(runs), size)]
        counts.append(f"{sum(groups)} of {len(groups):,}" if groups else "-")
    return counts
