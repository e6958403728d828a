"""Train one network of He et al. 2015, section 4.2, on CIFAR-10.

    python reproduce/run.py --depth 44 --residual

leaves a run folder below --out. The same command again goes on where an interrupted run stopped, and says so of a
finished one. Exit status: 0 finished, 2 wrong use, 3 training diverged, 75 stopped early with a checkpoint.
"""

try:
    from reproduce import command  # before all else: from here on, Ctrl-C and a missing package are one line
except ModuleNotFoundError as missing:
    raise SystemExit(f"error: {missing.name} is not installed: pip install -r requirements.txt") from None

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tyro

from reproduce.card import find_sha256
from reproduce.config import PAPER_ITERATIONS, PAPER_TEST_ERROR, Config, Machine, UserError
from reproduce.pictures import name_data
from reproduce.progress import say
from reproduce.record import BEST, add_session, open_folder, read_config, read_record, read_result, read_sessions
from reproduce.stop import stop_requests

if TYPE_CHECKING:
    from torch import nn

    from reproduce.data import Data
    from reproduce.device import Device
    from reproduce.turns import Turns

EXIT_STATUS = {"finished": 0, "diverged": 3, "stopped": 75}
STOPPING = "stopping with a checkpoint, in a few seconds or after the evaluation in progress; Ctrl-C again ends at once"


class Ended(NamedTuple):
    """The exit status of a run, and the sentence that tells how it has ended."""

    status: int
    sentence: str


@dataclass(frozen=True)
class Prepared:
    """A run that only has to be trained.

    flags: of numerics, as they were set; data: on the device; network: as it begins; deadline: of time.monotonic.
    """

    config: Config
    machine: Machine
    device: "Device"
    flags: dict[str, Any]
    data: "Data"
    network: "nn.Module"
    deadline: float


def parse(arguments: Sequence[str]) -> tuple[Config, Machine]:
    """The command line's config and machine.

    Raises:
        UserError: a flag or value is wrong.
    """

    def both(config: Config, machine: Machine) -> tuple[Config, Machine]:
        return config, machine

    config, machine = command.parse(both, arguments, "run.py", __doc__, tyro.conf.OmitArgPrefixes)
    initial = {} if machine.initial is None else {"initial": identify_initial(machine.initial)}
    if config.trainable != "all" and not initial:
        raise UserError(f"--trainable {config.trainable} keeps layers as they begin: name the file they come from by --initial")
    return replace(config, **name_data(machine.data), **initial), machine


def identify_initial(path: Path) -> str:
    """The SHA-256 of the file that `--initial` names.

    Raises:
        UserError: there is none, or it is a checkpoint of a run, whose scale only its data set knows.
    """
    if not path.is_file() or (path.name == BEST and read_config(path.parent) is not None):
        raise UserError(f"--initial {path} is not a file of weights: export.py makes one of a finished run")
    return find_sha256(path)


def describe_ending(config: Config, folder: Path, result: dict[str, Any]) -> str:
    """The closing line of a run that has ended."""
    if result["status"] == "diverged":
        return f"{config.net}: diverged at iteration {result['iteration']}; {folder}"
    paper = PAPER_TEST_ERROR.get(config.depth) if config.net == f"residual{config.depth}" else None
    comparison = f"the paper's: {paper:.2f}%" if paper else "the paper gives no number for this net"
    if paper and config.dataset != "cifar10":
        comparison += ", on CIFAR-10"
    elif paper and config.iterations != PAPER_ITERATIONS:
        comparison += f", after {PAPER_ITERATIONS} iterations"
    where = f"{folder}" if config.data_set.iterations is None else f"beside the records: python analysis/compare.py {folder}"
    return (
        f"{config.net}: final test error {result['test_error']:.2f}% after {config.iterations} iterations "
        f"({comparison}); {where}"
    )


