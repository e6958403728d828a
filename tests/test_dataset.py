"""Reading, downloading and generating the datasets; damaged files."""

import gzip
import hashlib
import io
import lzma
import os
import pickle
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, MNIST

from reproduce import dataset
from reproduce.dataset import SYNTHETIC_FILE, DatasetName, find_data_folder, read_dataset
from reproduce.errors import UserError
from tests.conftest import REAL_DATA

REAL_MNIST = REAL_DATA.with_name("MNIST")


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


def list_files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# Synthetic ------------------------------------------------------------------------------------------------------------


def test_the_synthetic_dataset_is_generated_once_and_never_changes(tmp_path: Path):
    (_, train_labels, _, test_labels), fingerprint = read_dataset("synthetic", tmp_path / "set")
    assert fingerprint == "89085f1579ab70a11df6b871455a1abbfd558c119cc8f28f1ca4c634c10e24e9", "existing records would be stale"
    assert np.bincount(train_labels).tolist() == [1_000] * 10 and np.bincount(test_labels).tolist() == [200] * 10
    before = list_files(tmp_path)
    assert read_dataset("synthetic", tmp_path / "set")[1] == fingerprint
    assert list_files(tmp_path) == before


class Executes:
    """Creates a folder when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def pack(images: np.ndarray, labels: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, train_images=images, train_labels=labels, test_images=images[:10], test_labels=labels[:10])
    return content.getvalue()


IMAGES, LABELS = np.zeros((50, 32, 32, 3), dtype=np.uint8), np.arange(50) % 10
DAMAGE: dict[str, Callable[[bytes, Path], bytes]] = {
    "pickle": lambda content, marker: pickle.dumps(Executes(marker)),
    "pickle in an array": lambda content, marker: pack(np.array([Executes(marker)] * 50), LABELS),
    "truncated": lambda content, marker: content[:-100],
    "empty": lambda content, marker: b"",
    "flipped bit": lambda content, marker: content[:9000] + bytes([content[9000] ^ 1]) + content[9001:],
    "image shape": lambda content, marker: pack(IMAGES[:, :16], LABELS),
    "label type": lambda content, marker: pack(IMAGES, LABELS / 2),
    "label range": lambda content, marker: pack(IMAGES, LABELS + 1),
    "fewer labels": lambda content, marker: pack(IMAGES, LABELS[:40]),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_synthetic_file_is_generated_again_and_never_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    write = dataset.write_synthetic
    monkeypatch.setattr(dataset, "write_synthetic", lambda folder: write(folder, train=50, test=10))
    expected = read_dataset("synthetic", tmp_path)[1]
    path = tmp_path / SYNTHETIC_FILE
    path.write_bytes(DAMAGE[kind](path.read_bytes(), tmp_path / "executed"))
    assert read_dataset("synthetic", tmp_path)[1] == expected
    assert not (tmp_path / "executed").exists()


# CIFAR-10 -------------------------------------------------------------------------------------------------------------


def write_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Write an archive of 60 images and make torchvision take it for CIFAR-10's."""
    source = folder / "source"
    source.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]:
        (source / name).write_bytes(pickle.dumps({"data": rows, "labels": list(range(10))}))
    (source / "batches.meta").write_bytes(pickle.dumps({"label_names": dataset.CIFAR10_CLASSES}))
    with tarfile.open(folder / CIFAR10.filename, "w:gz") as archive:
        archive.add(source, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5((folder / CIFAR10.filename).read_bytes()))
    for attribute in ("train_list", "test_list"):
        entries = [[name, md5((source / name).read_bytes())] for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, entries)
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5((source / "batches.meta").read_bytes())})


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_cifar10(tmp_path, monkeypatch)
    return tmp_path


def test_an_archive_is_unpacked_and_replaces_damaged_files(cifar10: Path):
    (train, labels, test, _), fingerprint = read_dataset("cifar10", cifar10)
    assert (train.shape, train.dtype, test.shape, labels.dtype) == ((50, 32, 32, 3), np.uint8, (10, 32, 32, 3), np.int64)
    damage(cifar10 / CIFAR10.base_folder / "data_batch_3")
    assert read_dataset("cifar10", cifar10)[1] == fingerprint


@pytest.mark.parametrize("damaged", [["data_batch_3"], ["batches.meta", "test_batch"], [CIFAR10.filename]])
def test_a_damaged_dataset_is_refused_with_its_damaged_files(cifar10: Path, damaged: list[str]):
    paths = [cifar10 / CIFAR10.base_folder / name for name in damaged]
    if damaged == [CIFAR10.filename]:
        paths = [cifar10 / CIFAR10.filename]
    else:
        read_dataset("cifar10", cifar10)
        (cifar10 / CIFAR10.filename).unlink()
    for path in paths:
        damage(path)
    with pytest.raises(UserError, match="is damaged") as caught:
        read_dataset("cifar10", cifar10)
    assert all(str(path) in str(caught.value) for path in paths) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "archive"), [("cifar10", "cifar-10-python.tar.gz"), ("mnist", "train-images-idx3-ubyte.gz")])
