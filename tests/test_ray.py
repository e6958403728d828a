"""Sweeps on a Ray cluster of two nodes on this machine."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from experiments import sweep
from experiments.engine import ray_engine
from experiments.engine.run_queue import is_locked
from reproduce import record
from reproduce.errors import UserError
from tests.conftest import wait_until
from tests.test_sweep import ROOT, start_sweep

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402  # pyright: ignore[reportMissingImports]

FLAGS = ["--engine", "ray", "--seeds", "1", "--data", "synthetic", "--out", "records"]


@pytest.fixture
def cluster(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head has no CPUs, in RAY_ADDRESS, and a working folder with the synthetic dataset.

    It ignores SIGINT, like processes in the background of a shell script, and notices quickly that a node is gone.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    health = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": health})
    monkeypatch.setenv("RAY_ADDRESS", str(cluster.address))
    try:
        yield cluster
    finally:
        signal.signal(signal.SIGINT, handler)
        cluster.shutdown()


@contextlib.contextmanager
def start_ray_sweep(*flags: str) -> Iterator[subprocess.Popen]:
    with start_sweep("degradation", *FLAGS, *flags) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(name: str, count: int):
    """Wait until `count` runs have a file of this name."""
    wait_until(lambda: len(list(Path("records").glob(f"*/seed0/{name}"))) == count)
    assert not list(Path("records").glob("*/seed0/result.json"))


def test_a_sweep_survives_the_death_of_a_node(cluster):
    first, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    with start_ray_sweep("--iterations", "200", "--checkpoint-every", "20") as process:
        wait_for("checkpoint.pt", 2)  # one run on each node
        cluster.remove_node(first, allow_graceful=False)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert "2 of 2 runs finished, 0 diverged, 0 failed, 0 left" in printed
    folders = list(Path("records").glob("*/seed0"))
    assert [record.read_metrics(folder)[-1].iteration for folder in folders] == [200, 200]
    sessions = sorted(len(json.loads((folder / "environment.json").read_text())) for folder in folders)
    assert sessions == [1, 2], "the run on the dead node was resumed"


def test_a_stopped_sweep_leaves_checkpoints(cluster):
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    with start_ray_sweep("--iterations", "100000", "--eval-every", "10", "--checkpoint-every", "100000") as process:
        wait_for("metrics.jsonl", 1)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 75, printed
    assert "0 of 2 runs finished, 0 diverged, 0 failed, 2 left; the same command resumes" in printed
    (checkpoint,) = Path("records").glob("*/seed0/checkpoint.pt")  # the other run was still pending
    assert not is_locked(checkpoint.parent)


def test_the_kind_of_device():
    assert ray_engine.choose_kind([], {"CPU": 8, "GPU": 2}) == "cuda"
    assert ray_engine.choose_kind([], {"CPU": 8, "NPU": 8}) == "npu"
    assert ray_engine.choose_kind(["cpu"], {"CPU": 8, "NPU": 8}) == "cpu"
    with pytest.raises(UserError, match="has no GPU"):
        ray_engine.choose_kind(["cuda"], {"CPU": 8})
    with pytest.raises(UserError, match="one of cpu, cuda, npu"):
        ray_engine.choose_kind(["cuda:0"], {"CPU": 8, "GPU": 2})


def test_a_killed_worker_has_a_negative_status():
    crashed = Mock(exceptions=ray.exceptions, get=Mock(side_effect=ray.exceptions.WorkerCrashedError()))
    assert ray_engine.fetch_outcome(crashed, None)[0] < 0, "so that a stopping sweep does not report a failure"


def test_a_missing_cluster_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match="no Ray cluster at 127.0.0.1:1"):
        sweep.main(["degradation", "--engine", "ray", "--out", str(tmp_path)])
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(UserError, match="no Ray cluster at nowhere"):
        sweep.main(["degradation", "--engine", "ray", "--out", str(tmp_path)])
    monkeypatch.delenv("RAY_ADDRESS")
    if os.path.exists("/tmp/ray/ray_current_cluster"):
        pytest.skip("this machine is part of a cluster")
    with pytest.raises(UserError, match="ray start --head"):
        sweep.main(["degradation", "--engine", "ray", "--out", str(tmp_path)])
