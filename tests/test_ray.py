"""The sweep on a Ray cluster of two nodes on this machine, one of which is killed on the way."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import engine_ray, sweep
from reproduce import record
from reproduce.config import Config, UserError

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402  # pyright: ignore[reportMissingImports]

ROOT = Path(sweep.__file__).parents[1]

STARTER = """
import sys
from experiments import degradation, sweep
from reproduce.config import Config
degradation.CONFIGS[:] = [Config(depth=8, batch_size=16, residual=residual) for residual in (False, True)]
sys.exit(sweep.main(sys.argv[1:]))
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head trains nothing, and which RAY_ADDRESS names."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def test_a_sweep_survives_the_death_of_a_node(cluster, tmp_path, monkeypatch):
    from reproduce.data import write_synthetic

    monkeypatch.chdir(tmp_path)
    small_set = tmp_path / "data" / "synthetic" / "cifar-10-batches-py"
    small_set.mkdir(parents=True)
    write_synthetic(small_set, train=500, test=100)
    first, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    flags = ["--engine", "ray", "--seeds", "1", "--iterations", "500", "--data", "synthetic", "--out", "records"]
    flags += ["--checkpoint-every", "20"]
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, "degradation", *flags], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list(Path("records").glob("*/seed0/checkpoint.pt"))) < 2:  # one run on each node
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    cluster.remove_node(first, allow_graceful=False)
    assert not list(Path("records").glob("*/seed0/result.json")), "it was over before the node died"
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "2 of 2 runs finished, 0 diverged, 0 failed, 0 left" in said

    folders = [Path("records") / config.folder for config in list_runs(flags)]
    assert {record.read_metrics(folder)[-1]["iteration"] for folder in folders} == {500}
    sessions = sorted(len(json.loads((folder / "environment.json").read_text())) for folder in folders)
    assert sessions == [1, 2], "the run of the dead node, and it alone, was taken up by the other"


def list_runs(flags: list[str]) -> list[Config]:
    configs = [Config(depth=8, batch_size=16, residual=residual) for residual in (False, True)]
    return [sweep.adapt(sweep.parse(["degradation", *flags]), config) for config in configs]


def test_the_tasks_occupy_what_the_cluster_has():
    assert engine_ray.choose_kind([], {"CPU": 8, "GPU": 2}) == "cuda"
    assert engine_ray.choose_kind([], {"CPU": 8, "NPU": 8}) == "npu"
    assert engine_ray.choose_kind(["cpu"], {"CPU": 8, "NPU": 8}) == "cpu"
    with pytest.raises(UserError, match="has no GPU"):
        engine_ray.choose_kind(["cuda"], {"CPU": 8})
    with pytest.raises(UserError, match="one of cpu, cuda, npu"):
        engine_ray.choose_kind(["cuda:0"], {"CPU": 8, "GPU": 2})


def test_without_a_cluster_the_sweep_says_how_to_start_one(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if os.path.exists("/tmp/ray/ray_current_cluster"):
        pytest.skip("this machine is part of a cluster")
    with pytest.raises(UserError, match="ray start --head"):
        sweep.main(["degradation", "--engine", "ray", "--out", str(tmp_path)])
