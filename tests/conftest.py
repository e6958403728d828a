"""Fixtures: a generated data set made once per session, the real CIFAR-10 where it is at hand, a quick config."""

import lzma
import os
from dataclasses import replace
from pathlib import Path

import pytest

from reproduce import device  # first: it has to come before torch
from reproduce.config import Config
from reproduce.data import Data, load

REAL_DATA = Path(__file__).parents[2] / "shared" / "data" / "cifar-10-batches-py"
CPU = device.DEVICES["cpu"]

QUICK = Config(depth=8, batch_size=8, iterations=24, dataset="synthetic")
"""The smallest net of the family; its milestones are at 12 and 18."""


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    load(QUICK, folder, CPU.torch_device)
    return folder


@pytest.fixture(scope="session")
def synthetic(synthetic_folder: Path) -> Data:
    """The generated set with a test set of 100 images, so that an evaluation takes no time."""
    data = load(QUICK, synthetic_folder, CPU.torch_device)
    test = replace(data.test, positions=data.test.positions[: 100 * 1600], labels=data.test.labels[:100])
    return replace(data, test=test)


@pytest.fixture(scope="session")
def cifar10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real CIFAR-10."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real CIFAR-10 is not at hand")
    folder = tmp_path_factory.mktemp("cifar10")
    (folder / "cifar-10-batches-py").mkdir()
    for packed in REAL_DATA.iterdir():
        content = packed.read_bytes()
        name, content = (packed.stem, lzma.decompress(content)) if packed.suffix == ".xz" else (packed.name, content)
        (folder / "cifar-10-batches-py" / name).write_bytes(content)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, synthetic_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder in which --data synthetic is already made."""
    (tmp_path / "data").mkdir()
    os.symlink(synthetic_folder, tmp_path / "data" / "synthetic")
    monkeypatch.chdir(tmp_path)
    return tmp_path
