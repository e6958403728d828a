"""What a sweep tells without training: which runs are in which state, the commands, and how long they would take."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from experiments.engine.progress import has_ended, read_progress, write_run, write_time
from reproduce.config import Config, Machine, write_flags
from reproduce.record import list_folders, read_config, read_result, read_sessions


def print_status(runs: Sequence[Config], out: Path):
    """How many runs are in which state, and which they are, cell by cell."""
    progress = {config: read_progress(config, out) for config in runs}
    count = Counter(each.state for each in progress.values())
    states = ("finished", "diverged", "unfinished", "missing")
    print(f"{', '.join(f'{count[state]} {state}' for state in states)}; in {out}")
    cells: dict[Config, list[str]] = defaultdict(list)
    for config, each in progress.items():
        state: str = each.state
        if state == "finished":
            state += f" ({each.error:.2f}%)"
        elif state != "missing":
            state += f" ({each.iteration}/{config.iterations})"
        cells[replace(config, seed=0)].append(f"{config.seed} {state}")
    for cell, members in cells.items():
        print(f"{write_run(cell).replace('/seed0', '', 1)}\n    seed {', '.join(members)}")


def print_plan(runs: Sequence[Config], machine: Machine, lanes: int):
    """The commands of the runs that have not ended, and how long they would take on so many lanes."""
    left = [config for config in runs if not has_ended(config, machine.out)]
    for config in left:
        print(f"{shlex.join(['python', 'reproduce/run.py', *write_flags(config, machine)])}  # {config.folder}")
    print(f"{len(left)} runs to train, {len(runs) - len(left)} have ended")
    speeds = read_speeds(machine.out)
    for device in sorted({device for device, _, _ in speeds}):
        seconds, unknown = 0.0, []
        for config in left:
            speed = speeds.get((device, config.net, config.precision))
            if speed is None:
                unknown.append(f"{config.net} in {config.precision}")
            else:
                iterations = config.iterations - read_progress(config, machine.out).iteration
                seconds += iterations * config.batch_size / speed
        text = f"time on {device}, by its records: {write_time(seconds)} one run after another"
        text += f", {write_time(seconds / lanes)} with {lanes} side by side" if lanes > 1 else ""
        text += f"; unknown: {len(unknown)} runs ({', '.join(dict.fromkeys(unknown))})" if unknown else ""
        print(text)
    if left and not speeds:
        print("time: unknown, since no record tells the speed of a device")


def read_speeds(out: Path) -> dict[tuple[str, str, str], float]:
    """Images per second by device name, net and precision: the median over finished runs.

    Where runs had been trained side by side, it is the speed of each.
    """
    found = defaultdict(list)
    for folder in list_folders(out):
        config, speed = read_config(folder), (read_result(folder) or {}).get("images_per_second")  # a diverged run has none
        if config is not None and speed is not None:
            found[read_sessions(folder)[-1]["device_name"], config.net, config.precision].append(speed)
    return {key: median(speeds) for key, speeds in found.items()}
