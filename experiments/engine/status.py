"""The state of runs, read from their folders, and the output of --status and --dry-run. Imports no torch."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Literal, get_args

from reproduce.config import Config, Precision, RunOptions, format_flags
from reproduce.record import is_run_folder, list_run_folders, read_record, read_result
from reproduce.schema import Diverged, Finished

Status = Literal["finished", "diverged", "unfinished", "missing"]


@dataclass(frozen=True)
class RunState:
    """The state of a run at its last evaluation.

    error: test error in %. seconds: training time.
    """

    status: Status
    iteration: int = 0
    error: float | None = None
    seconds: float = 0.0


def read_state(config: Config, out: Path) -> RunState:
    """Return the state of a run, which may still be training.

    Raises:
        UserError: its record is damaged.
    """
    folder = out / config.folder
    if not is_run_folder(folder):
        return RunState("missing")
    record = read_record(folder)
    if isinstance(record.result, Diverged):
        return RunState("diverged", record.result.iteration)
    status = "unfinished" if record.result is None else "finished"
    if not record.rows:
        return RunState(status)
    last = record.rows[-1]
    return RunState(status, last.iteration, last.test_error, last.seconds)


def has_ended(config: Config, out: Path) -> bool:
    """Whether a run has finished or diverged."""
    return read_result(out / config.folder) is not None


def format_state(config: Config, out: Path) -> str:
    """Return one line with a run's folder and state."""
    state = read_state(config, out)
    description = {
        "missing": "not started",
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


def print_summary(runs: Sequence[Config], states: Sequence[RunState], out: Path):
    """Print the number of runs in each state, and of those recorded in another precision."""
    counts = Counter(state.status for state in states)
    where = out if out.is_dir() else f"{out}, which is not a folder"
    print(f"{', '.join(f'{counts[status]} {status}' for status in get_args(Status))} in {where}")
    for precision in get_args(Precision):
        others = {replace(config, precision=precision) for config in runs}.difference(runs)
        if count := sum(has_ended(config, out) for config in others):
            print(f"{count} recorded in {precision}: add --precision {precision}")


def print_status(runs: Sequence[Config], out: Path):
    """Print a summary, then each configuration with the state of its seeds; raises like `read_state`."""
    states = [read_state(config, out) for config in runs]
    print_summary(runs, states, out)
    seeds: dict[Config, list[str]] = defaultdict(list)
    for config, state in zip(runs, states, strict=True):
        finished = f" ({state.error or 0:.2f}%)" if state.status == "finished" else f" ({state.iteration}/{config.iterations})"
        detail = "" if state.status == "missing" else finished
        seeds[replace(config, seed=0)].append(f"{config.seed} {state.status}{detail}")
    for configuration, described in seeds.items():
        print(f"{format_run(configuration).replace('/seed0', '', 1)}\n    seed {', '.join(described)}")


def print_dry_run(runs: Sequence[Config], options: RunOptions):
    """Print a summary, the estimated time of all pending runs, and their commands; raises like `read_state`."""
    states = [read_state(config, options.out) for config in runs]
    print_summary(runs, states, options.out)
    pending = {config: state for config, state in zip(runs, states, strict=True) if state.status in ("unfinished", "missing")}
    if pending:
        print_estimates(pending, options.out)
    for config in pending:
        print(f"{shlex.join(['python', 'reproduce/run.py', *format_flags(config, options)])}  # {config.folder}")


def print_estimates(pending: dict[Config, RunState], out: Path):
    """Print the total time of the pending runs on each device that has trained some of their networks."""
    throughputs = read_throughputs(out)
    networks = {(config.net, config.precision) for config in pending}
    devices = sorted({device for device, *network in throughputs if tuple(network) in networks})
    for device in devices:
        seconds, unknown = 0.0, Counter()
        for config, state in pending.items():
            if throughput := throughputs.get((device, config.net, config.precision)):
                seconds += (config.iterations - state.iteration) * config.batch_size / throughput
            else:
                unknown[f"{config.net} in {config.precision}"] += 1
        missing = f", without {unknown.total()} runs of networks not measured there ({', '.join(unknown)})" if unknown else ""
        print(f"estimated time on {device}, one run after another at the recorded throughput: {format_time(seconds)}{missing}")
    if not devices:
        print(f"estimated time: unknown, since no run of these networks in {out} has finished")


def read_throughputs(out: Path) -> dict[tuple[str, str, str], float]:
    """Return the median images/s of the finished runs by device name, network and precision; raises like `read_state`.

    Excludes runs that changed device, fine-tuning with frozen layers, and image folders.
    """
    found = defaultdict(list)
    for folder in list_run_folders(out):
        record = read_record(folder)
        config, devices = record.config, {session.device_name for session in record.sessions}
        comparable = config.trainable == "all" and config.dataset != "pictures" and len(devices) == 1
        if isinstance(record.result, Finished) and comparable:
            found[*devices, config.net, config.precision].append(record.result.images_per_second)
    return {key: median(throughputs) for key, throughputs in found.items()}
