"""The datasets: their descriptions, and reading, downloading or generating them.

Neither torch nor NumPy is imported at module level, so that --help is fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tempfile
from collections.abc import Callable
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

    given: the usual value of --data. folder: the subfolder of --data that contains the files. side: image size in pixels.
    iterations: training length of the published results, or None.
    """

    title: str
    class_names: tuple[str, ...]
    given: str
    folder: str
    side: int = 32
    channels: int = 3
    iterations: int | None = None


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CYCLES = (2, 3, 5, 8, 12)
"""Frequencies of the synthetic stripes, in cycles per image."""
STRIPES = tuple(f"{direction}-{cycles}" for direction in ("upright", "level") for cycles in CYCLES)
DATASETS: dict[DatasetName, DatasetInfo] = {
    "cifar10": DatasetInfo("CIFAR-10", CIFAR10_CLASSES, "data", "cifar-10-batches-py", iterations=64_000),
    "synthetic": DatasetInfo("synthetic images", STRIPES, "synthetic", "cifar-10-batches-py"),
    "mnist": DatasetInfo("MNIST", tuple("0123456789"), "mnist", "MNIST", side=28, channels=1, iterations=37_500),
    "pictures": DatasetInfo("image folder", (), "DIR", "train"),
}

MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of MNIST's unpacked files; torchvision checks only the archives."""

SYNTHETIC_FILE = "cifar-10-batches-py/synthetic.npz"
DOWNLOAD_TIMEOUT = 30
"""Seconds without data after which a download fails; torchvision sets no limit."""


def detect_dataset(data: str) -> DatasetName:
    """Return the dataset that --data names, by keyword, folder name or folder content; CIFAR-10 by default."""
    if data == "synthetic":
        return "synthetic"
    if data == DATASETS["pictures"].given or any((Path(data) / part).is_dir() for part in SUBFOLDERS):
        return "pictures"
    return "mnist" if data == "mnist" or Path(data).absolute().name == DATASETS["mnist"].folder else "cifar10"


def resolve_dataset(data: str) -> dict[str, Any]:
    """Return the Config fields that follow from --data; raises like `describe_image_folder`."""
    name = detect_dataset(data)
    return {"dataset": name} | (describe_image_folder(Path(data)) if name == "pictures" else {})


def find_data_folder(name: DatasetName, data: str) -> Path:
    """Return the folder that contains or will receive the dataset's files.

    data: the value of --data; it may also name the subfolder with the files themselves.
    """
    if name == "synthetic":
        return Path("data/synthetic")
    if name == "pictures":
        return Path(data)
    info = DATASETS[name]
    folder = Path(DATASETS["cifar10"].given if data == info.given else data)
    if folder.absolute().name != info.folder:
        return folder
    holds_files = name == "mnist" or (folder / "data_batch_1").is_file()
    return folder.absolute().parent if holds_files else folder


# Reading --------------------------------------------------------------------------------------------------------------


def read_dataset(name: DatasetName, folder: Path, classes: str = "") -> tuple[list[np.ndarray], str]:
    """Read a dataset; download or generate it first if it is missing or damaged.

    classes: class names of an image folder, separated by "/".

    Returns: training images (uint8, M x H x W x C) and labels (int64, M), test images and labels; the SHA-256 of all four.

    Raises:
        UserError: the download failed, or the image folder cannot be used.
    """
    try:
        arrays = read_arrays(name, folder, classes)
    except RuntimeError:  # torchvision's exception for missing or damaged files
        download_dataset(name, folder)
        arrays = read_arrays(name, folder, classes)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    side, channels = DATASETS[name].side, DATASETS[name].channels
    return [array.reshape(-1, side, side, channels) if array.ndim > 1 else array for array in arrays], digest.hexdigest()


def read_arrays(name: DatasetName, folder: Path, classes: str) -> list[np.ndarray]:
    """Read a dataset's four arrays.

    Raises:
        RuntimeError: a file is missing or damaged.
        UserError: the image folder cannot be used.
    """
    if name == "pictures":
        return read_image_folder(folder, tuple(classes.split("/")), DATASETS[name].side)
    if name == "synthetic":
        return read_synthetic(folder)
    import numpy as np

    if name == "mnist" and find_damaged_files(name, folder, archives=False):
        raise RuntimeError("MNIST is damaged")
    parts = [get_reader(name)(folder, train=train) for train in (True, False)]
    return [np.asarray(values) for part in parts for values in (part.data, part.targets)]


def get_reader(name: DatasetName) -> Callable[..., Any]:
    """Return torchvision's class for a dataset."""
    from torchvision.datasets import CIFAR10, MNIST

    return {"cifar10": CIFAR10, "mnist": MNIST}[name]


