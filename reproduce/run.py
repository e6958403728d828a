"""Train one network of He et al. 2015, section 4.2, on CIFAR-10.

    python reproduce/run.py --depth 44 --residual

leaves a run folder below --out. The same command again goes on where an interrupted run stopped, and says so of a
finished one. Exit status: 0 finished, 2 wrong use, 3 training diverged, 75 stopped early with a checkpoint.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tyro

from reproduce import cli
from reproduce.config import PAPER_ITERATIONS, PAPER_TEST_ERROR, Config, RunOptions
from reproduce.errors import UserError
from reproduce.image_folder import resolve_dataset
from reproduce.model_card import sha256_of_file
from reproduce.progress import print_line
from reproduce.record import BEST, add_session, open_run_folder, read_config, read_record, read_result, read_sessions
from reproduce.signals import collect_stop_signals

if TYPE_CHECKING:
    from torch import nn

    from reproduce.device import Device
    from reproduce.interleave import Task
    from reproduce.sampling import Data

EXIT_STATUS = {"finished": 0, "diverged": 3, "stopped": 75}
STOPPING = "stopping with a checkpoint, in a few seconds or after the evaluation in progress; Ctrl-C again ends at once"


class Outcome(NamedTuple):
    """Exit status and final message of a run."""

    status: int
    message: str


@dataclass(frozen=True)
class PreparedRun:
    """A run that only has to be trained.

    flags: of numerics, as they were set; data: on the device; network: as it begins; deadline: of time.monotonic.
    """

    config: Config
    options: RunOptions
    device: "Device"
    flags: dict[str, Any]
    data: "Data"
    network: "nn.Module"
    deadline: float


def parse(arguments: Sequence[str]) -> tuple[Config, RunOptions]:
    """The command line's config and machine.

    Raises:
        UserError: a flag or value is wrong.
    """

    def both(config: Config, options: RunOptions) -> tuple[Config, RunOptions]:
        return config, options

    config, options = cli.parse_args(both, arguments, "run.py", __doc__, tyro.conf.OmitArgPrefixes)
    initial = {} if options.initial is None else {"initial": hash_initial(options.initial)}
    if config.trainable != "all" and not initial:
        raise UserError(f"--trainable {config.trainable} keeps layers as they begin: name the file they come from by --initial")
    return replace(config, **resolve_dataset(options.data), **initial), options


def hash_initial(path: Path) -> str:
    """The SHA-256 of the file that `--initial` names.

    Raises:
        UserError: there is none, or it is a checkpoint of a run, whose scale only its data set knows.
    """
    if not path.is_file() or (path.name == BEST and read_config(path.parent) is not None):
        raise UserError(f"--initial {path} is not a file of weights: export.py makes one of a finished run")
    return sha256_of_file(path)


def format_outcome(config: Config, folder: Path, result: dict[str, Any]) -> str:
    """The closing line of a run that has ended."""
    if result["status"] == "diverged":
        return f"{config.net}: diverged at iteration {result['iteration']}; {folder}"
    paper = PAPER_TEST_ERROR.get(config.depth) if config.net == f"residual{config.depth}" else None
    comparison = f"the paper's: {paper:.2f}%" if paper else "the paper gives no number for this net"
    if paper and config.dataset != "cifar10":
        comparison += ", on CIFAR-10"
    elif paper and config.iterations != PAPER_ITERATIONS:
        comparison += f", after {PAPER_ITERATIONS} iterations"
    where = (
        f"{folder}" if config.dataset_info.iterations is None else f"beside the records: python analysis/compare.py {folder}"
    )
    return (
        f"{config.net}: final test error {result['test_error']:.2f}% after {config.iterations} iterations "
        f"({comparison}); {where}"
    )


def prepare(arguments: Sequence[str]) -> PreparedRun | Outcome:
    """The run that a command line asks for, its data loaded and its network built, or, where it has ended already, how.

    Writes nothing into the run's folder. The time limit counts from here.

    Raises:
        UserError: something the user can mend, as a damaged record of the run.
        OSError: the data cannot be read or written, or the run folder not be read.
    """
    began = time.monotonic()
    config, options = parse(arguments)
    folder = options.out / config.folder
    result = read_result(folder)
    if result is not None:
        read_record(folder, config)  # the whole of it: what is wrong with it is not to be found out by others
        told = format_outcome(config, folder, result)
        return Outcome(EXIT_STATUS[result["status"]], f"already ended, nothing to do: {told}")
    read_config(folder)  # before the data are; metrics may be mended by a checkpoint
    read_sessions(folder)

    # Only now what needs torch, the device first (see there).
    from reproduce import device as devices
    from reproduce.memory import check_memory, explain_out_of_memory
    from reproduce.model import build_network
    from reproduce.sampling import find_data_folder, load_data_cached

    device = devices.choose_device(options.device)
    flags = devices.set_numerics(device, config.precision, options.deterministic)
    check_memory(config, device)
    with explain_out_of_memory(config, device):
        data = load_data_cached(config, find_data_folder(config, options.data), device.torch_device)
        network = build_network(config)
        if options.initial is not None:
            from reproduce.weights import load_initial_weights

            data = load_initial_weights(options.initial, network, config, data)
    deadline = math.inf if options.time_limit is None else began + options.time_limit
    return PreparedRun(config, options, device, flags, data, network, deadline)


def describe_data(config: Config, data: "Data") -> dict[str, Any]:
    """What a session says of its data."""
    about = {"name": config.dataset, "sha256": data.fingerprint}
    if config.dataset == "pictures":
        about |= {"classes": config.classes.split("/"), "images": len(data.train), "test_images": len(data.test)}
    return about


def training_task(prepared: PreparedRun, requests: Sequence[int], concurrent: int = 0) -> "Task[Outcome]":
    """Trains until the run's end, its time limit or a request to stop; `concurrent` others are in training as it begins.

    requests: those to stop, as they come in (see stop.py).

    Raises:
        Locked: another process is training the run.
        OutOfMemory: it does not fit into the device's memory.
        UserError: something in its folder is in the way.
        OSError: the run folder cannot be read or written.
    """
    from reproduce import device as devices
    from reproduce import train
    from reproduce.interleave import on_own_stream
    from reproduce.memory import explain_out_of_memory

    config, options, device, data = prepared.config, prepared.options, prepared.device, prepared.data
    set_numerics = partial(devices.set_numerics, device, config.precision, options.deterministic)
    with open_run_folder(config, options.out) as folder, explain_out_of_memory(config, device):
        session = {"flags": prepared.flags, "data": describe_data(config, data), "beside": concurrent}
        add_session(folder, config, options, devices.describe_device(device) | session)
        devices.reset_peak_memory(device)
        training = train.train(config, options, data, device, folder, prepared.deadline, requests, prepared.network)
        ending = yield from on_own_stream(device, training, set_numerics)
        result = read_result(folder)
    if result is None:
        return Outcome(EXIT_STATUS[ending], f"stopped early with a checkpoint; the same command goes on from there; {folder}")
    return Outcome(EXIT_STATUS[ending], format_outcome(config, folder, result))


def train_prepared(prepared: PreparedRun) -> Outcome:
    """Trains with nothing beside it; SIGTERM, SIGINT and SIGHUP stop it with a checkpoint. Raises as `training_task`.

    A second SIGINT ends it at once, by KeyboardInterrupt, with the checkpoint before.
    """
    from reproduce.interleave import run_task

    with collect_stop_signals(STOPPING, insist=True) as requests:
        return run_task(training_task(prepared, requests))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns the exit status.

    Raises:
        UserError: something the user can mend.
        OSError: the data or the run folder cannot be read or written.
    """
    prepared = prepare(arguments)  # meanwhile a signal may end the process at once
    ended = prepared if isinstance(prepared, Outcome) else train_prepared(prepared)
    print_line(ended.message)
    return ended.status


def main(arguments: Sequence[str]) -> int:
    """`run`, with what goes wrong told in one sentence on stderr."""
    cli.shorten_warnings()
    return cli.run_cli(run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
