"""Trains runs on the devices of this machine, on each of them some at the same time."""

import math
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.engine.concurrency import THROUGHPUT, choose_accelerator_concurrency, choose_cpu_concurrency, count_cores
from experiments.engine.run_queue import RunQueue
from experiments.engine.worker import IN_ORDER, Worker, start_worker
from reproduce.config import Config, RunOptions
from reproduce.errors import UserError
from reproduce.progress import print_line
from reproduce.signals import collect_stop_signals

VISIBLE = {"npu": "ASCEND_RT_VISIBLE_DEVICES", "cuda": "CUDA_VISIBLE_DEVICES"}
POLL = 0.1
"""Seconds between two looks at the workers."""


def check_names(names: Sequence[str]):
    """Refuses what cannot name devices; does not look whether they are there.

    Raises:
        UserError: a name that is not cpu, cuda, npu, cuda:<index> or npu:<index>, or that comes twice.
    """
    for name in names:
        if not re.fullmatch(r"cpu|(cuda|npu)(:\d+)?", name):
            raise UserError(f"devices are named cpu, cuda:0, npu:0 and so on, not {name!r}")
    if len(set(names)) < len(names):
        raise UserError("a device is named twice: --per-device is the number of runs side by side on one device")


def find_devices(names: Sequence[str]) -> list[str]:
    """The devices named, a kind alone meaning all of it; with no name, all of the kind that `--device auto` would take.

    Returns: names with an index, or cpu.

    Raises:
        UserError: one of them is not usable.
    """
    if set(names) == {"cpu"}:
        return ["cpu"]
    from reproduce import device as devices  # imports torch

    found = []
    for name in names or [devices.choose_device("auto").kind]:
        kind, _, index = name.partition(":")
        devices.choose_device(kind)
        count = 1 if kind == "cpu" else devices.DEVICES[kind].backend.device_count()
        if index and int(index) >= count:
            raise UserError(f"there is no device {name}: of that kind, this machine has {count}")
        found += [name] if index or kind == "cpu" else [f"{kind}:{i}" for i in range(count)]
    return list(dict.fromkeys(found))


def choose_concurrency(devices: Sequence[str], runs: Sequence[Config]) -> dict[str, int]:
    """For each device the number of these runs that are to be trained on it at the same time; says which and why.

    Raises:
        UserError: a record of experiments/devices/throughput.py cannot be read.
    """
    lanes = {}
    for device in devices:
        kind, _, index = device.partition(":")
        if kind == "cpu":
            lanes[device], reason = choose_cpu_concurrency(len(runs))
        else:
            from reproduce.device import DEVICES

            name = DEVICES[kind].backend.get_device_name(int(index))
            lanes[device], reason = choose_accelerator_concurrency(name, {config.precision for config in runs}, THROUGHPUT)
        side_by_side = "run at a time" if lanes[device] == 1 else "runs at the same time"
        print_line(f"{lanes[device]} {side_by_side} on {device} ({reason}); --per-device sets another number")
    return lanes


def make_environment(device: str, lanes: int) -> dict[str, str]:
    """The environment of a worker, which sees its own device only. An index counts what this process itself may see."""
    kind, _, index = device.partition(":")
    environment = dict(os.environ)
    if kind in VISIBLE:
        visible = [entry for entry in os.environ.get(VISIBLE[kind], "").split(",") if entry]
        environment[VISIBLE[kind]] = visible[int(index)] if visible else index
    elif lanes > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // lanes)))
    return environment


def list_places(lanes: Mapping[str, int]) -> list[tuple[str, int]]:
    """The device of each worker that there may be, and how many runs it may have in training."""
    places = []
    for device, count in lanes.items():
        # On a CPU, runs that take turns in one process gain nothing: there each has a process, and its share of the cores.
        places += [(device, 1)] * count if device == "cpu" else [(device, count)]
    return places


def note_endings(workers: dict[int, Worker], backlog: RunQueue, stopping: bool):
    """Tells the backlog of the runs that have ended, and lets go of the workers that have."""
    for place, worker in list(workers.items()):
        status = worker.process.poll()  # before its output is read, which then is complete
        for ended in worker.collect_endings():
            backlog.note_end(*ended, stopping)
        if status is not None:
            # A worker that somebody else has stopped ends in order, maybe just before it was sent another run.
            in_order = status in IN_ORDER
            for config in worker.training.values():
                backlog.note_end(config, 75 if in_order else status, worker.read_tail(), stopping)
            workers.pop(place).close()


def train_locally(backlog: RunQueue, options: RunOptions, lanes: Mapping[str, int], deadline: float):
    """Trains the backlog until nothing is left of it, or until something asks to stop.

    lanes: of each device, how many runs may be in training on it at the same time.
    deadline: of time.monotonic; by then, or when a signal asks to stop, workers stop with a checkpoint. A second SIGINT kills.
    """
    places = list_places(lanes)
    workers: dict[int, Worker] = {}
    told: set[int] = set()

    def room(place: int) -> int:
        return workers[place].free if place in workers else places[place][1]

    with collect_stop_signals("stopping: each run writes a checkpoint first; Ctrl-C again kills them") as received:
        while True:
            stopping = bool(received) or time.monotonic() >= deadline
            note_endings(workers, backlog, stopping)
            # Runs spread over the devices before they share one.
            while not stopping and room(place := max(range(len(places)), key=room)) and (config := backlog.take_run()):
                device, count = places[place]
                if place not in workers:
                    workers[place] = start_worker(make_environment(device, lanes[device]), device, count, Path())
                remaining = None if deadline == math.inf else max(0.1, round(deadline - time.monotonic(), 1))
                workers[place].begin_run(config, replace(options, device=device.partition(":")[0], time_limit=remaining))
                backlog.display.tell_event(f"{config.folder}: started on {device}")
            active = [(config, worker.where) for worker in workers.values() for config in worker.training.values()]
            everywhere = all(room(place) for place in range(len(places)))  # else a dismissed worker is about to end
            if not active and (stopping or (everywhere and not backlog.is_worth_waiting())):
                break
            for worker in workers.values():
                if received.count(signal.SIGINT) > 1:
                    worker.process.kill()
                elif stopping and worker.process.pid not in told:
                    worker.process.terminate()
                    told.add(worker.process.pid)
            backlog.display.draw_table(backlog.list_runs, active, backlog.out)
            time.sleep(POLL)
    for worker in workers.values():
        worker.dismiss()
    for worker in workers.values():
        worker.process.wait()
        worker.close()
