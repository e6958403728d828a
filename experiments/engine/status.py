"""What a sweep tells without training: which runs are in which state, the commands, and how long they would take."""

import shlex
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from experiments.engine.progress import Progress, format_run, format_time, read_progress
from reproduce.config import Config, RunOptions, format_flags
from reproduce.errors import UserError
from reproduce.record import list_run_folders, read_record
from reproduce.schema import Finished

BAR = 20
"""Characters of a run's bar."""


def print_status(runs: Sequence[Config], out: Path):
    """How many runs are in which state, and which they are: cell by cell or, on a terminal, in a table.

    Raises:
        UserError: a record is damaged; all is told before.
    """
    progress = {config: read_progress(config, out) for config in runs}
    count = Counter(each.state for each in progress.values())
    states = ("finished", "diverged", "unfinished", "missing", *(("damaged",) if count["damaged"] else ()))
    print(f"{', '.join(f'{count[state]} {state}' for state in states)}; in {out}")
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        print(*(line[:width].rstrip() for line in write_status_table(progress)), sep="\n")
    else:
        print_cells(progress)
    refuse_damaged(progress.values())


def print_cells(progress: Mapping[Config, Progress]):
    """A line per cell, and one with the state of each seed of it."""
    cells: dict[Config, list[str]] = defaultdict(list)
    for config, each in progress.items():
        state: str = each.state
        if state == "finished":
            state += f" ({each.error:.2f}%)"
        elif state not in ("missing", "damaged"):
            state += f" ({each.iteration}/{config.iterations})"
        cells[replace(config, seed=0)].append(f"{config.seed} {state}")
    for cell, members in cells.items():
        print(f"{format_run(cell).replace('/seed0', '', 1)}\n    seed {', '.join(members)}")


def write_status_table(progress: Mapping[Config, Progress]) -> list[str]:
    """A line per run: a bar, its test error at the last evaluation, what is left of its training, and its flags.

    What is left is by the run's own speed, or by that of the others of its cell.
    """
    paces: dict[Config, list[float]] = defaultdict(list)
    for config, each in progress.items():
        if each.pace is not None:
            paces[replace(config, seed=0)].append(each.pace)
    full, empty = "█░" if (sys.stdout.encoding or "").lower().startswith("utf") else "#."
    width = max(len(str(config.folder)) for config in progress)
    lines = [f"{'run':<{width}}  {'':{BAR}}        test error  {'left':<18}flags"]
    for config, each in progress.items():
        part = each.iteration / config.iterations
        error = "-" if each.error is None else f"{each.error:.2f}%"
        left: str = each.state
        if each.state in ("missing", "unfinished"):
            pace = paces[replace(config, seed=0)] if each.pace is None else [each.pace]
            left = format_time(median(pace) * (config.iterations - each.iteration)) if pace else each.state
        bar = (full * int(BAR * part)).ljust(BAR, empty)
        flags = shlex.join(format_flags(replace(config, seed=0)))
        lines.append(f"{config.folder!s:<{width}}  {bar}  {int(100 * part):3d}%  {error:>10}  {left:<16}  {flags}")
    return lines


def refuse_damaged(progress: Iterable[Progress]):
    """Raises UserError where a record is damaged: what is wrong with the first, and how many others are."""
    damages = [each.damage for each in progress if each.state == "damaged"]
    if damages:
        raise UserError(damages[0] + (f" (and {len(damages) - 1} other runs have damaged records)" if damages[1:] else ""))


def print_dry_run(runs: Sequence[Config], options: RunOptions, lanes: int):
    """The commands of the runs that have not ended, and how long they would take on so many lanes.

    Raises:
        UserError: a record is damaged.
    """
    progress = {config: read_progress(config, options.out) for config in runs}
    refuse_damaged(progress.values())
    speeds = read_speeds(options.out)
    left = [config for config, each in progress.items() if each.state not in ("finished", "diverged")]
    for config in left:
        print(f"{shlex.join(['python', 'reproduce/run.py', *format_flags(config, options)])}  # {config.folder}")
    print(f"{len(left)} runs to train, {len(runs) - len(left)} have ended")
    for device in sorted({device for device, _, _ in speeds}):
        seconds, unknown = 0.0, []
        for config in left:
            speed = speeds.get((device, config.net, config.precision))
            if speed is None:
                unknown.append(f"{config.net} in {config.precision}")
            else:
                iterations = config.iterations - progress[config].iteration
                seconds += iterations * config.batch_size / speed
        parts = []
        if len(unknown) < len(left) or not left:
            side_by_side = f", {format_time(seconds / lanes)} with {lanes} side by side" if lanes > 1 else ""
            parts.append(f"{format_time(seconds)} one run after another{side_by_side}")
        if unknown:
            parts.append(f"unknown: {len(unknown)} runs ({', '.join(dict.fromkeys(unknown))})")
        print(f"time on {device}, by its records: {'; '.join(parts)}")
    if left and not speeds:
        print("time: unknown, since no record tells the speed of a device")


def read_speeds(out: Path) -> dict[tuple[str, str, str], float]:
    """Images per second by device name, net and precision: the median over finished runs.

    Without those that several devices have trained, that train a part of the layers, or on pictures. Where runs had been
    trained side by side, it is the speed of each.

    Raises:
        UserError: a record is damaged.
    """
    found = defaultdict(list)
    for folder in list_run_folders(out):
        record = read_record(folder)
        config, result = record.config, record.result
        names = {session.device_name for session in record.sessions}
        is_usual = config.trainable == "all" and config.dataset != "pictures"
        if isinstance(result, Finished) and len(names) == 1 and is_usual:
            found[*names, config.net, config.precision].append(result.images_per_second)
    return {key: median(speeds) for key, speeds in found.items()}
