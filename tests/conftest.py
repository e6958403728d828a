"""Fixtures: a generated data set made once per session, the real CIFAR-10 where it is at hand, a quick config."""

import contextlib
import lzma
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reproduce import device, train
from reproduce.config import Config, RunOptions
from reproduce.dataset import write_synthetic
from reproduce.device import Device, own_stream
from reproduce.interleave import run_task
from reproduce.model import Network, build_network
from reproduce.sampling import Data, Images, load_data
from reproduce.signals import collect_stop_signals

REAL_DATA = Path(__file__).parents[2] / "shared" / "data" / "cifar-10-batches-py"
CPU = device.DEVICES["cpu"]

# The nets of the tests are too small for more threads, and golden numbers should not depend on the number of cores.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# Nothing that a test writes has to outlive a power cut, and waiting for the disk is a tenth of their time.
os.fsync = lambda descriptor: None

# Started in the background of a shell script, a process ignores SIGINT, and so do those that it starts: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

QUICK = Config(depth=8, batch_size=8, iterations=24, dataset="synthetic")
"""The smallest net of the family; its milestones are at 12 and 18."""


def train_alone(config: Config, options: RunOptions, data: Data, device: Device, folder: Path) -> train.Ending:
    """A run with nothing beside it, which SIGTERM and SIGINT stop, as reproduce/run.py trains it."""
    with collect_stop_signals() as requests, own_stream(device):
        return run_task(train.train(config, options, data, device, folder, math.inf, requests))


def build(config: Config) -> Network:
    """The network of a config of the paper's family."""
    network = build_network(config)
    assert isinstance(network, Network)
    return network


def assert_equal(a: Any, b: Any):
    """Equality to the bit of nested dicts and lists of tensors and numbers."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b)
    else:
        assert a == b


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated set of 2000 training and 200 test images."""
    folder = tmp_path_factory.mktemp("synthetic")
    (folder / "cifar-10-batches-py").mkdir()
    write_synthetic(folder / "cifar-10-batches-py", train=2_000, test=200)
    return folder


@pytest.fixture(scope="session")
def synthetic(synthetic_folder: Path) -> Data:
    """The generated set with a test set of 100 images, so that an evaluation takes no time."""
    data = load_data(QUICK, synthetic_folder, CPU.torch_device)
    return replace(data, test=Images(data.test.pixels[: 100 * 1600], data.test.labels[:100]))


@pytest.fixture(scope="session")
def cifar10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real CIFAR-10, which the workers of a session share."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real CIFAR-10 is not at hand")
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cifar10"
    if shared.exists():
        return shared
    folder = tmp_path_factory.mktemp("cifar10")
    (folder / "cifar-10-batches-py").mkdir()
    for packed in REAL_DATA.iterdir():
        content = packed.read_bytes()
        name, content = (packed.stem, lzma.decompress(content)) if packed.suffix == ".xz" else (packed.name, content)
        (folder / "cifar-10-batches-py" / name).write_bytes(content)
    with contextlib.suppress(OSError):  # another worker was quicker
        folder.rename(shared)
    return shared


@pytest.fixture
def workplace(tmp_path: Path, synthetic_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder in which --data synthetic is already made."""
    (tmp_path / "data").mkdir()
    os.symlink(synthetic_folder, tmp_path / "data" / "synthetic")
    monkeypatch.chdir(tmp_path)
    return tmp_path
