"""Trains runs on a Ray cluster: one task per run, whose worker starts the same process as a local sweep does.

The run folders, and the data unless it is synthetic, have to be on storage that all nodes share under the same path,
and this repository installed on all of them. A task whose node or worker dies is started again elsewhere, and its run
goes on from its checkpoint.
"""

import contextlib
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.engine.progress import judge_ending
from experiments.engine.run_queue import LOCK_INTERVAL, RunQueue
from experiments.engine.worker import start_worker
from reproduce.config import Config, RunOptions
from reproduce.errors import UserError
from reproduce.signals import collect_stop_signals

RESOURCES = {"npu": "NPU", "cuda": "GPU", "cpu": "CPU"}
"""Ray's names for what a task occupies."""
POLL = 0.5
"""Seconds between two looks at the tasks."""
CANCEL_INTERVAL = 5.0
"""Seconds after which a task that has not ended is asked again to stop: Ray promises no more than an attempt."""
RETRIES = 10
"""Deaths of its node or worker that a run survives within one sweep."""


def connect_to_cluster() -> Any:
    """Ray, connected to the cluster of RAY_ADDRESS, or else to the one this machine is a node of.

    Raises:
        UserError: Ray is not installed, or there is no cluster.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("--engine ray needs Ray, which is not installed: pip install ray") from None
    try:
        if port.isdigit() and "://" not in host:
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would try for minutes
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except OSError:
        where = f"at {address}, which RAY_ADDRESS names" if address else "here: run ray start --head, or set RAY_ADDRESS"
        raise UserError(f"there is no Ray cluster {where}") from None
    return ray


def choose_kind(names: Sequence[str], resources: dict[str, float]) -> str:
    """The kind of device that the tasks occupy: the one named, or the first of npu, cuda, cpu that the cluster has.

    Raises:
        UserError: several kinds or a single device named, or a kind that the cluster does not have.
    """
    kinds = list(names) or [kind for kind, resource in RESOURCES.items() if resources.get(resource)][:1] or ["cpu"]
    if len(kinds) > 1 or kinds[0] not in RESOURCES:
        raise UserError("on a cluster, --devices takes one of cpu, cuda, npu: which ones of it is Ray's to choose")
    if not resources.get(RESOURCES[kinds[0]]):
        raise UserError(f"the Ray cluster has no {RESOURCES[kinds[0]]}: look at ray status")
    return kinds[0]


def train_run(config: Config, options: RunOptions, until: float | None, folder: str) -> tuple[int, str]:
    """Trains one run in a Ray worker, with its working folder as given; until: of time.time.

    Returns: exit status and last lines of the output.
    """
    # Ray cancels by SIGINT, which a cluster that was started in the background of a shell inherits as ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        remaining = None if until is None else max(0.1, round(until - time.time(), 1))
        worker = start_worker(dict(os.environ), "cluster", 1, Path(folder))
        worker.begin_run(config, replace(options, time_limit=remaining))
        worker.dismiss()
        try:
            while (status := worker.process.poll()) is None:
                time.sleep(POLL)  # and not wait(): Ray's cancelling is an exception that needs Python to be running
        except BaseException:
            worker.process.terminate()
            while worker.process.poll() is None:
                with contextlib.suppress(KeyboardInterrupt):  # what Ray raises, once more when it is asked once more
                    time.sleep(POLL)
            raise
        ended = worker.collect_endings()
        status, tail = ended[0][1:] if ended else (status, worker.read_tail())
        worker.close()
        # Of a worker that died, the process may still be writing its last checkpoint.
        if judge_ending(config, Path(folder) / options.out, status, stopping=False) != "locked":
            return status, tail
        time.sleep(LOCK_INTERVAL)


def train_on_cluster(backlog: RunQueue, options: RunOptions, names: Sequence[str], per_device: int, deadline: float):
    """Trains the backlog until nothing is left of it, or until something asks to stop (see `train_here`).

    Raises:
        UserError: there is no Ray, no cluster, or not the devices named.
    """
    ray = connect_to_cluster()
    try:
        kind = choose_kind(names, ray.cluster_resources())
        share = 1 / per_device
        amount = {"cpu": {"num_cpus": share}, "cuda": {"num_gpus": share}, "npu": {"resources": {"NPU": share}}}[kind]
        task = ray.remote(train_run).options(max_retries=RETRIES, **amount)
        until = None if deadline == math.inf else time.time() + deadline - time.monotonic()
        training: dict[Any, Config] = {}
        cancel_at = 0.0
        with collect_stop_signals("stopping: each run writes a checkpoint first; Ctrl-C again kills them") as received:
            while True:
                stopping = bool(received) or time.monotonic() >= deadline
                # No more tasks than the cluster has room for, so that the order stays the backlog's.
                room = max(1, int(ray.cluster_resources().get(RESOURCES[kind], 0) * per_device))
                while len(training) < room and not stopping and (config := backlog.take_run()):
                    reference = task.remote(config, replace(options, device=kind), until, os.getcwd())
                    training[reference] = config
                    backlog.display.tell_event(f"{config.folder}: submitted")
                if not training and (stopping or not backlog.is_worth_waiting()):
                    return
                if stopping and time.monotonic() >= cancel_at:
                    cancel_at = time.monotonic() + CANCEL_INTERVAL
                    for reference in training:
                        ray.cancel(reference, force=received.count(signal.SIGINT) > 1)
                time.sleep(POLL)
                for reference in ray.wait(list(training), num_returns=len(training), timeout=0)[0] if training else []:
                    backlog.note_end(training.pop(reference), *fetch_ending(ray, reference), stopping)
                active = [(config, "cluster") for config in training.values()]
                backlog.display.draw_table(backlog.list_runs, active, backlog.out)
    finally:
        ray.shutdown()


def fetch_ending(ray: Any, reference: Any) -> tuple[int, str]:
    """What a task that has ended returned, or in its place what became of it."""
    try:
        return ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return 75, ""
    except ray.exceptions.RayError as error:
        return 1, str(error)
