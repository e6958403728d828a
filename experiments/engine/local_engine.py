"""Trains runs on the devices of this machine, several concurrently on each."""

import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.engine.run_queue import RunQueue
from experiments.engine.worker import Worker, start_worker
from reproduce.config import RunOptions
from reproduce.errors import UserError
from reproduce.signals import collect_stop_signals

CONCURRENT_RUNS = {"cuda": 4, "npu": 1}
"""Default number of concurrent runs per device. On an NVIDIA H200, four have 2 times the throughput of one and 90% of that of
eight (docs/devices.md); not measured on an NPU."""
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
        devices.choose_device(kind)
        count = 1 if kind == "cpu" else devices.DEVICES[kind].backend.device_count()
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


def train_locally(queue: RunQueue, options: RunOptions, slots: Mapping[str, int], deadline: float):
    """Train the pending runs until none is left or a signal or the deadline stops the sweep.

    slots: concurrent runs per device. deadline: a time.monotonic() value. A stop lets each run write a checkpoint; a
    second SIGINT kills the workers.
    """
    worker_specs: list[tuple[str, int]] = []  # device and number of slots of each worker
    for device, count in slots.items():
        # Interleaving in one process gains nothing on a CPU: there, each run has its own process and its share of the cores.
        worker_specs += [(device, 1)] * count if device == "cpu" else [(device, count)]
    workers: dict[int, Worker] = {}
    terminated: set[int] = set()

    def free_slots(number: int) -> int:
        return workers[number].free_slots if number in workers else worker_specs[number][1]

    with collect_stop_signals(STOPPING) as received:
        while True:
            stopping = bool(received) or time.monotonic() >= deadline
            for number, worker in list(workers.items()):
                ended = worker.process.poll() is not None
                for outcome in worker.collect_outcomes():
                    queue.record_outcome(*outcome, stopping)
                if ended:
                    workers.pop(number).close()
            while not stopping:
                number = max(range(len(worker_specs)), key=free_slots)  # spreads runs over the devices before two share one
                config = queue.take_run() if free_slots(number) else None
                if config is None:
                    break
                device, count = worker_specs[number]
                if number not in workers:
                    workers[number] = start_worker(build_worker_environment(device, slots[device]), device, count, Path())
                remaining = None if deadline == math.inf else max(0.1, round(deadline - time.monotonic(), 1))
                workers[number].start_run(config, replace(options, device=device.partition(":")[0], time_limit=remaining))
                queue.dashboard.print_event(f"{config.folder}: started on {device}")
            active = [(config, worker.device) for worker in workers.values() for config in worker.training.values()]
            # Without active runs, a worker without free slots is about to exit; then a new worker can take a run.
            if not active and (stopping or all(map(free_slots, range(len(worker_specs))))):
                break
            for worker in workers.values():
                if received.count(signal.SIGINT) > 1:
                    worker.process.kill()
                elif stopping and worker.process.pid not in terminated:
                    worker.process.terminate()
                    terminated.add(worker.process.pid)
            queue.dashboard.update_table(queue.runs, active, queue.out)
            time.sleep(POLL)
    for worker in workers.values():
        worker.close_input()
    for worker in workers.values():
        worker.process.wait()
        worker.close()
