"""The datasets: their descriptions, and reading, downloading or generating them.

Neither torch nor NumPy is imported at module level, so that --help is fast.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reproduce.errors import UserError
from reproduce.image_folder import SUBFOLDERS, describe_image_folder, read_image_folder

if TYPE_CHECKING:
    import numpy as np

DatasetName = Literal["cifar10", "synthetic", "mnist", "pictures"]


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a dataset.

    default_data: the usual value of --data. folder: the subfolder of --data that contains the files. side: image size in
    pixels. published_iterations: training length of the published results, or None. sha256: of all images and labels (see
    `read_dataset`), or empty if the content is not fixed.
    """

    title: str
    class_names: tuple[str, ...]
    default_data: str
    folder: str
    side: int = 32
    channels: int = 3
    published_iterations: int | None = None
    sha256: str = ""


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_SHA256 = "6b3883dca6c867f1e58def548c063d1865569b8575fcbce06b3e468a89f9895a"
CIFAR10_BINARY = "cifar-10-batches-bin"
"""Folder of CIFAR-10's binary version."""
MNIST_SHA256 = "1e35582d42a90940c55b956deb61875c020b567ed20e3c5b174f52bf7809ed9b"
SYNTHETIC_FILE = "synthetic.npz"
DOWNLOAD_TIMEOUT = 60
"""Seconds without data after which a download fails."""
CYCLES = (2, 3, 5, 8, 12)
"""Frequencies of the synthetic stripes, in cycles per image."""
STRIPES = tuple(f"{direction}-{cycles}" for direction in ("upright", "level") for cycles in CYCLES)
DATASETS: dict[DatasetName, DatasetInfo] = {
    "cifar10": DatasetInfo(
        "CIFAR-10", CIFAR10_CLASSES, "data", "cifar-10-batches-py", published_iterations=64_000, sha256=CIFAR10_SHA256
    ),
    "synthetic": DatasetInfo("synthetic images", STRIPES, "synthetic", "cifar-10-batches-py"),
    "mnist": DatasetInfo(
        "MNIST", tuple("0123456789"), "mnist", "MNIST", 28, 1, published_iterations=37_500, sha256=MNIST_SHA256
    ),
    "pictures": DatasetInfo("image folder", (), "DIR", "train"),
}


def detect_dataset(data: str) -> DatasetName:
    """Return the dataset that --data names, by keyword, folder name or folder content; CIFAR-10 by default."""
    if data == "synthetic":
        return "synthetic"
    if data == DATASETS["pictures"].default_data or any((Path(data) / part).is_dir() for part in SUBFOLDERS):
        return "pictures"
    return "mnist" if data == "mnist" or Path(data).absolute().name == DATASETS["mnist"].folder else "cifar10"


def resolve_dataset(data: str) -> dict[str, Any]:
    """Return the Config fields that follow from --data.

    Raises:
        UserError: the folder is an image folder with a wrong layout.
    """
    name = detect_dataset(data)
    return {"dataset": name} | (describe_image_folder(Path(data)) if name == "pictures" else {})


def find_data_folder(name: DatasetName, data: str) -> Path:
    """Return the folder that contains or will receive the dataset's files.

    data: the value of --data; it may also name the subfolder with the files themselves.

    Raises:
        UserError: `data` is a file or the keyword of another dataset.
    """
    if data in ("synthetic", "mnist") and data != name:
        raise UserError(f"--data must be the folder of {DATASETS[name].title}, got {data}")
    if Path(data).is_file():
        raise UserError(f"--data must be a folder, synthetic or mnist, got the file {data}")
    if name == "synthetic":
        return Path("data/synthetic")
    if name == data == "mnist":
        return Path("data")
    is_dataset_folder = name != "pictures" and Path(data).absolute().name in (DATASETS[name].folder, CIFAR10_BINARY)
    return Path(data).absolute().parent if is_dataset_folder else Path(data)


def read_dataset(name: DatasetName, folder: Path, classes: str = "") -> tuple[list[np.ndarray], str]:
    """Read a dataset; download or generate it first if it is missing.

    classes: class names of an image folder, separated by "/".

    Returns: training images (uint8, M x H x W x C) and labels (int64, M), test images and labels; the SHA-256 of all four.

    Raises:
        UserError: the download failed, the files are damaged, or the image folder cannot be used.
    """
    info = DATASETS[name]
    if name == "pictures":
        arrays = read_image_folder(folder, tuple(classes.split("/")), info.side)
    elif name == "synthetic":
        arrays = read_synthetic(folder)
    else:
        arrays = read_published(name, folder)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    sha256 = digest.hexdigest()
    if info.sha256 not in ("", sha256):
        raise UserError(f"{info.title} in {folder} is damaged: remove its files and repeat the command")
    shape = (-1, info.side, info.side, info.channels)
    return [array.reshape(shape) if array.ndim > 1 else array for array in arrays], sha256


# CIFAR-10 and MNIST -----------------------------------------------------------------------------------------------------


