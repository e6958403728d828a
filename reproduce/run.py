"""Train one network, by default as in He et al. 2015, section 4.2, on CIFAR-10.

    python reproduce/run.py --depth 44 --residual

Creates a run folder in --out. Repeat the command to resume an interrupted run.
Exit status: 0 finished, 2 user error, 3 training diverged, 75 stopped early with a checkpoint, 130 aborted.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from reproduce import cli
from reproduce.config import (
    PAPER_ITERATIONS,
    PAPER_TEST_ERROR,
    Config,
    DataFlags,
    NetworkFlags,
    RunOptions,
    TrainingFlags,
    format_flags,
    load_config,
)
from reproduce.dataset import detect_dataset, resolve_dataset
from reproduce.errors import DIVERGED, FINISHED, STOPPED, UserError
from reproduce.model_card import sha256_of_file
from reproduce.progress import print_line
from reproduce.record import add_session, open_run_folder, read_record, read_result
from reproduce.schema import Diverged, Result
from reproduce.signals import collect_stop_signals

if TYPE_CHECKING:  # importing torch takes seconds, and --help should not
    from reproduce.interleave import Task

HINTS = {
    "--epochs": "--iterations (an epoch of CIFAR-10 is about 391 iterations of 128 images)",
    "--plain": "--no-residual",
    "--gpu": "--device cuda",
}
"""Flags of other programs, and what to use instead."""
FOLDERS = {"mnist": "mnist or a folder named MNIST", "pictures": "an image folder (train/CLASS, test/CLASS)"}
"""What --data must name for each dataset but CIFAR-10."""
CONFIG_HELP = "Train the configuration in this config.json; other flags override it. To repeat fine-tuning, add --initial."
STOPPING = "stopping with a checkpoint within seconds; press Ctrl-C again to abort"


class Outcome(NamedTuple):
    """Exit status and final message of a run."""

    status: int
    message: str


def main(arguments: Sequence[str]) -> int:
    """Train one run and return the exit status; raises like `train_run`."""
    outcome = train_run(*parse(arguments))
    print_line(outcome.message)
    return outcome.status


def parse(arguments: Sequence[str]) -> tuple[Config, RunOptions]:
    """Parse a command line.

    Raises:
        UserError: a flag or value is wrong.
    """
    for flag in {argument.partition("=")[0] for argument in arguments} & HINTS.keys():
        raise UserError(f"there is no {flag}: use {HINTS[flag]}")

    def combine(
        network: NetworkFlags,
        training: TrainingFlags,
        data: DataFlags,
        run: RunOptions,
        config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help=CONFIG_HELP, help_behavior_hint="")] = None,
    ) -> tuple[dict[str, Any], RunOptions, Path | None]:
        return vars(network) | vars(training) | vars(data), run, config

    def parse_flags(arguments: Sequence[str]) -> tuple[dict[str, Any], RunOptions, Path | None]:
        return cli.parse_args(combine, arguments, "run.py", __doc__, tyro.conf.OmitArgPrefixes)

    recipe, options, file = parse_flags(arguments)
    if file is not None:
        described = load_config(file)
        recipe, options, _ = parse_flags([*format_flags(described), *arguments])
        if options.initial == Path("FILE"):
            raise UserError(f"{file} describes a run that starts from pretrained weights: add --initial FILE")
        if options.data == "DIR":
            raise UserError(f"{file} describes a run on an image folder: add --data DIR")
        if described.dataset in FOLDERS and detect_dataset(options.data) == "cifar10":
            raise UserError(f"--data must be {FOLDERS[described.dataset]}, as in {file}, got {options.data}")
    if options.initial is not None and not options.initial.is_file():
        raise UserError(f"--initial {options.initial} is not a weights file: create one with export.py")
    initial = "" if options.initial is None else sha256_of_file(options.initial)
    config = Config(**recipe, **resolve_dataset(options.data), initial=initial)
    if config.trainable != "all" and not initial:
        raise UserError(f"--trainable {config.trainable} needs pretrained weights: add --initial FILE")
    return config, options


def train_run(config: Config, options: RunOptions) -> Outcome:
    """Train a run; SIGTERM, SIGINT and SIGHUP stop it with a checkpoint. Raises like `training_task`.

    config: its dataset, classes, pictures and initial must be those of `options.data` and `options.initial`, as from `parse`.
    """
    from reproduce.interleave import run_task

    stop_signals: list[int] = []
    task = training_task(config, options, stop_signals)
    try:
        next(task)  # loads the data; until then a signal ends the process, since there is nothing to save
    except StopIteration as end:
        return end.value
    with collect_stop_signals(STOPPING, abort=True, stop_signals=stop_signals):
        return run_task(task)


def training_task(config: Config, options: RunOptions, stop_signals: Sequence[int], concurrent: int = 0) -> "Task[Outcome]":
    """Train until the end, the time limit, or the first signal in `stop_signals` (see signals.py).

    If the run has already ended, only its result is reported. Nothing is written before data, network and buffers fit into
    memory.

    concurrent: number of other runs that this process is training at the start.

    Raises:
        RunLocked: another process is training the run.
        UserError: a file or the device is unusable, or the run folder is damaged.
        OSError: the dataset or the run folder cannot be read or written.
    """
    start = time.monotonic()
    if ended := find_outcome(config, options):
        return ended

    from reproduce import device as devices
    from reproduce import train
    from reproduce.dataset import find_data_folder
    from reproduce.interleave import run_on_stream
    from reproduce.model import build_network
    from reproduce.sampling import load_data
    from reproduce.step import Training

    device = devices.choose_device(options.device)
    set_numerics = partial(devices.set_numerics, device, config.precision, options.deterministic)
    flags = set_numerics()
    data = load_data(config, find_data_folder(config.dataset, options.data), device.torch_device)
    network = build_network(config)
    if options.initial is not None:
        from reproduce.weights import load_initial_weights

        data = load_initial_weights(options.initial, network, config, data)
    yield  # loading takes a while: let the other runs continue
    devices.reset_peak_memory(device)
    stream = devices.create_stream(device)
    with devices.use_stream(device, stream):
        training = Training(config, data, device, options.capture, network)
    with open_run_folder(config, options.out) as folder:
        if ended := find_outcome(config, options):  # another process ended the run while this one was loading
            return ended
        described = {"name": config.dataset, "sha256": data.fingerprint}
        if config.dataset == "pictures":
            described |= {"classes": config.classes.split("/"), "images": len(data.train), "test_images": len(data.test)}
        session = {"flags": flags, "data": described, "beside": concurrent}
        add_session(folder, config, options, devices.describe_device(device) | session)
        deadline = math.inf if options.time_limit is None else start + options.time_limit
        task = train.train(training, options, folder, deadline, stop_signals)
        yield from run_on_stream(device, stream, task, set_numerics)
        result = read_result(folder)
    if result is None:
        return Outcome(STOPPED, f"stopped early with a checkpoint in {folder}; repeat the command to resume")
    return describe_result(config, folder, result)


def find_outcome(config: Config, options: RunOptions) -> Outcome | None:
    """Return the outcome of a run that has already ended.

    Raises:
        UserError: a file of its record is damaged.
    """
    folder = options.out / config.folder
    result = read_result(folder)
    if result is None:
        return None
    read_record(folder)
    outcome = describe_result(config, folder, result)
    return Outcome(outcome.status, f"nothing to do, the run has already ended: {outcome.message}")


def describe_result(config: Config, folder: Path, result: Result) -> Outcome:
    """Return the outcome of a run that has finished or diverged."""
    if isinstance(result, Diverged):
        return Outcome(DIVERGED, f"{config.net}: diverged at iteration {result.iteration:,}; run folder {folder}")
    message = f"{config.net}: final test error {result.test_error:.2f}% after {config.iterations:,} iterations"
    is_original = config.net == f"residual{config.depth}" and config.block == "original"
    if config.dataset == "cifar10" and is_original and config.depth in PAPER_TEST_ERROR:
        message += f" (paper: {PAPER_TEST_ERROR[config.depth]:.2f}% after {PAPER_ITERATIONS:,})"
    has_published = config.dataset_info.published_iterations is not None
    return Outcome(FINISHED, f"{message}; {'compare: python analysis/compare.py' if has_published else 'run folder'} {folder}")


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
