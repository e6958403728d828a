"""Reading, downloading and generating the datasets; damaged and foreign files."""

import gzip
import hashlib
import lzma
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, MNIST

from reproduce import dataset
from reproduce.dataset import CIFAR10_BINARY, DATASETS, SYNTHETIC_FILE, DatasetName, find_data_folder, read_dataset
from reproduce.errors import UserError
from tests.conftest import REAL_DATA

REAL_MNIST = REAL_DATA.with_name("MNIST")
MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def forbid_network(*_: object):
    raise OSError("no network")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", forbid_network)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def damage(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# Synthetic ------------------------------------------------------------------------------------------------------------


def test_the_synthetic_dataset_is_generated_once_and_never_changes(tmp_path: Path):
    (_, train_labels, _, test_labels), fingerprint = read_dataset("synthetic", tmp_path)
    assert fingerprint == "89085f1579ab70a11df6b871455a1abbfd558c119cc8f28f1ca4c634c10e24e9", "existing records would be stale"
    assert np.bincount(train_labels).tolist() == [1_000] * 10 and np.bincount(test_labels).tolist() == [200] * 10
    (path,) = tmp_path.rglob("*.npz")
    before = path.stat().st_mtime_ns
    assert read_dataset("synthetic", tmp_path)[1] == fingerprint and path.stat().st_mtime_ns == before


class Executes:
    """Creates a folder when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_an_unfinished_synthetic_file_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def savez(path: Path, **_: np.ndarray):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(OSError, match="No space"):
        dataset.write_synthetic(tmp_path, train=50, test=10)
    assert not list(tmp_path.iterdir())


def test_a_damaged_synthetic_file_is_generated_again_and_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = dataset.write_synthetic
    monkeypatch.setattr(dataset, "write_synthetic", lambda folder: write(folder, train=50, test=10))
    expected = read_dataset("synthetic", tmp_path)[1]
    path = tmp_path / DATASETS["synthetic"].folder / SYNTHETIC_FILE
    for damaged in (path.read_bytes()[:-100], pickle.dumps(Executes(tmp_path / "executed"))):
        path.write_bytes(damaged)
        assert read_dataset("synthetic", tmp_path)[1] == expected
    assert not (tmp_path / "executed").exists()


# CIFAR-10 -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an archive of 60 images that torchvision takes for CIFAR-10's, and in `binary` its binary version."""
    source, binary = tmp_path / "source", tmp_path / "binary" / CIFAR10_BINARY
    source.mkdir()
    binary.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]:
        rows = generator.integers(0, 256, (10, 3072), dtype=np.uint8)
        (source / name).write_bytes(pickle.dumps({"data": rows, "labels": list(range(10))}))
        (binary / f"{name}.bin").write_bytes(np.insert(rows, 0, np.arange(10), axis=1).tobytes())
    (source / "batches.meta").write_bytes(pickle.dumps({"label_names": dataset.CIFAR10_CLASSES}))
    with tarfile.open(tmp_path / CIFAR10.filename, "w:gz") as archive:
        archive.add(source, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5((tmp_path / CIFAR10.filename).read_bytes()))
    for attribute in ("train_list", "test_list"):
        entries = [[name, md5((source / name).read_bytes())] for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, entries)
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5((source / "batches.meta").read_bytes())})
    monkeypatch.setitem(DATASETS, "cifar10", replace(DATASETS["cifar10"], sha256=""))
    return tmp_path


def test_an_archive_is_unpacked_and_replaces_damaged_files(cifar10: Path):
    (train, labels, test, _), fingerprint = read_dataset("cifar10", cifar10)
    assert (train.shape, train.dtype, test.shape, labels.dtype) == ((50, 32, 32, 3), np.uint8, (10, 32, 32, 3), np.int64)
    damage(cifar10 / CIFAR10.base_folder / "data_batch_3")
    assert read_dataset("cifar10", cifar10)[1] == fingerprint


def test_the_binary_version_contains_the_same_images(cifar10: Path):
    _, fingerprint = read_dataset("cifar10", cifar10)
    assert read_dataset("cifar10", cifar10 / "binary")[1] == fingerprint
    assert find_data_folder("cifar10", str(cifar10 / "binary" / CIFAR10_BINARY)) == cifar10 / "binary"
    (cifar10 / "binary" / CIFAR10_BINARY / "data_batch_2.bin").write_bytes(b"\1\2\3")
    with pytest.raises(UserError, match="is missing or damaged"):
        read_dataset("cifar10", cifar10 / "binary")


