"""The first half hour on a device that this code has not seen.

    python experiments/first_contact.py --device cuda --data DIR

does one after another, each with a time limit, and tells at the end what came of it:
  smoke        a short run of ResNet-20; without graph capture where it fails with
  tests        tests/test_accelerator.py: captured steps, runs side by side and interrupted runs are exact (wants pytest)
  throughput   throughput.py --quick, from which the sweep chooses how many runs to train at the same time
  acceptance   acceptance.py: does the device train right? without graph capture where it does not with
  sweep        sweep.py for the time that is left, once the device is known to train right as it is; later the same sweep.py
               command goes on

What each step prints is kept in a file, and the report beside it. A step that fails or outlasts its limit does not keep those
that do not need it from their turn. Exit status: 0 all went right, 1 something did not, 2 wrong use.
"""

try:
    from reproduce import command  # before all else: from here on, Ctrl-C and a missing package are one line
except ModuleNotFoundError as missing:
    raise SystemExit(f"error: {missing.name} is not installed: pip install -r requirements.txt") from None

import contextlib
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import tyro

from experiments import EXPERIMENTS
from reproduce.config import Machine, Precision, require
from reproduce.progress import say

ROOT = Path(__file__).parents[1]
GRACE = 30.0
"""Seconds from asking a step to stop to ending it."""
NO_CAPTURE = "no graph capture"
"""What a training says that goes on without; see step.py."""
StepName = Literal["smoke", "tests", "throughput", "acceptance", "sweep"]


@dataclass(frozen=True)
class Contact:
    """What to do where.

    Raises:
        UserError: a value outside its range.
    """

    device: Literal["auto", "npu", "cuda", "cpu"] = "auto"
    minutes: float = 30.0
    """For all steps together."""
    steps: Annotated[tuple[StepName, ...], tyro.conf.arg(metavar="STEP ...")] = get_args(StepName)
    """Which of them to do: smoke tests throughput acceptance sweep."""
    experiment: Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(EXPERIMENTS)}}}")] = "degradation"
    """What to sweep; seed 0 only."""
    precision: Precision = "fp32"
    """Of the sweep."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR")] = Machine.data
    """Folder of CIFAR-10."""
    out: Path = Path("runs/first_contact")
    """Receives the report, a log of each step, and the run folders."""

    def __post_init__(self):
        require(0 < self.minutes < 1e6, "minutes must be positive, and less than a million", self.minutes)
        require(self.experiment in EXPERIMENTS, f"experiment must be one of {', '.join(EXPERIMENTS)}", self.experiment)
        require(len(self.steps) > 0, "steps must name one", "none")


class Step(NamedTuple):
    """A command with its limit in seconds, the flags to try it with where it fails, and the steps that it waits for.

    right: the exit statuses that are no failure.
    """

    name: str
    line: list[str]
    limit: float
    fallback: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    right: tuple[int, ...] = (0,)


class Outcome(NamedTuple):
    """What came of a step. went: "right", "right" with what came in the way, or how it went wrong; said: its last line."""

    name: str
    went: str
    seconds: float
    said: str


def list_steps(contact: Contact) -> list[Step]:
    def script(path: str, *flags: str) -> list[str]:
        return [sys.executable, str(ROOT / path), *flags]

    at, new = ["--device", contact.device, "--data", contact.data], contact.out / datetime.now().strftime("%Y%m%d-%H%M%S")
    devices = [] if contact.device == "auto" else ["--devices", contact.device]
    swept = ["--seeds", "1", "--precision", contact.precision, "--data", contact.data, *devices]
    swept += ["--out", str(contact.out / "records")]
    pytest = [sys.executable, "-m", "pytest", "-n", "0", "-o", "filterwarnings=default", "-c", str(ROOT / "pyproject.toml")]
    no_capture = ("--no-capture",)
    known = [
        Step("smoke", script("reproduce/run.py", "--iterations", "100", *at, "--out", str(new)), 240, no_capture),
        Step("tests", [*pytest, str(ROOT / "tests" / "test_accelerator.py")], 300, needs=("smoke",)),
        Step("throughput", script("experiments/throughput.py", "--quick", *at), 300, needs=("smoke",)),
        Step("acceptance", script("experiments/acceptance.py", *at, "--out", str(new)), 1500, no_capture, ("smoke",)),
        Step(
            "sweep", script("experiments/sweep.py", contact.experiment, *swept), math.inf, (), ("smoke", "acceptance"), (0, 75)
        ),
    ]
    return [step for step in known if step.name in contact.steps]


def end(process: subprocess.Popen):
    """Asks a step to stop, as a time limit does, and ends it with all that it has started if it does not."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def execute(line: Sequence[str], limit: float, log: Path) -> tuple[int | None, list[str]]:
    """Runs a command, showing what it prints and keeping it.

    Returns: its exit status, None where it outlasted the limit, and the lines that it printed, without empty ones.
    """
    lines, late = [], threading.Event()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        timer = threading.Timer(limit, lambda: (late.set(), end(process)))
        timer.start()
        try:
            print(f"$ {shlex.join(line)}", file=file)
            assert process.stdout is not None
            for text in process.stdout:
                say(text.rstrip("\n"))
                print(text, end="", file=file, flush=True)
                lines += [text.strip()] if text.strip() else []
            process.wait()
        except BaseException:
            end(process)
            raise
        finally:
            timer.cancel()
    return (None if late.is_set() else process.returncode), lines


