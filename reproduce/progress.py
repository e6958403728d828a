"""What a training shows while it runs: a bar on a terminal, lines elsewhere, and TensorBoard's curves."""

import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from reproduce.config import Config


def say(line: str):
    """Prints a line at once. Training does not end when nobody reads it any more: it goes on in silence."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_board(folder: Path, iteration: int) -> Any:
    """TensorBoard's writer, which drops what an interrupted session wrote past the iteration."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=iteration + 1)


def show_row_on_board(board: Any, row: dict[str, Any]):
    for name, value in row.items():
        if name not in ("iteration", "seconds"):
            board.add_scalar(name, value, row["iteration"])
    board.flush()


def progress_bar(config: Config, iteration: int) -> tqdm:
    """A bar on a terminal, with the remaining time; nothing elsewhere."""
    on_terminal = sys.stderr.isatty()
    return tqdm(total=config.iterations, initial=iteration, desc=config.net, unit="it", disable=not on_terminal)


def show_chunk(bar: tqdm, config: Config, losses: list[float], wrong: list[int], seconds: float):
    images = len(losses) * config.batch_size
    loss, error, speed = sum(losses) / len(losses), 100 * sum(wrong) / images, images / seconds
    bar.set_postfix_str(f"loss {loss:.3f}, error {error:.1f}%, {speed:.0f} images/s", refresh=False)
    bar.update(len(losses))


def show_row(bar: tqdm, config: Config, row: dict[str, Any], images_per_second: float):
    if bar.disable:
        left = (config.iterations - row["iteration"]) * config.batch_size / images_per_second
        say(
            f"{config.net} seed {config.seed}  iteration {row['iteration']}/{config.iterations}  "
            f"learning rate {row['learning_rate']:g}  "
            f"training loss {row['train_loss']:.4f}  training error {row['train_error']:.2f}%  "
            f"test error {row['test_error']:.2f}%  {images_per_second:.0f} images/s  "
            f"{tqdm.format_interval(left)} left"
        )
