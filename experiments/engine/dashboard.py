"""Output of a running sweep: one line per event and, on a terminal, a live table of active runs."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.engine.status import format_time, has_ended, read_state
from reproduce.config import Config
from reproduce.progress import print_line

ERASE = "\x1b[J"
"""Clears from the cursor to the end of the screen (ECMA-48)."""
INTERVAL = 1.0
"""Seconds between updates of the table."""


class Dashboard:
    """Prints events and redraws the table in place below them."""

    def __init__(self):
        self.on_terminal = sys.stdout.isatty()
        self.height = 0
        self.updated = 0.0

    def erase_table(self) -> str:
        """Return the control codes that erase the table."""
        height, self.height = self.height, 0
        return f"\x1b[{height}A\r{ERASE}" if height else ""

    def print_event(self, text: str):
        print_line(self.erase_table() + text)

    def update_table(self, runs: Sequence[Config], active: Sequence[tuple[Config, str]], out: Path):
        """Draw a table of the active runs with their last evaluations, truncated to the size of the terminal.

        active: each run and its device.
        """
        if not self.on_terminal or time.monotonic() < self.updated + INTERVAL:
            return
        self.updated = time.monotonic()
        lines = [f"{sum(has_ended(config, out) for config in runs)} of {len(runs)} ended, {len(active)} in training"]
        lines.append(f"{'run':<32}{'device':<10}{'iteration':<16}{'test error':<12}time left")
        for config, device in active:
            state = read_state(config, out)
            error = "-" if state.error is None else f"{state.error:.2f}%"
            remaining, seconds = config.iterations - state.iteration, state.seconds_per_iteration
            left = "-" if seconds is None else format_time(remaining * seconds)
            iteration = f"{state.iteration}/{config.iterations}"
            lines.append(f"{config.folder!s:<32}{device:<10}{iteration:<16}{error:<12}{left}")
        columns, rows = shutil.get_terminal_size()
        lines = [line[: columns - 1] for line in lines[: rows - 1]]
        print_line(self.erase_table() + "\n".join(lines))
        self.height = len(lines)