def prepare(arguments: Sequence[str]) -> Prepared | Ended:
    """The run that a command line asks for, its data loaded and its network built, or, where it has ended already, how.

    Writes nothing into the run's folder. The time limit counts from here.

    Raises:
        UserError: something the user can mend, as a damaged record of the run.
        OSError: the data cannot be read or written, or the run folder not be read.
    """
    began = time.monotonic()
    config, machine = parse(arguments)
    folder = machine.out / config.folder
    result = read_result(folder)
    if result is not None:
        read_record(folder, config)  # the whole of it: what is wrong with it is not to be found out by others
        told = describe_ending(config, folder, result)
        return Ended(EXIT_STATUS[result["status"]], f"already ended, nothing to do: {told}")
    read_config(folder)  # before the data are; metrics may be mended by a checkpoint
    read_sessions(folder)

    # Only now what needs torch, the device first (see there).
    from reproduce import device as devices
    from reproduce.data import choose_folder, load_once
    from reproduce.memory import check_memory, tell_shortage
    from reproduce.model import build_network

    device = devices.choose_device(machine.device)
    flags = devices.set_numerics(device, config.precision, machine.deterministic)
    check_memory(config, device)
    with tell_shortage(config, device):
        data = load_once(config, choose_folder(config, machine.data), device.torch_device)
        network = build_network(config)
        if machine.initial is not None:
            from reproduce.weights import begin_with

            data = begin_with(machine.initial, network, config, data)
    deadline = math.inf if machine.time_limit is None else began + machine.time_limit
    return Prepared(config, machine, device, flags, data, network, deadline)


def describe_data(config: Config, data: "Data") -> dict[str, Any]:
    """What a session says of its data."""
    about = {"name": config.dataset, "sha256": data.fingerprint}
    if config.dataset == "pictures":
        about |= {"classes": config.classes.split("/"), "images": len(data.train), "test_images": len(data.test)}
    return about


def train_in_turns(prepared: Prepared, requests: Sequence[int], beside: int = 0) -> "Turns[Ended]":
    """Trains until the run's end, its time limit or a request to stop; `beside` others are in training as it begins.

    requests: those to stop, as they come in (see stop.py).

    Raises:
        Locked: another process is training the run.
        OutOfMemory: it does not fit into the device's memory.
        UserError: something in its folder is in the way.
        OSError: the run folder cannot be read or written.
    """
    from reproduce import device as devices
    from reproduce import train
    from reproduce.memory import tell_shortage
    from reproduce.turns import on_own_stream

    config, machine, device, data = prepared.config, prepared.machine, prepared.device, prepared.data
    set_numerics = partial(devices.set_numerics, device, config.precision, machine.deterministic)
    with open_folder(config, machine.out) as folder, tell_shortage(config, device):
        session = {"flags": prepared.flags, "data": describe_data(config, data), "beside": beside}
        add_session(folder, config, machine, devices.describe_device(device) | session)
        devices.reset_peak_memory(device)
        training = train.train(config, machine, data, device, folder, prepared.deadline, requests, prepared.network)
        ending = yield from on_own_stream(device, training, set_numerics)
        result = read_result(folder)
    if result is None:
        return Ended(EXIT_STATUS[ending], f"stopped early with a checkpoint; the same command goes on from there; {folder}")
    return Ended(EXIT_STATUS[ending], describe_ending(config, folder, result))


def train_alone(prepared: Prepared) -> Ended:
    """Trains with nothing beside it; SIGTERM, SIGINT and SIGHUP stop it with a checkpoint. Raises as `train_in_turns`.

    A second SIGINT ends it at once, by KeyboardInterrupt, with the checkpoint before.
    """
    from reproduce.turns import complete

    with stop_requests(STOPPING, insist=True) as requests:
        return complete(train_in_turns(prepared, requests))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns the exit status.

    Raises:
        UserError: something the user can mend.
        OSError: the data or the run folder cannot be read or written.
    """
    prepared = prepare(arguments)  # meanwhile a signal may end the process at once
    ended = prepared if isinstance(prepared, Ended) else train_alone(prepared)
    say(ended.sentence)
    return ended.status


def main(arguments: Sequence[str]) -> int:
    """`run`, with what goes wrong told in one sentence on stderr."""
    command.shorten_warnings()
    return command.tell(run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
