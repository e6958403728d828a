"""Trains runs on a Ray cluster: one task per run.

All nodes must share the run folders and the data (unless synthetic) under the same path and have this repository installed.
If a node or a worker dies, Ray restarts the task elsewhere and the run resumes from its checkpoint.
"""

import logging
import math
import os
import shlex
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from experiments.engine.local_engine import STOPPING
from experiments.engine.run_queue import RunQueue
from reproduce.config import Config, RunOptions, format_flags
from reproduce.errors import STOPPED, UserError
from reproduce.progress import print_line
from reproduce.signals import collect_stop_signals

RESOURCES = {"npu": "NPU", "cuda": "GPU", "cpu": "CPU"}
"""Ray's names of the devices, in the order of preference."""
POLL = 0.5
"""Seconds between polls of the tasks."""
RETRIES = 10
"""Maximum number of restarts of a run whose node or worker dies."""


def connect_to_cluster() -> Any:
    """Return Ray, connected to the cluster at RAY_ADDRESS or else to the one this machine belongs to.

    Raises:
        UserError: Ray is not installed, or there is no cluster.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install ray") from None
    try:
        if port.isdigit() and "://" not in host:
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would try for minutes
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError):  # ValueError: RAY_ADDRESS is malformed
        where = f"at {address} (RAY_ADDRESS)" if address else "here: run ray start --head, or set RAY_ADDRESS"
        raise UserError(f"there is no Ray cluster {where}") from None
    return ray


def choose_kind(names: Sequence[str], resources: dict[str, float]) -> str:
    """Return the kind of device to train on: the one named, or the first of npu, cuda, cpu that the cluster has.

    Raises:
        UserError: the names are not one kind, or the cluster has no such device.
    """
    available = [kind for kind, resource in RESOURCES.items() if resources.get(resource)]
    if not names and available:
        return available[0]
    kind = names[0] if names else "cpu"
    if len(names) > 1 or kind not in RESOURCES:
        raise UserError(f"on a cluster, --devices takes one of {', '.join(sorted(RESOURCES))}: Ray chooses the devices")
    if kind not in available:
        raise UserError(f"the Ray cluster has no {RESOURCES[kind]}: check ray status")
    return kind


def train_run(config: Config, options: RunOptions, until: float | None, folder: str) -> tuple[int, str]:
    """Train one run in a Ray task and return its exit status and message.

    until: when to stop, a time.time() value. folder: the working directory.
    """
    from reproduce.interleave import run_task  # imports torch
    from reproduce.train_many import train_line

    os.chdir(folder)
    remaining = None if until is None else max(0.1, round(until - time.time(), 1))
    # Ray cancels with SIGINT, which a cluster started in the background of a shell inherits as ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with collect_stop_signals() as stop_signals:
        line = shlex.join(format_flags(config, replace(options, time_limit=remaining)))
        return run_task(train_line(line, stop_signals, concurrent=0))


def train_on_cluster(queue: RunQueue, options: RunOptions, names: Sequence[str], per_device: int, deadline: float):
    """Train the pending runs until none is left or a signal or the deadline stops the sweep (see `train_locally`).

    Raises:
        UserError: Ray, the cluster or the device is missing.
    """
    ray = connect_to_cluster()
    try:
        kind = choose_kind(names, ray.cluster_resources())
        resource, share = RESOURCES[kind], 1 / per_device
        amount = {"CPU": {"num_cpus": share}, "GPU": {"num_gpus": share}}.get(resource, {"resources": {resource: share}})
        # A new process for each run, because a process keeps the device that it first used.
        task = ray.remote(max_calls=1, max_retries=RETRIES, **amount)(train_run)
        until = None if deadline == math.inf else time.time() + deadline - time.monotonic()
        training: dict[Any, Config] = {}
        with collect_stop_signals(STOPPING) as received:
            while True:
                stopping = bool(received) or time.monotonic() >= deadline
                # Submit no more tasks than fit, so that the queue determines the order.
                slots = max(1, int(ray.cluster_resources().get(resource, 0) * per_device))
                while len(training) < slots and not stopping and (config := queue.take_run()):
                    reference = task.remote(config, replace(options, device=kind), until, os.getcwd())
                    training[reference] = config
                    print_line(f"{config.folder}: submitted")
                if not training:
                    return
                for reference in training if stopping else ():  # again and again, because Ray's cancel is best-effort
                    ray.cancel(reference, force=received.count(signal.SIGINT) > 1)
                time.sleep(POLL)
                for reference in ray.wait(list(training), num_returns=len(training), timeout=0)[0]:
                    queue.record_outcome(training.pop(reference), *fetch_outcome(ray, reference), stopping)
                queue.update_bar(list(training.values()))
    finally:
        ray.shutdown()


def fetch_outcome(ray: Any, reference: Any) -> tuple[int, str]:
    """Return the exit status and message of a task that has ended."""
    try:
        return ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return STOPPED, "cancelled"
    except ray.exceptions.WorkerCrashedError as error:  # also after ray.cancel(force=True)
        return -signal.SIGKILL, str(error)
    except ray.exceptions.RayError as error:
        return 1, str(error)
