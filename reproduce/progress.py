"""What a training shows of itself: opening lines, a bar on a terminal, a line now and then elsewhere, TensorBoard's curves."""

import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from reproduce.config import Config, RunOptions, format_recipe

FIRST_SIGN, NEXT_SIGN = 10.0, 60.0
"""Seconds of training after which the speed is taken for known and the end is estimated, and from there on, off a terminal,
from reproduce.config import format_recipe
from one sign of life to the next."""
CHUNKS, SLOW = 9, 3
"""Chunks whose median is the present speed, and by what factor that has to fall for it to be told."""


def print_line(line: str):
    """Prints a line at once, above the bars. Training does not end when it cannot be written: it goes on in silence."""
    try:
        with tqdm.external_write_mode():
            print(line, flush=True)
    except OSError:  # a terminal or a pipe that is gone, a log on a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_tensorboard(folder: Path, iteration: int) -> Any:
    """TensorBoard's writer, which drops what an interrupted session wrote past the iteration."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=iteration + 1)


def log_to_tensorboard(board: Any, row: dict[str, Any]):
    for name, value in row.items():
        if name not in ("iteration", "seconds"):
            board.add_scalar(name, value, row["iteration"])
    board.flush()


def format_header(
    config: Config,
    options: RunOptions,
    folder: Path,
    device: str,
    parameters: int,
    images: Mapping[str, int],
    iteration: int | None,
) -> str:
    """What is about to be trained, in some lines.

    device: in words; images: how many of each kind; iteration: of the checkpoint, None without one.
    """
    kernels = ", deterministic kernels" if options.deterministic else ""
    source = "generated images" if config.dataset == "synthetic" else f"{config.dataset_info.title} in {options.data}"
    counts = ", ".join(f"{count:,} {kind}" for kind, count in images.items())
    begun = "new" if iteration is None else f"resuming at iteration {iteration:,}"
    lines = [
        f"{config.net} seed {config.seed}: {parameters:,} parameters; recipe: {format_recipe(config)}",
        f"on {device}, {config.precision}{kernels}",
        f"{source}: {counts}",
        f"{folder}: {begun}, to train until iteration {config.iterations:,}",
    ]
    return "\n  ".join(lines)


class Progress:
    """How far a run has come in this session, and what is told of it.

    rows: of metrics, from earlier sessions; threads: that share an operation on a CPU, None on an accelerator.
    """

    def __init__(self, config: Config, iteration: int, rows: Sequence[Mapping[str, Any]], threads: int | None):
        self.config, self.first, self.iteration, self.threads = config, iteration, iteration, threads
        self.name = f"{config.net} seed {config.seed}"
        self.bar = tqdm(total=config.iterations, initial=iteration, desc=config.net, unit="it", disable=not sys.stderr.isatty())
        self.best = min((row["test_error"] for row in rows), default=math.inf)
        self.began = time.monotonic()
        self.due = self.began + FIRST_SIGN
        self.speeds: deque[float] = deque(maxlen=CHUNKS)
        self.fastest = 0.0

    def show_chunk(self, losses: Sequence[float], wrong: Sequence[int], seconds: float):
        """Takes in a chunk: each iteration's loss and wrong answers, and the seconds that it took."""
        images = len(losses) * self.config.batch_size
        loss, error, speed = sum(losses) / len(losses), 100 * sum(wrong) / images, images / seconds
        self.iteration += len(losses)
        self.bar.set_postfix_str(f"loss {loss:.3f}, error {error:.1f}%, {speed:.0f} images/s", refresh=False)
        self.bar.update(len(losses))
        self.speeds.append(speed)
        if time.monotonic() >= self.due:
            self.tell(f"loss {loss:.3f}  training error {error:.1f}%")
        self.watch_speed()

    def tell(self, what: str):
        """A line on where the run is, `what` there is to say, its speed and when it will end."""
        now, left = time.monotonic(), self.config.iterations - self.iteration
        try:
            remaining = timedelta(seconds=round((now - self.began) / (self.iteration - self.first) * left))
            end = f"{remaining} left, until {datetime.now() + remaining:%Y-%m-%d %H:%M}" if left else "done"
        except OverflowError:
            end = "no end in sight"
        print_line(
            f"{self.name}  iteration {self.iteration}/{self.config.iterations}  {what}  "
            f"{median(self.speeds):.0f} images/s  {end}"
        )
        self.due = now + NEXT_SIGN if self.bar.disable else math.inf

    def show_row(self, row: Mapping[str, Any]):
        """Tells of an evaluation. The best test error is named for what it is, chosen on the test set, and is no result."""
        is_best = row["test_error"] < self.best
        self.best = min(self.best, row["test_error"])
        beside = "best so far" if is_best else f"best so far {self.best:.2f}%"
        self.tell(
            f"lr {row['learning_rate']:g}  loss {row['train_loss']:.4f}  "
            f"training error {row['train_error']:.2f}%  test error {row['test_error']:.2f}% ({beside})"
        )

    def watch_speed(self):
        """Says, once, that a CPU has become busy with something else."""
        if self.threads is None or len(self.speeds) < CHUNKS:
            return
        speed = median(self.speeds)
        self.fastest = max(self.fastest, speed)
        if SLOW * speed > self.fastest:
            return
        waits = (
            f"; a step waits for all {self.threads} threads: OMP_NUM_THREADS=1, one run per core, is faster beside other work"
        )
        print_line(
            f"{self.name}  only {speed:.0f} images/s, after {self.fastest:.0f}: something else has the processor"
            f"{waits if self.threads > 1 else ''}"
        )
        self.threads = None
