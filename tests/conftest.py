"""Fixtures: a synthetic dataset, CIFAR-10 if it is available, and a small config."""

import contextlib
import lzma
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reproduce import device, train
from reproduce.config import Config, RunOptions
from reproduce.dataset import write_synthetic
from reproduce.device import Device, create_stream, use_stream
from reproduce.interleave import run_task
from reproduce.model import Network, build_network
from reproduce.record import read_result
from reproduce.sampling import PADDING, Data, Images, load_data
from reproduce.schema import Result
from reproduce.signals import collect_stop_signals
from reproduce.step import Training

REAL_DATA = Path(__file__).parents[2] / "shared" / "data" / "cifar-10-batches-py"
CPU = device.DEVICES["cpu"]

# The networks are too small for more threads, and golden numbers must not depend on the number of cores.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# Waiting for the disk takes a tenth of the time, and no file of a test has to survive a power cut.
os.fsync = lambda descriptor: None

# A process started in the background of a shell script ignores SIGINT, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

QUICK = Config(depth=8, batch_size=8, iterations=24, dataset="synthetic")
"""The smallest network; its milestones are at iterations 12 and 18."""
QUICK_FLAGS = "--depth 8 --batch-size 8 --iterations 24 --data synthetic --device cpu"
"""The flags of QUICK for run.py."""


def train_alone(config: Config, options: RunOptions, data: Data, device: Device, folder: Path) -> Result | None:
    """Train one run alone, stopped by SIGTERM and SIGINT, like run.py, and return its result, None if it was stopped."""
    with collect_stop_signals() as stop_signals, use_stream(device, create_stream(device)):
        training = Training(config, data, device, options.capture)
        run_task(train.train(training, options, folder, math.inf, stop_signals))
    return read_result(folder)


def wait_until(condition: Callable[[], object], seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, action: Callable[[], object]):
    """Call `action` once, during the chunk that contains iteration `at`."""
    train_chunk, pending = Training.train_chunk, [at]

    def interrupted(self: Training, start: int, stop: int, rates: list[float]) -> Any:
        done = yield from train_chunk(self, start, stop, rates)
        if pending and start < at <= stop:
            pending.clear()
            action()
        return done

    monkeypatch.setattr(Training, "train_chunk", interrupted)


def build(config: Config) -> Network:
    """Build a 6n+2 network."""
    network = build_network(config)
    assert isinstance(network, Network)
    return network


def unpad(data: Data, pixels: torch.Tensor) -> torch.Tensor:
    """Return the images without padding, M x 32 x 32 x 3, of `Images.pixels` or of `Data.mean`."""
    padded, inner = data.side + 2 * PADDING, slice(PADDING, PADDING + data.side)
    return pixels.view(-1, padded, padded, pixels.shape[-1])[:, inner, inner, : len(data.std)]


def assert_equal(a: Any, b: Any):
    """Assert that nested dicts and lists of tensors and numbers are equal to the bit."""
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
    """The folder of a synthetic dataset of 2000 training and 200 test images."""
    folder = tmp_path_factory.mktemp("synthetic")
    (folder / "cifar-10-batches-py").mkdir()
    write_synthetic(folder / "cifar-10-batches-py", train=2_000, test=200)
    return folder


@pytest.fixture(scope="session")
def synthetic(synthetic_folder: Path) -> Data:
    """The synthetic dataset with 100 test images, for fast evaluations."""
    data = load_data(QUICK, synthetic_folder, CPU.torch_device)
    return replace(data, test=Images(data.test.pixels[: 100 * 1600], data.test.labels[:100]))


@pytest.fixture(scope="session")
def cifar10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of CIFAR-10, shared by all test workers."""
    if not REAL_DATA.is_dir():
        pytest.skip("CIFAR-10 is not available")
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
    with contextlib.suppress(OSError):  # another worker was faster
        folder.rename(shared)
    return shared


@pytest.fixture
def workplace(tmp_path: Path, synthetic_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder in which the dataset of --data synthetic already exists."""
    (tmp_path / "data").mkdir()
    os.symlink(synthetic_folder, tmp_path / "data" / "synthetic")
    monkeypatch.chdir(tmp_path)
    return tmp_path