def read_published(name: DatasetName, folder: Path) -> list[np.ndarray]:
    """Read CIFAR-10 or MNIST with torchvision, which downloads it if it is missing.

    Raises:
        UserError: the dataset is damaged, the download failed, or the folder contains something else.
    """
    import numpy as np
    from torchvision.datasets import CIFAR10, MNIST

    info, is_new = DATASETS[name], not folder.exists()
    names = sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))
    if names and not any(name.startswith(("cifar-10", "MNIST", "synthetic", "transfer")) for name in names):
        raise UserError(
            f"{folder} contains {', '.join(names[:3])}{', ...' * (len(names) > 3)}, but neither {info.title} ({info.folder}) "
            f"nor train/CLASS and test/CLASS of an image folder; name a new folder to download {info.title}"
        )
    try:
        if name == "cifar10" and (folder / CIFAR10_BINARY).is_dir() and not (folder / info.folder).is_dir():
            return read_cifar10_binary(folder / CIFAR10_BINARY)
        reader = CIFAR10 if name == "cifar10" else MNIST
        with limit_socket_time():
            parts = [reader(folder, train=train, download=train) for train in (True, False)]
        return [np.asarray(values) for part in parts for values in (part.data, part.targets)]
    except Exception as error:  # a damaged file and a download can fail in any way
        created = [*sorted((folder / info.folder).rglob("*"), reverse=True), folder / info.folder]
        for path in [*created, folder] if is_new else created:
            with suppress(OSError):  # keep folders with files, perhaps of another process
                path.rmdir()
        reason = str(error).splitlines()[0].rstrip(":") if str(error) else type(error).__name__
        raise UserError(
            f"{info.title} in {folder} is missing or damaged, and could not be downloaded ({reason}): "
            f"put the folder {info.folder} or its archive there, as torchvision does, or remove damaged files"
        ) from error


@contextmanager
def limit_socket_time() -> Iterator[None]:
    """Let a download that receives nothing for DOWNLOAD_TIMEOUT fail."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_cifar10_binary(folder: Path) -> list[np.ndarray]:
    """Read CIFAR-10's binary version: for each image, its label and 3 x 32 x 32 pixels."""
    import numpy as np

    files = [[f"data_batch_{number}.bin" for number in range(1, 6)], ["test_batch.bin"]]
    arrays = []
    for names in files:
        rows = np.concatenate([np.fromfile(folder / name, np.uint8) for name in names]).reshape(-1, 1 + 3 * 32 * 32)
        arrays += [rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int64)]
    return arrays


# Synthetic images -------------------------------------------------------------------------------------------------------


def read_synthetic(folder: Path) -> list[np.ndarray]:
    """Read the synthetic images; generate them first if their file is missing or damaged."""
    import numpy as np

    path = folder / DATASETS["synthetic"].folder / SYNTHETIC_FILE

    def load_arrays() -> list[np.ndarray]:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            return [content[f"{part}_{kind}"] for part in ("train", "test") for kind in ("images", "labels")]

    try:
        return load_arrays()
    except Exception:  # a damaged file can fail in any way
        write_synthetic(path.parent)
        return load_arrays()


def write_synthetic(folder: Path, train: int = 10_000, test: int = 2_000):
    """Generate a learnable dataset of ten classes: vertical or horizontal stripes of five frequencies.

    The phase, the colors and the noise differ between images; crops and flips do not change the class.
    """
    import numpy as np

    from reproduce.randomness import SYNTHETIC, random_generator

    generator = random_generator(0, SYNTHETIC)
    # In five parts to limit the memory; the random numbers depend on this split.
    images, labels = zip(*(generate_stripes(generator, count) for count in [train // 5] * 5 + [test]), strict=True)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"unfinished-{os.getpid()}.npz"
    try:
        np.savez(
            unfinished,
            train_images=np.concatenate(images[:5]),
            train_labels=np.concatenate(labels[:5]),
            test_images=images[5],
            test_labels=labels[5],
        )
        os.replace(unfinished, folder / SYNTHETIC_FILE)
    finally:
        unfinished.unlink(missing_ok=True)


def generate_stripes(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` images (uint8, M x 32 x 32 x 3) and labels (int64, M)."""
    import numpy as np

    labels = generator.permutation(np.arange(count) % 10)
    cycles = np.array(CYCLES)[labels % 5, None] / 32
    wave = np.sin(2 * np.pi * (cycles * np.arange(32) + generator.random((count, 1))))
    stripes = np.repeat(wave[:, :, None], 32, axis=2)
    stripes[labels < 5] = stripes[labels < 5].transpose(0, 2, 1)
    low = generator.uniform(0, 100, (count, 3, 1, 1))
    high = generator.uniform(155, 255, (count, 3, 1, 1))
    images = low + (high - low) * (stripes[:, None] + 1) / 2 + generator.normal(0, 40, (count, 3, 32, 32))
    return images.clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1), labels
