"""One run, seen from outside: its command, its process, and how far it has come. Free of torch."""

import os
import shlex
import sys
import tempfile
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import IO, Literal

import reproduce
from reproduce.config import Config, Machine
from reproduce.record import read_metrics, read_result

RUNNER = Path(reproduce.__file__).with_name("run.py")
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


def command(config: Config, machine: Machine) -> list[str]:
    """The arguments of reproduce/run.py that give this config and machine; what is at its default is left out."""
    assert (config.dataset == "synthetic") == (machine.data == "synthetic"), "the data set is named by --data"
    ordinary = replace(config, lr=None, warmup="auto")  # both defaults depend on other fields
    arguments = []
    for settings in (config, machine):
        for field in fields(settings):
            value = getattr(settings, field.name)
            default = getattr(ordinary, field.name) if field.name in ("lr", "warmup") else field.default
            if value == default or field.name == "dataset":
                continue
            flag = field.name.replace("_", "-")
            if isinstance(value, bool):
                arguments.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                arguments += [f"--{flag}", str(value)]
    return arguments


def show(config: Config) -> str:
    """A run's folder and the flags that make it what it is, in one line."""
    data = "synthetic" if config.dataset == "synthetic" else Machine.data
    return shlex.join([str(config.folder), *command(config, Machine(data=data))])


@dataclass(frozen=True)
class Worker:
    """A run in training: its process, where that is, and the unnamed file that receives its output."""

    config: Config
    where: str
    process: Popen
    output: IO[bytes]

    def read_tail(self) -> str:
        """The last lines of what the run has written."""
        self.output.seek(0)
        return "\n".join(self.output.read().decode(errors="replace").splitlines()[-TAIL:])


def start(config: Config, machine: Machine, environment: dict[str, str], where: str, folder: Path) -> Worker:
    """Starts reproduce/run.py as a process of its own in a working folder.

    Raises:
        OSError: it could not be started.
    """
    line = [sys.executable, "-u", str(RUNNER), *command(config, machine)]  # -u: the last line of all is the last written
    if sys.platform == "linux":
        line = [sys.executable, "-c", DIE_WITH_PARENT, str(os.getpid()), *line]
    output = tempfile.TemporaryFile()  # noqa: SIM115 - unlike a pipe it never fills and never breaks
    return Worker(config, where, Popen(line, env=environment, stdout=output, stderr=STDOUT, cwd=folder), output)


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
    if not (folder / "config.json").is_file():
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