def test_other_images_than_the_published_ones_are_refused(cifar10: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(DATASETS, "cifar10", replace(DATASETS["cifar10"], sha256="0" * 64))
    with pytest.raises(UserError, match="is damaged"):
        read_dataset("cifar10", cifar10)


def test_damage_that_cannot_be_repaired_is_refused(cifar10: Path):
    read_dataset("cifar10", cifar10)
    damage(cifar10 / CIFAR10.filename)
    damage(cifar10 / CIFAR10.base_folder / "test_batch")
    with pytest.raises(UserError, match="is missing or damaged"):
        read_dataset("cifar10", cifar10)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_a_missing_dataset_without_network_is_one_sentence(tmp_path: Path, name: DatasetName):
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        read_dataset(name, tmp_path / "new")
    assert str(tmp_path / "new") in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_downloaded_into_a_folder_of_something_else(tmp_path: Path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="contains cat, but neither CIFAR-10 .*train/CLASS"):
        read_dataset("cifar10", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_data_that_cannot_be_the_networks_is_refused(tmp_path: Path):
    (tmp_path / "images.npz").touch()
    with pytest.raises(UserError, match="got the file"):
        find_data_folder("cifar10", str(tmp_path / "images.npz"))
    with pytest.raises(UserError, match="folder of CIFAR-10, got synthetic"):
        find_data_folder("cifar10", "synthetic")


def test_the_folder_of_the_files_themselves_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inner = tmp_path / CIFAR10.base_folder
    assert find_data_folder("cifar10", str(inner)) == tmp_path
    inner.mkdir()
    monkeypatch.chdir(inner)
    assert find_data_folder("cifar10", ".") == tmp_path


def test_the_real_cifar10(cifar10_folder: Path):
    (train, train_labels, test, test_labels), fingerprint = read_dataset("cifar10", cifar10_folder)
    assert fingerprint == dataset.CIFAR10_SHA256 and (train.shape, test.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert np.bincount(train_labels).tolist() == [5_000] * 10 and np.bincount(test_labels).tolist() == [1_000] * 10


# MNIST ----------------------------------------------------------------------------------------------------------------


def test_mnist_is_read_from_its_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (60, 28, 28), dtype=np.uint8), np.arange(60, dtype=np.uint8) % 10
    raw, resources = tmp_path / "MNIST" / "raw", []
    raw.mkdir(parents=True)
    for name in MNIST_FILES:
        array = (images if "images" in name else labels)[slice(50) if "train" in name else slice(50, 60)]
        content = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()
        archive = gzip.compress(content, mtime=0)
        (raw / f"{name}.gz").write_bytes(archive)
        resources.append((f"{name}.gz", md5(archive)))
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], sha256=""))
    arrays, _ = read_dataset("mnist", tmp_path)
    for array, expected in zip(arrays, (images[:50, ..., None], labels[:50], images[50:, ..., None], labels[50:]), strict=True):
        assert np.array_equal(array, expected)
    (raw / MNIST_FILES[0]).write_bytes(b"\0\0\x08\3 and no more")
    with pytest.raises(UserError, match="is missing or damaged"):
        read_dataset("mnist", tmp_path)


@pytest.mark.parametrize(
    ("data", "folder"), [("mnist", "data"), ("data", "data"), ("a/MNIST", "a"), ("a", "a"), ("MNIST/", ".")]
)
def test_mnist_is_found_where_data_says(data: str, folder: str):
    assert find_data_folder("mnist", data).absolute() == Path(folder).absolute()


def test_the_real_mnist(tmp_path: Path):
    if not REAL_MNIST.is_dir():
        pytest.skip("MNIST is not available")
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for name in MNIST_FILES:
        (tmp_path / "MNIST" / "raw" / name).write_bytes(lzma.decompress((REAL_MNIST / f"{name}.xz").read_bytes()))
    (train, _, test, test_labels), fingerprint = read_dataset("mnist", tmp_path)
    assert fingerprint == dataset.MNIST_SHA256
    assert (len(train), len(test), test_labels[:5].tolist()) == (60_000, 10_000, [7, 2, 1, 0, 4])