def do_step(step: Step, deadline: float, folder: Path) -> Outcome:
    """Does a step, and once more with the fallback's flags where it goes wrong. deadline: of time.monotonic."""
    began, failures, said = time.monotonic(), [], ""
    for extra in [(), step.fallback] if step.fallback else [()]:
        line, limit = [*step.line, *extra], min(step.limit, deadline - time.monotonic())
        if limit <= 0:
            failures.append("no time is left")
            break
        if step.name == "sweep":
            line, limit = [*line, "--time-limit", f"{limit:.0f}"], limit + GRACE
        say(f"\n{step.name}: at most {limit / 60:.1f} minutes\n$ {shlex.join(line)}")
        status, lines = execute(line, limit, folder / f"{step.name}.log")
        said = lines[-1] if lines else ""
        if status in step.right:
            went = f"right with {' '.join(extra)} (without: {failures[0]})" if extra else "right"
            if not extra and any(NO_CAPTURE in text for text in lines):
                went = "right, but not captured"
            return Outcome(step.name, went, time.monotonic() - began, said)
        problem = f"stopped after {limit:.0f} s" if status is None else f"exit status {status}"
        failures.append(f"{problem} with {' '.join(extra)}" if extra else problem)
        if status == 2:
            break  # wrong use, as a data set that is not there
    return Outcome(step.name, "; ".join(failures), time.monotonic() - began, said)


def do_steps(steps: Sequence[Step], deadline: float, folder: Path) -> list[Outcome]:
    """Does the steps in their order, but none without what it needs of the steps before.

    A sweep has no flag for a fallback, and the time that is left is too dear to train step by step, so that it needs what went
    right as it is.
    """
    outcomes: dict[str, Outcome] = {}
    for step in steps:
        before = {name: outcomes[name].went for name in step.needs if name in outcomes}
        strict = step.name == "sweep"
        missing = [name for name, went in before.items() if not (went == "right" if strict else went.startswith("right"))]
        if missing:
            outcomes[step.name] = Outcome(step.name, f"not begun, because of {missing[0]}", 0.0, "")
        else:
            outcomes[step.name] = do_step(step, deadline, folder)
    return list(outcomes.values())


def write_report(outcomes: Sequence[Outcome]) -> str:
    lines = []
    for name, went, seconds, said in outcomes:
        lines += [f"{name:10}  {seconds:6.0f} s  {went}", *([f"{'':20}  {said}"] if said else [])]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Does the steps, prints and writes the report, and returns the exit status.

    Raises:
        UserError, OSError: what the caller turns into a sentence and exit status 2.
    """
    contact = command.parse(Contact, arguments, "first_contact.py", __doc__)
    deadline = time.monotonic() + 60 * contact.minutes
    contact.out.mkdir(parents=True, exist_ok=True)
    outcomes = do_steps(list_steps(contact), deadline, contact.out)
    report = write_report(outcomes)
    (contact.out / "report.txt").write_text(f"{report}\n", encoding="utf-8")
    say(f"\n{report}\nreport and logs: {contact.out}")
    return 0 if all(outcome.went == "right" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(command.tell(main, sys.argv[1:]))
