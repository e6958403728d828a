"""Train several networks concurrently on one device, in one process.

    printf '%s\\n' '--depth 20 --seed 0' '--depth 20 --seed 1' | python reproduce/train_many.py

Reads lines of flags for reproduce/run.py from standard input and starts a run as soon as its line arrives. The runs are
interleaved, each on its own stream, because one network of this size does not fill an accelerator. The results are those of
runs trained alone (on accelerators, bitwise only with --deterministic), and a failing run does not affect the others.
Prints the exit status and final message of each run:

    line 1, exit status 0: residual20: final test error ...

The exit statuses are those of run.py, plus 1 for an unexpected error, 4 if another process is training the run, 5 if the
device does not support the precision and 6 if memory is insufficient. SIGTERM, SIGINT and SIGHUP stop all runs with a
checkpoint. The exit status of train_many.py is 0 if all runs finished, else the last nonzero one.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version

import contextlib
import io
import json
import queue
import shlex
import threading
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from reproduce import cli
from reproduce.errors import STOPPED, USER_ERROR, UserError, explain_out_of_memory
from reproduce.interleave import PAUSE, Task
from reproduce.progress import print_line
from reproduce.run import STOPPING, Outcome, parse, training_task
from reproduce.signals import collect_stop_signals

IDLE = 0.1
"""Seconds between checks for new lines while no run is in training."""


@dataclass(frozen=True)
class Options:
    """Options of train_many.py."""

    outcomes: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Append one JSON object per ended run: line (its number), status (its exit status), message (its final message)."""


def train_line(line: str, stop_signals: Sequence[int], concurrent: int) -> Task[Outcome]:
    """Train the run that a line of flags describes; errors become outcomes."""
    try:
        flags = shlex.split(line)
    except ValueError as error:  # unbalanced quotes
        return Outcome(USER_ERROR, f"cannot split the line into flags ({error})")
    try:
        with explain_out_of_memory():
            return (yield from training_task(*parse(flags), stop_signals, concurrent))
    except SystemExit:  # --help and --version
        return Outcome(USER_ERROR, "the line describes no run")
    except UserError as error:
        return Outcome(error.status, str(error))
    except OSError as error:
        return Outcome(USER_ERROR, cli.format_os_error(error))
    except Exception as error:  # a bug must not stop the other runs
        traceback.print_exc()
        return Outcome(1, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def train_lines(lines: Iterable[str], outcomes: Path | None = None) -> int:
    """Train the runs that `lines` describe, starting each as soon as its line arrives, and return the exit status.

    Raises:
        OSError: `outcomes` cannot be written.
    """
    # Not a SimpleQueue: in Python 3.11 its get() can ignore a short timeout after a signal and wait forever.
    arrivals: queue.Queue[tuple[int, str] | None] = queue.Queue()
    training: dict[int, Task[Outcome]] = {}
    status, at_end = 0, False
    if outcomes is not None:
        outcomes.touch()  # fail before a run starts

    def read_lines():
        try:
            for numbered in enumerate(lines, start=1):
                arrivals.put(numbered)
        finally:
            arrivals.put(None)

    def report(number: int, outcome: Outcome):
        nonlocal status
        status = outcome.status or status
        print_line(f"line {number}, exit status {outcome.status}: {outcome.message}")
        if outcomes is not None:
            with outcomes.open("a") as file:
                file.write(json.dumps({"line": number, "status": outcome.status, "message": outcome.message}) + "\n")

    threading.Thread(target=read_lines, daemon=True).start()
    with collect_stop_signals(STOPPING, abort=True) as stop_signals:
        while training or (not at_end and not (stop_signals and arrivals.empty())):
            with contextlib.suppress(queue.Empty):
                arrival = arrivals.get(timeout=PAUSE if training else IDLE)
                if arrival is None:
                    at_end = True
                elif stop_signals:
                    report(arrival[0], Outcome(STOPPED, "not started"))
                elif arrival[1].strip():
                    training[arrival[0]] = train_line(arrival[1], stop_signals, concurrent=len(training))
            for number, run in list(training.items()):
                try:
                    next(run)
                except StopIteration as end:
                    del training[number]
                    report(number, end.value)
    return status


def main(arguments: Sequence[str]) -> int:
    """Train the runs that standard input describes; raises OSError if the outcomes cannot be written."""
    options = cli.parse_args(Options, arguments, "train_many.py", __doc__)
    assert isinstance(sys.stdin, io.TextIOWrapper)
    sys.stdin.reconfigure(errors="surrogateescape")  # paths may contain any bytes
    return train_lines(sys.stdin, options.outcomes)


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
