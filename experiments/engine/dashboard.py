"""What a sweep shows while it goes on: a line per event and, on a terminal, a table of the runs in training below
them."""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.engine.progress import format_time, has_ended, read_progress
from reproduce.config import Config
from reproduce.progress import print_line

ERASE = "\x1b[J"
"""Clears from the cursor to the end of the screen (ECMA-48)."""
INTERVAL = 1.0
"""Seconds between two drawings of the table."""


class Dashboard:
    """Events scroll by; the table is redrawn in place below the last of them. Plain control codes, no library."""

    def __init__(self):
        self.on_terminal = sys.stdout.isatty()
        self.height = 0
        self.drawn = 0.0

    def erase_table(self) -> str:
        """What erases the table, to be written before what comes in its place: up to where it began, and clear."""
        height, self.height = self.height, 0
        return f"\x1b[{height}A\r{ERASE}" if height else ""

    def tell_event(self, text: str):
        print_line(self.erase_table() + text)

    def draw_table(self, list_runs: Callable[[], list[Config]], active: Sequence[tuple[Config, str]], out: Path):
        """Shows the runs in training, each with where it is, cut to the terminal's size; elsewhere nothing."""
        if not self.on_terminal or time.monotonic() < self.drawn + INTERVAL:
            return
        self.drawn = time.monotonic()
        runs = list_runs()
        heading = f"{sum(has_ended(config, out) for config in runs)} of {len(runs)} done, {len(active)} in training"
        columns, rows = shutil.get_terminal_size()
        lines = [heading, *write_table(active, out)]
        shown = [line[: columns - 1] for line in lines[: rows - 2]]
        print_line(self.erase_table() + "\n".join(shown))
        self.height = len(shown)


def write_table(active: Sequence[tuple[Config, str]], out: Path) -> list[str]:
    """One line per run: name, where, state, iteration, test error and remaining time as of its last evaluation."""
    lines = [f"{'run':<32}{'on':<10}{'state':<12}{'iteration':<16}{'test error':<12}remaining"]
    for config, where in active:
        progress = read_progress(config, out)
        state = "training" if progress.iteration else "starting"
        error = "-" if progress.error is None else f"{progress.error:.2f}%"
        left = "-"
        if progress.pace is not None:
            left = format_time((config.iterations - progress.iteration) * progress.pace)
        iteration = f"{progress.iteration}/{config.iterations}"
        lines.append(f"{config.folder!s:<32}{where:<10}{state:<12}{iteration:<16}{error:<12}{left}")
    return lines