def test_a_missing_dataset_without_network_is_one_sentence_and_leaves_nothing(tmp_path: Path, name: DatasetName, archive: str):
    folder = tmp_path / "deep" / "folder"
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        read_dataset(name, folder)
    message = str(caught.value)
    assert archive in message and str(folder) in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_download_has_a_timeout_and_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    timeouts = []

    def interrupt(*_: object, **__: object):
        timeouts.append(socket.getdefaulttimeout())
        raise KeyboardInterrupt

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_dataset("cifar10", tmp_path / "deep" / "folder")
    assert timeouts == [dataset.DOWNLOAD_TIMEOUT] and socket.getdefaulttimeout() is None
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_the_files_themselves_may_be_named(cifar10: Path, monkeypatch: pytest.MonkeyPatch):
    inner = cifar10 / CIFAR10.base_folder
    assert find_data_folder("cifar10", str(inner)) == inner, "nothing is there yet"
    read_dataset("cifar10", cifar10)
    assert find_data_folder("cifar10", str(inner)) == cifar10
    monkeypatch.chdir(inner)
    assert find_data_folder("cifar10", ".") == cifar10


def test_the_real_cifar10(cifar10_folder: Path):
    (train, train_labels, test, test_labels), _ = read_dataset("cifar10", cifar10_folder)
    assert np.bincount(train_labels).tolist() == [5_000] * 10 and np.bincount(test_labels).tolist() == [1_000] * 10
    assert (train / 255).mean((0, 1, 2)) == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)


# MNIST ----------------------------------------------------------------------------------------------------------------


def write_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Write archives of 50 training and 10 test images, make torchvision take them for MNIST's, return all 60."""
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (60, 28, 28), dtype=np.uint8), np.arange(60, dtype=np.uint8) % 10
    raw, resources = folder / "MNIST" / "raw", []
    raw.mkdir(parents=True)
    for name in dataset.MNIST_MD5:
        array = (images if "images" in name else labels)[slice(50) if "train" in name else slice(50, 60)]
        content = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()
        monkeypatch.setitem(dataset.MNIST_MD5, name, md5(content))
        archive = gzip.compress(content, mtime=0)
        (raw / f"{name}.gz").write_bytes(archive)
        resources.append((f"{name}.gz", md5(archive)))
    monkeypatch.setattr(MNIST, "resources", resources)
    return images, labels


def test_mnist_is_read_from_its_archives_and_repaired_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images, labels = write_mnist(tmp_path, monkeypatch)
    arrays, fingerprint = read_dataset("mnist", tmp_path)
    for array, expected in zip(arrays, (images[:50, ..., None], labels[:50], images[50:, ..., None], labels[50:]), strict=True):
        assert np.array_equal(array, expected)
    raw = tmp_path / "MNIST" / "raw"
    damage(raw / "t10k-images-idx3-ubyte")
    assert read_dataset("mnist", tmp_path)[1] == fingerprint
    damage(raw / "train-images-idx3-ubyte.gz")  # an archive is not needed once the files are unpacked
    assert read_dataset("mnist", tmp_path)[1] == fingerprint
    damage(raw / "train-images-idx3-ubyte")
    with pytest.raises(UserError, match="is damaged"):
        read_dataset("mnist", tmp_path)


@pytest.mark.parametrize(
    ("data", "folder"), [("mnist", "data"), ("data", "data"), ("a/MNIST", "a"), ("a", "a"), ("MNIST/", ".")]
)
def test_mnist_is_found_where_data_says(data: str, folder: str):
    assert find_data_folder("mnist", data).absolute() == Path(folder).absolute()


def test_the_real_mnist(tmp_path: Path):
    if not REAL_MNIST.is_dir():
        pytest.skip("the real MNIST is not at hand")
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for name in dataset.MNIST_MD5:
        (tmp_path / "MNIST" / "raw" / name).write_bytes(lzma.decompress((REAL_MNIST / f"{name}.xz").read_bytes()))
    (train, _, test, test_labels), _ = read_dataset("mnist", tmp_path)
    assert (len(train), len(test), test_labels[:5].tolist()) == (60_000, 10_000, [7, 2, 1, 0, 4])
    assert ((train / 255).mean(), (train / 255).std()) == (pytest.approx(0.1307, abs=1e-4), pytest.approx(0.3081, abs=1e-4))
