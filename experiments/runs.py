"""One run, seen from outside: its command, its process, and how far it has come. Free of torch."""

import os
import re
import shlex
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import IO, Literal

import reproduce
from reproduce.config import Config, Machine, write_flags
from reproduce.record import read_config, read_metrics, read_result

RUNNER = Path(reproduce.__file__).with_name("together.py")
ENDING = re.compile(r"^line (\d+), exit status (\d+): (.*)\n", re.MULTILINE)
"""What it says of a run that has ended."""
TAIL = 12
"""Lines of a failed run's output that are shown."""

# Ends a worker, with a checkpoint, when whoever started it dies: else it would go on holding its device and its folder.
# (A program of its own because running Python between fork and exec is not safe where there are threads.)
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""


def show(config: Config) -> str:
    """A run's folder and the flags that make it what it is, in one line."""
    return shlex.join([str(config.folder), *write_flags(config)])


@dataclass
class Worker:
    """A process of reproduce/together.py, where it is, and the unnamed file that receives its output.

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

    def begin(self, config: Config, machine: Machine):
        self.lines += 1
        self.training[self.lines] = config
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has just died, which shows at the next look
            self.process.stdin.write(f"{shlex.join(write_flags(config, machine))}\n".encode(errors="surrogateescape"))
            self.process.stdin.flush()

    def collect(self) -> list[tuple[Config, int, str]]:
        """The runs that have ended since the last time: exit status, and its sentence or, of a defect, the last lines."""
        written = self.read()
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

    def read(self) -> str:
        # Not by seek and read: the process writes at the same position of the same open file.
        return os.pread(self.output.fileno(), os.fstat(self.output.fileno()).st_size, 0).decode(errors="replace")

    def read_tail(self) -> str:
        return last_lines(self.read())


def last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-TAIL:])


def start(environment: dict[str, str], where: str, lanes: int, folder: Path) -> Worker:
    """Starts reproduce/together.py in a working folder.

    Raises:
        OSError: it could not be started.
    """
    line = [sys.executable, "-u", str(RUNNER)]  # -u: the last line of all is the last written
    if sys.platform == "linux":
        line = [sys.executable, "-c", DIE_WITH_PARENT, str(os.getpid()), *line]
    output = tempfile.TemporaryFile()  # noqa: SIM115 - unlike a pipe it never fills and never breaks
    return Worker(where, lanes, Popen(line, env=environment, stdin=PIPE, stdout=output, stderr=STDOUT, cwd=folder), output)


@dataclass(frozen=True)
class Progress:
    """How far a run is: iterations and test error (percent) at its last evaluation, seconds of training up to there."""

    state: Literal["missing", "unfinished", "finished", "diverged"]
    iteration: int = 0
    error: float | None = None
    seconds: float = 0.0


def look(config: Config, out: Path) -> Progress:
    """How far a run is, from its folder alone: it may be in training meanwhile."""
    folder = out / config.folder
    result = read_result(folder)
    if result is not None and result["status"] == "diverged":
        return Progress("diverged", result["iteration"])
    if result is not None:
        return Progress("finished", result["iterations"], result["test_error"], result["seconds"])
    if read_config(folder) is None:
        return Progress("missing")
    rows = read_metrics(folder)
    if not rows:
        return Progress("unfinished")
    return Progress("unfinished", rows[-1]["iteration"], rows[-1]["test_error"], rows[-1]["seconds"])


def has_ended(config: Config, out: Path) -> bool:
    return look(config, out).state in ("finished", "diverged")


Verdict = Literal["ended", "left", "locked", "failed"]


def judge(config: Config, out: Path, status: int, tail: str, stopping: bool) -> Verdict:
    """What became of a run, from its folder, its process's exit status and the last lines of its output.

    stopping: it may have been told to stop, which before its training has begun just ends it.

    Returns: "ended": finished or diverged; "left": stopped early, to be resumed; "locked": another process is training
    it.
    """
    if has_ended(config, out):
        return "ended"
    if status == 2 and "another process is training into" in tail:
        return "locked"
    return "left" if status == 75 or (stopping and status not in (2, 3)) else "failed"


def describe_failure(status: int, tail: str) -> str:
    reason = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return "\n".join([reason, *(f"    {line}" for line in tail.splitlines())])


def say_time(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:20:00."""
    return str(timedelta(seconds=round(seconds)))


def describe(config: Config, out: Path) -> str:
    """A run and how far it is, in one line."""
    progress = look(config, out)
    ending = {
        "missing": "not begun",
        "unfinished": f"unfinished, last evaluated at iteration {progress.iteration} of {config.iterations}",
        "diverged": f"diverged at iteration {progress.iteration}",
        "finished": f"test error {progress.error or 0:.2f}%, trained in {say_time(progress.seconds)}",
    }
    return f"{config.folder}: {ending[progress.state]}"
