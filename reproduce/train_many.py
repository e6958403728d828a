"""Train several networks at the same time on one device, in one process.

    printf '%s\\n' '--depth 20 --seed 0' '--depth 20 --seed 1' | python reproduce/train_many.py

reads lines of flags, each as for reproduce/run.py, and begins a run as soon as its line is there; it ends when there are
no more lines and no runs. The runs take turns at giving the device work, each on a stream of its own, since one net as small
as these is not expected to fill an accelerator. What a run computes does not depend on its neighbours (on accelerators to the
bit in deterministic mode, as two runs of the same config do), and one that fails leaves them alone. Says of every line's end

    line 1, exit status 0: residual20: final test error ...

with the exit status of run.py, but 4 where another process is training the run, 5 where the device lacks the precision and 6
where it lacks the memory (run.py's 2 as well), and 1 for a failure of any other kind. SIGTERM, SIGINT and SIGHUP stop all
runs with a checkpoint, and what has not begun does not begin. Empty lines are passed over.
Exit status: 0 all finished, else the last of theirs that is not 0.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import contextlib
import io
import queue
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Sequence

from reproduce import (
    cli,
    device,  # noqa: F401 - the device before torch (see there)
)
from reproduce.errors import OutOfMemory, RunLocked, UnsupportedPrecision, UserError
from reproduce.interleave import PAUSE, Task
from reproduce.progress import print_line
from reproduce.run import STOPPING, Outcome, prepare, training_task
from reproduce.signals import collect_stop_signals

IDLE = 0.1
"""Seconds from one look for new lines to the next while nothing is in training."""


def split_flags(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UserError(f"the line is not flags as a shell would take them ({error})") from None


def train_line(line: str, requests: Sequence[int], beside: int) -> Task[Outcome]:
    """The run that a line of flags asks for, and how it has ended, whatever happens to it."""
    try:
        prepared = prepare(split_flags(line))
        if isinstance(prepared, Outcome):
            return prepared
        yield  # the others, and the lines that have come meanwhile, have waited for the data
        return (yield from training_task(prepared, requests, beside))
    except (RunLocked, UnsupportedPrecision, OutOfMemory) as error:
        return Outcome(error.status, cli.format_error(error))
    except (UserError, OSError) as error:
        return Outcome(2, cli.format_error(error))
    except SystemExit:
        return Outcome(2, "--help or --version has been printed and nothing trained")
    except Exception as error:  # a defect: the other runs go on
        traceback.print_exc()
        return Outcome(1, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def train_lines(lines: Iterable[str]) -> int:
    """Trains what the lines ask for, as they come, and returns the exit status."""
    arrivals: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()

    def read_lines():
        try:
            for numbered in enumerate(lines, start=1):
                arrivals.put(numbered)
        finally:
            arrivals.put(None)

    threading.Thread(target=read_lines, daemon=True).start()
    training: dict[int, Task[Outcome]] = {}
    more, last = True, 0

    def tell_ending(number: int, ended: Outcome):
        nonlocal last
        last = ended.status or last
        try:
            print_line(f"line {number}, exit status {ended.status}: {ended.sentence}")
        except OSError:  # as of a full disk: who has started the runs will not hear of them
            requests.append(signal.SIGPIPE)

    with collect_stop_signals(STOPPING, insist=True) as requests:
        while training or (more and not (requests and arrivals.empty())):
            with contextlib.suppress(queue.Empty):
                arrival = arrivals.get(timeout=PAUSE if training else IDLE)
                if arrival is None:
                    more = False
                elif requests:
                    tell_ending(arrival[0], Outcome(75, "not begun"))
                elif arrival[1].strip():
                    training[arrival[0]] = train_line(arrival[1], requests, beside=len(training))
            for number, run in list(training.items()):
                try:
                    next(run)
                except StopIteration as end:
                    del training[number]
                    tell_ending(number, end.value)
    return last


if __name__ == "__main__":
    cli.shorten_warnings()
    if len(sys.argv) > 1:
        print(__doc__)
        sys.exit(0 if sys.argv[1:] in (["--help"], ["-h"]) else 2)
    if not isinstance(sys.stdin, io.TextIOWrapper):
        print("error: there is no standard input to read lines from", file=sys.stderr)
        sys.exit(2)
    sys.stdin.reconfigure(errors="surrogateescape")  # a path may be any bytes
    sys.exit(train_lines(sys.stdin))
