"""A worker process, which runs reproduce/train_many.py: start it, send it runs, collect their outcomes. Imports no torch."""

import json
import os
import shlex
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import IO

import reproduce
from reproduce.config import Config, RunOptions, format_flags
from reproduce.errors import STOPPED

PROGRAM = Path(reproduce.__file__).with_name("train_many.py")
TAIL = 12
"""Lines of output shown after an unexpected failure."""

# Stops a worker, with a checkpoint, when the process that started it dies; otherwise it would keep its device and run folder.
# It is a separate program because running Python between fork and exec is unsafe with threads.
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""


@dataclass
class Worker:
    """A process of train_many.py.

    input: its stdin. output: receives stdout and stderr. outcomes: receives the outcomes as JSON lines. training: the runs in
    training, by the number of their input line.
    """

    process: Popen
    input: IO[bytes]
    output: IO[bytes]
    outcomes: IO[bytes]
    training: dict[int, Config] = field(default_factory=dict)
    lines: int = 0

    def start_run(self, config: Config, options: RunOptions):
        self.lines += 1
        self.training[self.lines] = config
        with suppress(BrokenPipeError):  # it has just died, which the next poll finds
            self.input.write(f"{shlex.join(format_flags(config, options))}\n".encode(errors="surrogateescape"))
            self.input.flush()

    def collect_outcomes(self) -> list[tuple[Config, int, str]]:
        """Return run, exit status and message of the runs that have ended since the last call.

        Once the process has ended, this includes the runs for which it reported no outcome.
        """
        exit_status = self.process.poll()  # poll first: if the process has ended, the file is complete
        ended = []
        while (line := self.outcomes.readline()).endswith(b"\n"):
            outcome = json.loads(line)
            status, message = outcome["status"], outcome["message"]
            ended.append((self.training.pop(outcome["line"]), status, self.format_failure(message) if status == 1 else message))
            if status in (1, STOPPED):
                self.close_input()  # its device may be in error, or it is stopping
        self.outcomes.seek(-len(line), os.SEEK_CUR)  # an incomplete line
        if exit_status is not None:
            status = STOPPED if exit_status in (0, STOPPED) else exit_status  # the worker stopped before it read the run's line
            message = self.format_failure(f"its process ended with exit status {exit_status}")
            ended += [(config, status, message) for config in self.training.values()]
            self.training.clear()
        return ended

    def close_input(self):
        """Send no more runs; the process ends when the runs in training have ended."""
        with suppress(BrokenPipeError):
            self.input.close()

    def close(self):
        """Close the files of a process that has ended."""
        self.close_input()
        self.output.close()
        self.outcomes.close()

    def format_failure(self, message: str) -> str:
        """Return a message followed by the last lines of the output."""
        # pread, because seeking would move the position at which the process writes.
        output = os.pread(self.output.fileno(), os.fstat(self.output.fileno()).st_size, 0).decode(errors="replace")
        return "\n    ".join([message, *output.splitlines()[-TAIL:]])


def start_worker(environment: dict[str, str]) -> Worker:
    """Start a worker.

    Raises:
        OSError: it cannot be started.
    """
    outcomes = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by Worker.close
    output = tempfile.TemporaryFile()  # noqa: SIM115 - unlike a pipe, a file never blocks the process
    command = [sys.executable, "-u", str(PROGRAM), "--outcomes", outcomes.name]
    if sys.platform == "linux":
        command = [sys.executable, "-c", DIE_WITH_PARENT, str(os.getpid()), *command]
    process = Popen(command, env=environment, stdin=PIPE, stdout=output, stderr=STDOUT)
    assert process.stdin is not None
    return Worker(process, process.stdin, output, outcomes)
