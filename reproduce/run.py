"""Train one network of He et al. 2015, section 4.2, on CIFAR-10.

    python reproduce/run.py --depth 44 --residual

leaves a run folder below --out. The same command again goes on where an interrupted run stopped, and says so of a
finished one. Exit status: 0 finished, 2 wrong use, 3 training diverged, 75 stopped early with a checkpoint.
"""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from reproduce import command
from reproduce.config import PAPER_ITERATIONS, PAPER_TEST_ERROR, Config, Machine
from reproduce.record import add_session, open_folder, read_result
from reproduce.stop import stop_requests

if TYPE_CHECKING:
    from reproduce.turns import Turns

EXIT_STATUS = {"finished": 0, "diverged": 3, "stopped": 75}


def parse(arguments: Sequence[str]) -> tuple[Config, Machine]:
    """The command line's config and machine.

    Raises:
        UserError: a flag or value is wrong.
    """

    def both(config: Config, machine: Machine) -> tuple[Config, Machine]:
        return config, machine

    config, machine = command.parse(both, arguments, "run.py", __doc__, tyro.conf.OmitArgPrefixes)
    if machine.data == "synthetic":
        config = replace(config, dataset="synthetic")
    return config, machine


def describe_ending(config: Config, folder: Path, result: dict[str, Any]) -> str:
    """The closing line of a run that has ended."""
    if result["status"] == "diverged":
        return f"{config.net}: diverged at iteration {result['iteration']}; {folder}"
    paper = PAPER_TEST_ERROR.get(config.depth) if config.residual else None
    comparison = f"the paper's: {paper:.2f}%" if paper else "the paper gives no number for this net"
    if config.dataset != "cifar10":
        comparison += ", on CIFAR-10"
    elif config.iterations != PAPER_ITERATIONS:
        comparison += f", after {PAPER_ITERATIONS} iterations"
    return (
        f"{config.net}: final test error {result['test_error']:.2f}% after {config.iterations} iterations "
        f"({comparison}); {folder}"
    )


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns the exit status.

    Raises:
        UserError: something the user can mend.
        OSError: the data or the run folder cannot be read or written.
    """
    requests: list[int] = []
    training = run_in_turns(arguments, requests)
    try:
        next(training)  # reads the data, at which a signal may still end the process at once
    except StopIteration as end:
        status, sentence = end.value
    else:
        from reproduce.turns import complete

        with stop_requests(requests):
            status, sentence = complete(training)
    print(sentence)
    return status


def run_in_turns(arguments: Sequence[str], requests: Sequence[int], beside: int = 0) -> "Turns[tuple[int, str]]":
    """The run that a command line asks for, while `beside` others are in training as it begins.

    requests: those to stop, as they come in (see stop.py).

    Returns: exit status, and the sentence that tells the ending.

    Raises:
        UserError: something the user can mend.
        OSError: the data or the run folder cannot be read or written.
    """
    began = time.monotonic()
    config, machine = parse(arguments)
    folder = machine.out / config.folder
    result = read_result(folder)
    if result is not None:
        return EXIT_STATUS[result["status"]], f"already ended, nothing to do: {describe_ending(config, folder, result)}"

    # Only now what needs torch, the device first (see there).
    from reproduce import device as devices
    from reproduce import train
    from reproduce.data import choose_folder, load_once
    from reproduce.turns import on_own_stream

    device = devices.choose_device(machine.device)
    set_numerics = partial(devices.set_numerics, device, config.precision, machine.deterministic)
    flags = set_numerics()
    data = load_once(config, choose_folder(config, machine.data), device.torch_device)
    yield
    with open_folder(config, machine.out) as folder:
        session = {"flags": flags, "data": {"name": config.dataset, "sha256": data.fingerprint}, "beside": beside}
        add_session(folder, config, machine, devices.describe_device(device) | session)
        deadline = math.inf if machine.time_limit is None else began + machine.time_limit
        devices.reset_peak_memory(device)
        training = train.train(config, machine, data, device, folder, deadline, requests)
        ending = yield from on_own_stream(device, training, set_numerics)
        result = read_result(folder)
    if result is None:
        return EXIT_STATUS[ending], f"stopped early with a checkpoint; the same command goes on from there; {folder}"
    return EXIT_STATUS[ending], describe_ending(config, folder, result)


def main(arguments: Sequence[str]) -> int:
    """`run`, with what goes wrong told in one sentence on stderr."""
    command.shorten_warnings()
    return command.tell(run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
