"""Trains runs on the devices of this machine, several concurrently on each."""

import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from experiments.engine.run_queue import RunQueue
from experiments.engine.worker import Worker, start_worker
from reproduce.config import Config, RunOptions
from reproduce.errors import UserError
from reproduce.progress import print_line
from reproduce.signals import collect_stop_signals

CONCURRENT_RUNS = {"cuda": 4}
"""Default number of concurrent runs per device if it is not 1. On an NVIDIA H200, four have 2 times the throughput of one and
90% of that of eight (docs/devices.md)."""
VISIBLE = {"npu": "ASCEND_RT_VISIBLE_DEVICES", "cuda": "CUDA_VISIBLE_DEVICES"}
"""Environment variables that select the devices a process sees."""
STOPPING = "stopping: each run writes a checkpoint first; press Ctrl-C again to kill the runs"
POLL = 0.1
"""Seconds between polls of the workers."""


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_concurrency(kind: str, runs: int) -> int:
    """Return the default number of concurrent runs on a device; on a CPU one per core, or per OMP_NUM_THREADS cores."""
    if kind != "cpu":
        return CONCURRENT_RUNS.get(kind, 1)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(runs, count_cores() // max(1, int(threads) if threads.isdecimal() else 1)))


def find_devices(names: Sequence[str]) -> list[str]:
    """Return ["cpu"], or device names with an index, such as cuda:0.

    A name without an index (cuda) means all devices of that kind, no name all devices of the kind that --device auto picks.

    Raises:
        UserError: a device is unusable.
    """
    if set(names) == {"cpu"}:
        return ["cpu"]
    from reproduce import device as devices  # imports torch

    found = []
    for name in names or [devices.choose_device("auto").kind]:
        kind, _, index = name.partition(":")
        device = devices.choose_device(kind)
        count = device.backend.device_count() if device.is_accelerator else 1
        if index and int(index) >= count:
            raise UserError(f"there is no device {name}: this machine has {count} of that kind")
        found += [name] if index or kind == "cpu" else [f"{kind}:{i}" for i in range(count)]
    return list(dict.fromkeys(found))


def build_worker_environment(device: str, slots: int) -> dict[str, str]:
    """Return the environment of a worker, in which only its device is visible.

    Indices are relative to the devices visible to this process.
    """
    kind, _, index = device.partition(":")
    environment = dict(os.environ)
    if kind in VISIBLE:
        visible = [entry for entry in os.environ.get(VISIBLE[kind], "").split(",") if entry]
        environment[VISIBLE[kind]] = visible[int(index)] if visible else index
    elif slots > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // slots)))
    return environment


@dataclass
class Place:
    """A device, or one slot of the CPU, and its worker process while there is one.

    slots: how many concurrent runs the worker may train.
    """

    device: str
    slots: int
    environment: dict[str, str]
    worker: Worker | None = None

    @property
    def runs(self) -> list[Config]:
        return [] if self.worker is None else list(self.worker.training.values())

    @property
    def free_slots(self) -> int:
        return 0 if self.worker is not None and self.worker.input.closed else self.slots - len(self.runs)


def list_places(slots: Mapping[str, int]) -> list[Place]:
    """Return where to train, from the number of concurrent runs per device."""
    places = []
    for device, count in slots.items():
        environment = build_worker_environment(device, count)
        # Interleaving in one process gains nothing on a CPU: there, each run has its own process and its share of the cores.
        processes, runs = (count, 1) if device == "cpu" else (1, count)
        places += [Place(device, runs, environment) for _ in range(processes)]
    return places


def collect_outcomes(places: Sequence[Place], queue: RunQueue, stopping: bool):
    """Record the runs that have ended, and remove the workers that have."""
    for place in places:
        if place.worker is not None:
            has_exited = place.worker.process.poll() is not None
            for outcome in place.worker.collect_outcomes():
                queue.record_outcome(*outcome, stopping)
            if has_exited:
                place.worker.close()
                place.worker = None


def start_runs(places: Sequence[Place], queue: RunQueue, options: RunOptions, deadline: float):
    """Start runs until no slot is free or no run is left."""
    while True:
        place = max(places, key=lambda place: place.free_slots)  # spreads runs over the devices before two share one
        config = queue.take_run() if place.free_slots else None
        if config is None:
            return
        if place.worker is None:
            place.worker = start_worker(place.environment)
        remaining = None if deadline == math.inf else max(0.1, round(deadline - time.monotonic(), 1))
        place.worker.start_run(config, replace(options, device=place.device.partition(":")[0], time_limit=remaining))
        print_line(f"{config.folder}: started on {place.device}")


def train_locally(queue: RunQueue, options: RunOptions, slots: Mapping[str, int], deadline: float):
    """Train the pending runs until none is left or a signal or the deadline stops the sweep.

    slots: concurrent runs per device. deadline: a time.monotonic() value. A stop lets each run write a checkpoint; a
    second SIGINT kills the workers.
    """
    places = list_places(slots)

    def wait():
        queue.update_bar([run for place in places for run in place.runs])
        time.sleep(POLL)

    with collect_stop_signals(STOPPING) as received:
        while not (stopping := bool(received) or time.monotonic() >= deadline):
            collect_outcomes(places, queue, stopping=False)
            start_runs(places, queue, options, deadline)
            # A worker that takes no more runs is about to exit; then its place is free again.
            if all(place.free_slots == place.slots for place in places):
                break
            wait()
        for place in places:
            if place.worker is not None:
                place.worker.close_input()
                if stopping:
                    place.worker.process.terminate()
        while workers := [place.worker for place in places if place.worker is not None]:
            if received.count(signal.SIGINT) > 1:
                for worker in workers:
                    worker.process.kill()
            collect_outcomes(places, queue, stopping)
            wait()
