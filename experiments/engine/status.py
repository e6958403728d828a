"""The state of runs, read from their folders, and the output of --status and --dry-run. Imports no torch."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Literal

from reproduce.config import Config, RunOptions, format_flags
from reproduce.errors import UserError
from reproduce.record import is_run_folder, list_run_folders, read_record, read_result
from reproduce.schema import Diverged, Finished, Result


@dataclass(frozen=True)
class RunState:
    """The state of a run at its last evaluation.

    error: test error in %. seconds: training time. pace: recent seconds per iteration. damage: what is wrong with the record.
    """

    status: Literal["missing", "unfinished", "finished", "diverged", "damaged"]
    iteration: int = 0
    error: float | None = None
    seconds: float = 0.0
    pace: float | None = None
    damage: str = ""


def read_state(config: Config, out: Path) -> RunState:
    """Return the state of a run, which may be training meanwhile."""
    folder = out / config.folder
    if not is_run_folder(folder):
        return RunState("missing")
    try:
        record = read_record(folder)
    except UserError as error:
        return RunState("damaged", damage=str(error))
    if isinstance(record.result, Diverged):
        return RunState("diverged", record.result.iteration)
    status = "unfinished" if record.result is None else "finished"
    if not record.rows:
        return RunState(status)
    last = record.rows[-1]
    iteration, seconds = (record.rows[-2].iteration, record.rows[-2].seconds) if len(record.rows) > 1 else (0, 0.0)
    pace = (last.seconds - seconds) / (last.iteration - iteration)
    return RunState(status, last.iteration, last.test_error, last.seconds, pace)


def has_ended(config: Config, out: Path) -> bool:
    """Whether a run has finished or diverged. A damaged record counts as not ended, so training reports the damage."""
    return read_state(config, out).status in ("finished", "diverged")


def find_result(config: Config, out: Path) -> Result | None:
    """Return the result of a run, None if it has not ended or its record is damaged."""
    try:
        return read_result(out / config.folder)
    except UserError:
        return None


def format_state(config: Config, out: Path) -> str:
    """Return one line with a run's folder and state."""
    state = read_state(config, out)
    description = {
        "missing": "not started",
        "damaged": state.damage,
        "unfinished": f"unfinished, last evaluation at iteration {state.iteration} of {config.iterations}",
        "diverged": f"diverged at iteration {state.iteration}",
        "finished": f"test error {state.error or 0:.2f}%, training time {format_time(state.seconds)}",
    }
    return f"{config.folder}: {description[state.status]}"


def format_run(config: Config) -> str:
    """Return one line with a run's folder and the flags of its configuration."""
    return shlex.join([str(config.folder), *format_flags(config)])


def format_time(seconds: float) -> str:
    """Return hours, minutes and seconds, such as 1:20:00."""
    return str(timedelta(seconds=round(seconds)))


def print_status(runs: Sequence[Config], out: Path):
    """Print the number of runs in each state, then each configuration with the state of its seeds.

    Raises:
        UserError: a record is damaged; everything is printed before.
    """
    states = {config: read_state(config, out) for config in runs}
    counts = Counter(state.status for state in states.values())
    names = ["finished", "diverged", "unfinished", "missing", *(["damaged"] if counts["damaged"] else [])]
    print(f"{', '.join(f'{counts[name]} {name}' for name in names)} in {out}")
    seeds: dict[Config, list[str]] = defaultdict(list)
    for config, state in states.items():
        details = {"finished": f" ({state.error or 0:.2f}%)", "missing": "", "damaged": ""}
        detail = details.get(state.status, f" ({state.iteration}/{config.iterations})")
        seeds[replace(config, seed=0)].append(f"{config.seed} {state.status}{detail}")
    for configuration, described in seeds.items():
        print(f"{format_run(configuration).replace('/seed0', '', 1)}\n    seed {', '.join(described)}")
    refuse_damaged(states.values())


def refuse_damaged(states: Iterable[RunState]):
    """Raise a UserError if a record is damaged."""
    for state in states:
        if state.status == "damaged":
            raise UserError(state.damage)


def print_dry_run(runs: Sequence[Config], options: RunOptions, slots: int):
    """Print the estimated time for the pending runs with `slots` concurrent runs, then their commands.

    Raises:
        UserError: a record is damaged.
    """
    states = {config: read_state(config, options.out) for config in runs}
    refuse_damaged(states.values())
    pending = [config for config, state in states.items() if state.status in ("unfinished", "missing")]
    print(f"{len(pending)} runs to train, {len(runs) - len(pending)} have ended")
    throughputs = read_throughputs(options.out)
    for device in sorted({device for device, _, _ in throughputs}):
        seconds, unknown = 0.0, []
        for config in pending:
            images = (config.iterations - states[config].iteration) * config.batch_size
            if (throughput := throughputs.get((device, config.net, config.precision))) is None:
                unknown.append(f"{config.net} in {config.precision}")
            else:
                seconds += images / throughput
        if pending:
            how = "one run at a time" if slots == 1 else f"with {slots} concurrent runs"
            known = [f"{format_time(seconds / slots)} {how}"] if seconds else []
            missing = [f"unknown for {len(unknown)} runs ({', '.join(dict.fromkeys(unknown))})"] if unknown else []
            print(f"estimated time on {device}: {'; '.join(known + missing)}")
    if pending and not throughputs:
        print(f"estimated time: unknown, because {options.out} has no finished run")
    for config in pending:
        print(f"{shlex.join(['python', 'reproduce/run.py', *format_flags(config, options)])}  # {config.folder}")


def read_throughputs(out: Path) -> dict[tuple[str, str, str], float]:
    """Return the median images/s of the finished runs by device name, network and precision.

    Excludes runs that changed device, fine-tuning with frozen layers, and image folders.

    Raises:
        UserError: a record is damaged.
    """
    found = defaultdict(list)
    for folder in list_run_folders(out):
        record = read_record(folder)
        config, devices = record.config, {session.device_name for session in record.sessions}
        comparable = config.trainable == "all" and config.dataset != "pictures" and len(devices) == 1
        if isinstance(record.result, Finished) and comparable:
            found[*devices, config.net, config.precision].append(record.result.images_per_second)
    return {key: median(throughputs) for key, throughputs in found.items()}
