"""A process of reproduce/train_many.py: starting it, giving it runs, and hearing of their endings. Free of torch."""

import os
import re
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
from reproduce.errors import OutOfMemory, RunLocked, UnsupportedPrecision

RUNNER = Path(reproduce.__file__).with_name("train_many.py")
ENDING = re.compile(r"^line (\d+), exit status (\d+): (.*)\n", re.MULTILINE)
"""What it says of a run that has ended."""
IN_ORDER = (0, 2, 3, RunLocked.status, UnsupportedPrecision.status, OutOfMemory.status, 75)
"""Exit statuses of runs, and of it when they were its last, that tell of no defect."""
TAIL = 12
"""Lines of a failed run's output that are shown."""

# Ends a worker, with a checkpoint, when whoever started it dies: else it would go on holding its device and its folder.
# (A program of its own because running Python between fork and exec is not safe where there are threads.)
DIE_WITH_PARENT = """
from reproduce.config import format_flags
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""


@dataclass
class Worker:
    """A process of reproduce/train_many.py, where it is, and the unnamed file that receives its output.

    lanes: how many runs it may have in training; training: those that it has, by the number of their line.
    """

    where: str
    lanes: int
    process: Popen
    output: IO[bytes]
    training: dict[int, Config] = field(default_factory=dict)
    lines: int = 0
    seen: int = 0

    @property
    def free(self) -> int:
        assert self.process.stdin is not None
        return 0 if self.process.stdin.closed else self.lanes - len(self.training)

    def begin_run(self, config: Config, options: RunOptions):
        self.lines += 1
        self.training[self.lines] = config
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has just died, which shows at the next look
            self.process.stdin.write(f"{shlex.join(format_flags(config, options))}\n".encode(errors="surrogateescape"))
            self.process.stdin.flush()

    def collect_endings(self) -> list[tuple[Config, int, str]]:
        """The runs that have ended since the last time: exit status, and its sentence or, of a defect, the last lines."""
        written = self.read_output()
        ended = []
        for match in ENDING.finditer(written, self.seen):
            self.seen = match.end()
            config, status, sentence = self.training.pop(int(match[1]), None), int(match[2]), match[3]
            if config is not None:  # else a run has printed something alike
                ended.append((config, status, last_lines(written[: self.seen]) if status == 1 else sentence))
            if status in (1, 75):
                self.dismiss()  # a device in error would fail every other run, too; a worker that stops takes no more
        return ended

    def dismiss(self):
        """No more runs: it ends when those that it has in training have ended."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def close(self):
        """Lets go of a process that has ended."""
        self.dismiss()
        self.output.close()

    def read_output(self) -> str:
        # Not by seek and read: the process writes at the same position of the same open file.
        return os.pread(self.output.fileno(), os.fstat(self.output.fileno()).st_size, 0).decode(errors="replace")

    def read_tail(self) -> str:
        return last_lines(self.read_output())


def last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-TAIL:])


def start_worker(environment: dict[str, str], where: str, lanes: int, folder: Path) -> Worker:
    """Starts reproduce/train_many.py in a working folder.

    Raises:
        OSError: it could not be started.
    """
    line = [sys.executable, "-u", str(RUNNER)]  # -u: the last line of all is the last written
    if sys.platform == "linux":
        line = [sys.executable, "-c", DIE_WITH_PARENT, str(os.getpid()), *line]
    output = tempfile.TemporaryFile()  # noqa: SIM115 - unlike a pipe it never fills and never breaks
    return Worker(where, lanes, Popen(line, env=environment, stdin=PIPE, stdout=output, stderr=STDOUT, cwd=folder), output)