def read_synthetic(folder: Path) -> list[np.ndarray]:
    """Read the synthetic dataset. It is stored as plain arrays, so reading it cannot execute anything.

    Raises:
        RuntimeError: the file is missing or damaged.
    """
    import numpy as np

    arrays = []
    try:
        with open(folder / SYNTHETIC_FILE, "rb") as file, np.load(file, allow_pickle=False) as content:
            for part in ("train", "test"):
                images, labels = content[f"{part}_images"], content[f"{part}_labels"]
                if images.dtype != np.uint8 or images.shape != (len(labels), 32, 32, 3) or not set(labels) <= set(range(10)):
                    raise ValueError("not images of ten classes")
                arrays += [images, labels.astype(np.int64, casting="safe")]
    except Exception as error:  # a damaged file can fail in any way
        raise RuntimeError(f"the synthetic dataset is missing or damaged ({type(error).__name__})") from error
    return arrays


# Downloading and generating -------------------------------------------------------------------------------------------


def list_dataset_files(name: DatasetName) -> tuple[dict[str, str], dict[str, str]]:
    """Return a dataset's files and the archives they are unpacked from: path below --data -> MD5."""
    from torchvision.datasets import CIFAR10, MNIST

    if name == "synthetic":
        return {SYNTHETIC_FILE: ""}, {}
    if name == "mnist":
        files, archives = MNIST_MD5.items(), MNIST.resources
        return {f"MNIST/raw/{file}": md5 for file, md5 in files}, {f"MNIST/raw/{file}": md5 for file, md5 in archives}
    members = [*CIFAR10.train_list, *CIFAR10.test_list, [CIFAR10.meta["filename"], CIFAR10.meta["md5"]]]
    return {f"{CIFAR10.base_folder}/{file}": md5 for file, md5 in members}, {CIFAR10.filename: CIFAR10.tgz_md5}


def find_damaged_files(name: DatasetName, folder: Path, archives: bool) -> list[Path]:
    """Return the dataset's files in `folder`, with or without the archives, that exist but have a wrong MD5."""
    from torchvision.datasets.utils import check_integrity

    files, packed = list_dataset_files(name)
    expected = {folder / path: md5 for path, md5 in (files | packed if archives else files).items()}
    return [path for path, md5 in expected.items() if path.is_file() and not check_integrity(path, md5)]


def download_dataset(name: DatasetName, folder: Path):
    """Put a dataset's files into `folder`: unpack the archives there, download them, or generate the files.

    Files are moved into place once complete; after a failure nothing is left behind.

    Raises:
        UserError: the dataset could not be downloaded.
    """
    missing_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    files, archives = list_dataset_files(name)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as temporary:
            unfinished = Path(temporary)
            for path in files | archives:
                (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
            if name == "synthetic":
                write_synthetic((unfinished / SYNTHETIC_FILE).parent)
            else:
                download_files(name, unfinished, archives, folder)
            for path in files:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(unfinished / path, folder / path)
    finally:
        with contextlib.suppress(OSError):  # not empty: the dataset is there
            for path in missing_folders:
                path.rmdir()


def download_files(name: DatasetName, target: Path, archives: dict[str, str], folder: Path):
    """Unpack the archives into `target`; download those that are missing or damaged in `folder`.

    Raises:
        UserError: the dataset could not be downloaded.
    """
    from torchvision.datasets.utils import check_integrity

    for path, md5 in archives.items():
        if check_integrity(folder / path, md5):
            (target / path).symlink_to((folder / path).resolve())
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        get_reader(name)(target, download=True)
    except (OSError, RuntimeError) as error:
        damaged = ", ".join(map(str, find_damaged_files(name, folder, archives=True)))
        state = f"in {folder} is damaged ({damaged})" if damaged else f"is not in {folder}"
        reason = str(error).splitlines()[0].rstrip(":")
        wanted = ", ".join(f"{path} (MD5 {md5})" for path, md5 in archives.items())
        title, subfolder = DATASETS[name].title, DATASETS[name].folder
        raise UserError(
            f"{title} {state} and could not be downloaded ({reason}): "
            f"put {wanted}, or the unpacked folder {subfolder}, into {folder}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def write_synthetic(folder: Path, train: int = 10_000, test: int = 2_000):
    """Generate a learnable dataset of ten classes: vertical or horizontal stripes of five frequencies.

    The phase, the colors and the noise differ between images; crops and flips do not change the class.
    """
    import numpy as np

    from reproduce.randomness import SYNTHETIC, random_generator

    generator = random_generator(0, SYNTHETIC)
    # In five parts to limit the memory; the random numbers depend on this split.
    images, labels = zip(*(generate_stripes(generator, count) for count in [train // 5] * 5 + [test]), strict=True)
    np.savez(
        folder / Path(SYNTHETIC_FILE).name,
        train_images=np.concatenate(images[:5]),
        train_labels=np.concatenate(labels[:5]),
        test_images=images[5],
        test_labels=labels[5],
    )


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
