"""Whether a run that is killed again and again, and started again each time, ends as if nothing had happened.

    python experiments/kills.py --kills 100 --data DIR

trains a short run of depth 8 unbroken, then again and again with interruptions, by SIGKILL, SIGTERM and SIGINT in turn: at
random moments, or at a random moment of an evaluation, of the writing of a checkpoint or of what comes after training. When a
run has ended, what it has left is compared with the unbroken run's, apart from times: weights, optimizer and history in the
checkpoint, every row, responses, predictions, result. Exit status: 0 all equal to the bit, 1 not.

Each session is a fork of this process, which has loaded torch and the data: what is killed is the training of run.py itself.
"""

try:
    from reproduce import command  # before all else: from here on, Ctrl-C and a missing package are one line
except ModuleNotFoundError as missing:
    raise SystemExit(f"error: {missing.name} is not installed: pip install -r requirements.txt") from None

import json
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from reproduce import device, record
from reproduce.config import SCHEMA, UserError, require

import torch  # isort: skip

from reproduce import data, run, train
from reproduce.data import PADDING, Data, Images, choose_folder, load

RUN = "--depth 8 --batch-size 32 --iterations 80 --eval-every 20 --checkpoint-every 10 --device cpu --deterministic"
TESTED = 500
"""Test images, the first ones, so that an evaluation is short."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PHASES = {"start": 0.0, "training": 0.1, "evaluation": 0.2, "checkpoint": 0.01, "end": 0.3}
"""What a session goes through, and about how many seconds each takes."""
BEGINNINGS = {
    "training": (train.Training, "train_chunk"),
    "evaluation": (train, "measure_row"),
    "checkpoint": (record, "save_checkpoint"),
    "end": (train, "layer_responses"),
}
"""The function with whose call each begins, and where it is looked up."""
TIMES = {"seconds", "training_seconds", "images_per_second"}
"""What no two runs have alike."""


@dataclass(frozen=True)
class Kills:
    """How often, and on what.

    Raises:
        UserError: a value outside its range.
    """

    kills: int = 100
    seed: int = 0
    """Of the random moments; how far the training has come by then depends on the machine."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic")] = "data"
    """As for run.py."""

    def __post_init__(self):
        require(self.kills >= 1, "kills must be at least 1", self.kills)


def without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: without_times(value) for name, value in content.items() if name not in TIMES}
    return [without_times(value) for value in content] if isinstance(content, list) else content


def read_outcome(folder: Path) -> dict[str, Any]:
    """Everything that a run leaves, apart from times and sessions.

    Raises:
        UserError: something of it is damaged.
    """
    checkpoint = record.read_checkpoint(folder / record.NEWEST, {"schema": SCHEMA})
    if isinstance(checkpoint, str):
        raise UserError(f"{folder / record.NEWEST} {checkpoint}")
    files = {name: json.loads((folder / name).read_text()) for name in (record.CONFIG, record.RESULT, record.RESPONSES)}
    files[record.PREDICTIONS] = (folder / record.PREDICTIONS).read_text()
    return without_times(files | {"metrics": record.read_metrics(folder), "checkpoint": checkpoint})


def are_equal(one: Any, other: Any) -> bool:
    """Equality to the bit of nested dicts and lists of tensors and numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(are_equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


def begin_session(flags: Sequence[str], images: Data, phase: mmap.mmap) -> int:
    """Starts run.py, silent, in a process of its own, which puts the number of its phase into memory; returns the process."""
    phase[0] = 0
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what is started in the background of a shell
        data.load_once = lambda *_: images
        for name, (owner, function) in BEGINNINGS.items():
            setattr(owner, function, tell_beginning(getattr(owner, function), phase, list(PHASES).index(name)))
        status = run.main(flags)
    finally:
        os._exit(status)


def tell_beginning(function: Callable[..., Any], phase: mmap.mmap, number: int) -> Callable[..., Any]:
    def told(*arguments: Any) -> Any:
        phase[0] = number
        return function(*arguments)

    return told


def has_ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def interrupt(process: int, number: int, phase: mmap.mmap, aim: int | None, delay: float) -> str | None:
    """Sends a signal so many seconds after a process has begun or, where there is an aim, after it has come to that phase.

    Returns: the phase that it was in; None where it had ended before.
    """
    while aim is not None and phase[0] != aim and not has_ended(process):
        time.sleep(0.0002)
    time.sleep(delay)
    if has_ended(process):
        return None
    hit = list(PHASES)[phase[0]]
    os.kill(process, number)
    return hit


def measure_kills(kills: Kills, images: Data, flags: list[str], out: Path) -> bool:
    """Trains and kills below a folder, and prints what has come of it; whether all runs have ended as the unbroken one."""
    phase, generator = mmap.mmap(-1, 1), random.Random(kills.seed)
    folder = run.parse(flags)[0].folder
    before = time.monotonic()
    unbroken = begin_session([*flags, "--out", str(out / "unbroken")], images, phase)
    if os.waitstatus_to_exitcode(os.waitpid(unbroken, 0)[1]) != 0:
        raise UserError(f"the unbroken run has failed: python reproduce/run.py {' '.join(flags)}")
    length = time.monotonic() - before
    expected = read_outcome(out / "unbroken" / folder)
    hits: Counter[tuple[str, str]] = Counter()
    ended, equal = 0, 0
    while True:
        number = SIGNALS[hits.total() % len(SIGNALS)]
        aim = generator.choice([None, None, *range(1, len(PHASES))])
        delay = generator.uniform(0, length if aim is None else list(PHASES.values())[aim])
        process = begin_session([*flags, "--out", str(out / str(ended))], images, phase)
        hit = interrupt(process, number, phase, aim, delay) if hits.total() < kills.kills else None
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if hit is not None:
            hits[hit, signal.Signals(number).name] += 1
        elif status != 0:
            raise UserError(f"a session that nothing has interrupted has ended with exit status {status}: run {ended}")
        if (out / str(ended) / folder / record.RESULT).exists():
            found = read_outcome(out / str(ended) / folder)
            differing = [name for name in expected if not are_equal(found.get(name), expected[name])]
            if differing:
                print(f"run {ended} differs from the unbroken one in {', '.join(differing)}", flush=True)
            ended, equal = ended + 1, equal + (not differing)
            if hits.total() >= kills.kills:
                break
    names = [number.name for number in SIGNALS]
    print(f"{'killed in':12}" + "".join(f"{name:>9}" for name in names))
    for name in PHASES:
        print(f"{name:12}" + "".join(f"{hits[name, each]:9}" for each in names))
    print(f"{hits.total()} kills, {ended} runs: {equal} of {ended} ended equal to the unbroken one, to the bit")
    return equal == ended


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where all runs have ended alike, else 1.

    Raises:
        UserError: the data set is missing, or a run fails by itself.
    """
    kills = command.parse(Kills, arguments, "kills.py", __doc__)
    torch.set_num_threads(1)  # other threads would not be there after a fork
    flags = [*RUN.split(), "--data", kills.data]
    config, machine = run.parse(flags)
    images = load(config, choose_folder(config, machine.data), device.choose_device("cpu").torch_device)
    few = Images(images.test.positions[: TESTED * (images.side + 2 * PADDING) ** 2], images.test.labels[:TESTED])
    with tempfile.TemporaryDirectory() as out:
        return 0 if measure_kills(kills, replace(images, test=few), flags, Path(out)) else 1


if __name__ == "__main__":
    sys.exit(command.tell(main, sys.argv[1:]))
