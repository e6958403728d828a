"""Output during training: header, progress bar (on a terminal) or regular lines, evaluations, TensorBoard curves."""

import math
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins
from tqdm import tqdm

from reproduce.config import Config, RunOptions, format_recipe
from reproduce.schema import Row

if TYPE_CHECKING:  # importing torch takes seconds, and --help should not
    from reproduce.step import Training

FIRST_LINE, LINE_INTERVAL = 10.0, 60.0
"""Seconds until the first status line, and between status lines without a progress bar."""
BAR = "{desc} |{bar}| {n_fmt}/{total_fmt}{postfix}"


def print_line(line: str):
    """Print a line above any progress bar. If stdout is gone or full, training continues without output."""
    try:
        with tqdm.external_write_mode():
            print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_tensorboard(folder: Path, iteration: int) -> Any:
    """Open TensorBoard's writer, discarding events after `iteration`."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=iteration + 1)


def log_to_tensorboard(board: Any, row: Row):
    for name, value in to_builtins(row).items():
        if name not in ("iteration", "seconds"):
            board.add_scalar(name, value, row.iteration)
    board.flush()


def print_header(training: "Training", options: RunOptions, folder: Path, start: str):
    """Print the network, the device, the data and where the training starts."""
    from reproduce.device import format_device
    from reproduce.model import count_parameters

    config, data = training.config, training.data
    kernels = ", deterministic kernels" if options.deterministic else ""
    source = "generated images" if config.dataset == "synthetic" else f"{config.dataset_info.title} in {options.data}"
    parts = {"training": data.train, "validation": data.validation, "test": data.test}
    counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part is not None)
    parameters = count_parameters(training.network)
    print_line(f"{config.net} seed {config.seed}: {parameters:,} parameters; recipe: {format_recipe(config)}")
    print_line(f"  device: {format_device(training.device)}, {config.precision}{kernels}")
    print_line(f"  data: {source}: {counts}")
    print_line(f"  folder: {folder}: {start}, {config.iterations:,} iterations")


class Progress:
    """Progress of one session: a bar on a terminal, else a line per minute. rows: the evaluations of earlier sessions."""

    def __init__(self, config: Config, iteration: int, rows: Sequence[Row]):
        self.config, self.start_iteration, self.iteration = config, iteration, iteration
        self.best = min((row.test_error for row in rows), default=math.inf)
        has_bar, style = sys.stderr.isatty(), {"bar_format": BAR, "dynamic_ncols": True, "leave": False}
        self.bar = tqdm(desc=config.net, total=config.iterations, initial=iteration, disable=not has_bar, **style)
        self.start = time.monotonic()
        self.next_line = math.inf if has_bar else self.start + FIRST_LINE
        self.throughput = 0.0

    def show_chunk(self, losses: Sequence[float], wrong: Sequence[int], seconds: float):
        """Show the progress after a chunk. losses, wrong: the loss and the number of misclassified images of each iteration."""
        images = len(losses) * self.config.batch_size
        loss, error = sum(losses) / len(losses), 100 * sum(wrong) / images
        self.throughput = images / seconds
        self.iteration += len(losses)
        self.bar.n = self.iteration
        self.show_state(f"loss {loss:.3f}")
        if time.monotonic() >= self.next_line:
            self.print_line(f"loss {loss:.3f}  training error {error:.1f}%")

    def show_state(self, state: str):
        """Show the current activity on the bar."""
        self.bar.set_postfix_str(f"{state}, {self.throughput:.0f} images/s, {self.remaining_time()} left")

    def show_row(self, row: Row):
        """Print an evaluation, with the best test error so far."""
        is_best = row.test_error < self.best
        self.best = min(self.best, row.test_error)
        best = "best so far" if is_best else f"best so far {self.best:.2f}%"
        self.print_line(
            f"lr {row.learning_rate:g}  loss {row.train_loss:.4f}  "
            f"training error {row.train_error:.2f}%  test error {row.test_error:.2f}% ({best})"
        )

    def print_line(self, measurements: str):
        """Print the iteration, some measurements, the throughput and, without a bar, the remaining time."""
        line = f"{self.config.net} seed {self.config.seed}  iteration {self.iteration}/{self.config.iterations}  "
        line += f"{measurements}  {self.throughput:.0f} images/s"
        if self.iteration == self.config.iterations:
            line += "  done"
        elif self.bar.disable:
            remaining = self.remaining_time()
            line += f"  {remaining} left, until {datetime.now() + remaining:%Y-%m-%d %H:%M}"
            self.next_line = time.monotonic() + LINE_INTERVAL
        print_line(line)

    def remaining_time(self) -> timedelta:
        """Estimate the remaining time from this session, including its evaluations and checkpoints."""
        rate = (time.monotonic() - self.start) / max(1, self.iteration - self.start_iteration)
        return timedelta(seconds=round(rate * (self.config.iterations - self.iteration)))
