"""CIFAR-10 as uint8 tensors on the device, and batches that are a pure function of (seed, iteration).

Shapes: M images in a set, N in a batch, T iterations; a padded image is 40 x 40 positions of 3 channels. (Other sets have
other sides and channels, which config.DATA_SETS gives.)
An image is stored padded by 4 positions of zero; a batch picks, for every image of its own, the 32 x 32 positions of a
crop, mirrored or not. The mean is padded and picked alike, so that what was padding is exactly zero after the
subtraction, as if the padding had come after it (section 4.2).
A position has four bytes, zero behind its channels, so that it is picked as one word, at 32-bit indices: an NPU is slow with
rows of 3 bytes and with 64-bit integers.
"""

import contextlib
import hashlib
import math
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, MNIST, VisionDataset
from torchvision.datasets.utils import check_integrity

from reproduce.config import Config, RunOptions, require
from reproduce.dataset import DATASETS, DatasetName, detect_dataset
from reproduce.errors import UserError
from reproduce.image_folder import read_image_folder

PADDING = 4
VALIDATION_FRACTION = 10
"""One image in so many is held out by split val: 5k of the 50k."""

MNIST_FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""Their MD5, which torchvision knows of their archives only."""

SYNTHETIC_FILE = "synthetic.npz"
SYNTHETIC_SIZES = (10_000, 2_000)
SYNTHETIC_FINGERPRINT = "89085f1579ab70a11df6b871455a1abbfd558c119cc8f28f1ca4c634c10e24e9"
"""Training and test images of the generated set, and its fingerprint (see `Data`). One of other sizes is taken as it is."""

INITIALISATION, ORDER, AUGMENTATION, SPLIT, SYNTHETIC = range(5)
"""The purposes for which a seed's random numbers are drawn, each a stream of its own."""


def random_generator(seed: int, purpose: int, position: int = 0) -> np.random.Generator:
    """Random numbers that depend on nothing but the arguments, the same on every machine (Philox, counter-based)."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, position]))


# Reading the set ------------------------------------------------------------------------------------------------------


class Synthetic(CIFAR10):
    """A generated set that looks like CIFAR-10, from a file of plain arrays: reading it executes nothing.

    Raises:
        RuntimeError: the file is missing or damaged (torchvision's word for it).
    """

    def __init__(self, root: Path, train: bool = True, transform: Callable[[Any], Any] | None = None):
        VisionDataset.__init__(self, root, transform=transform)
        self.train = train
        part = "train" if train else "test"
        try:
            path = Path(root) / self.base_folder / SYNTHETIC_FILE
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                self.data, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
            self.targets = labels.astype(np.int64, casting="safe").tolist()
        except Exception as error:  # a damaged file can fail in any way
            raise RuntimeError(f"the generated set is missing or damaged ({type(error).__name__})") from error
        are_images = self.data.dtype == np.uint8 and self.data.shape == (len(self.targets), 32, 32, 3)
        if not are_images or not set(self.targets) <= set(range(10)):
            raise RuntimeError("the generated set is damaged: it does not hold images of ten classes")


def write_synthetic(folder: Path, train: int = SYNTHETIC_SIZES[0], test: int = SYNTHETIC_SIZES[1]):
    """Writes a learnable ten-class set for `Synthetic`: stripes of five widths, upright or level.

    The phase, the colours and the noise differ from image to image; crops and mirroring do not change the class.
    """
    generator = random_generator(0, SYNTHETIC)
    images, labels = zip(*(generate_synthetic_images(generator, count) for count in [train // 5] * 5 + [test]), strict=True)
    np.savez(
        folder / SYNTHETIC_FILE,
        train_images=np.concatenate(images[:5]),
        train_labels=np.concatenate(labels[:5]),
        test_images=images[5],
        test_labels=labels[5],
    )


def generate_synthetic_images(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """So many images, uint8 M x 32 x 32 x 3, and labels, int64 M."""
    labels = generator.permutation(np.arange(count) % 10)
    cycles = np.array([2, 3, 5, 8, 12])[labels % 5, None] / 32
    wave = np.sin(2 * np.pi * (cycles * np.arange(32) + generator.random((count, 1))))
    stripes = np.repeat(wave[:, :, None], 32, axis=2)
    stripes[labels < 5] = stripes[labels < 5].transpose(0, 2, 1)
    low = generator.uniform(0, 100, (count, 3, 1, 1))
    high = generator.uniform(155, 255, (count, 3, 1, 1))
    images = low + (high - low) * (stripes[:, None] + 1) / 2 + generator.normal(0, 40, (count, 3, 32, 32))
    return images.clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1), labels


READERS = {"cifar10": CIFAR10, "synthetic": Synthetic, "mnist": MNIST}


def list_dataset_files(name: DatasetName) -> tuple[dict[str, str], dict[str, str]]:
    """The files of a data set and the archives that they come in, by their paths below `--data`, each with its MD5."""
    if name == "mnist":
        raw = {f"MNIST/raw/{file}": md5 for file, md5 in MNIST_FILES.items()}
        return raw, {f"MNIST/raw/{file}": md5 for file, md5 in MNIST.resources}
    if name == "synthetic":
        return {f"{CIFAR10.base_folder}/{SYNTHETIC_FILE}": ""}, {}
    members = [*CIFAR10.train_list, *CIFAR10.test_list, [CIFAR10.meta["filename"], CIFAR10.meta["md5"]]]
    return {f"{CIFAR10.base_folder}/{file}": md5 for file, md5 in members}, {CIFAR10.filename: CIFAR10.tgz_md5}


def find_damaged_files(folder: Path, name: DatasetName) -> list[Path]:
    """The files of a data set, and its archives, that are in `folder` with another MD5 than theirs."""
    files, archives = list_dataset_files(name)
    return [folder / path for path, md5 in (files | archives).items() if is_damaged_file(folder / path, md5)]


def is_damaged_file(path: Path, md5: str) -> bool:
    return path.is_file() and not check_integrity(path, md5)


@contextlib.contextmanager
def network_timeout(seconds: float) -> Iterator[None]:
    """Lets no connection wait longer within; torchvision downloads without a limit, and has no argument for one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def download_dataset(folder: Path, name: DatasetName):
    """Puts a data set's files into `folder`: from its archives there, from the network, or by generation.

    Raises:
        UserError: they are neither there nor to be had; the sentence names what is damaged, the archives, their MD5 and the
            folder for them.
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
                write_synthetic(unfinished / CIFAR10.base_folder)
            else:
                for path, md5 in archives.items():
                    if check_integrity(folder / path, md5):
                        (unfinished / path).symlink_to((folder / path).resolve())
                with network_timeout(30):
                    READERS[name](unfinished, download=True)
            for path in files:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(unfinished / path, folder / path)
    except (OSError, RuntimeError) as error:
        if name == "synthetic":
            raise
        title, own_folder = DATASETS[name].title, DATASETS[name].folder
        damaged = ", ".join(map(str, find_damaged_files(folder, name)))
        state = f"in {folder} is damaged ({damaged})" if damaged else f"is not in {folder}"
        reason = str(error).splitlines()[0].rstrip(":")
        wanted = ", ".join(f"{path} (MD5 {md5})" for path, md5 in archives.items())
        raise UserError(
            f"{title} {state} and could not be downloaded ({reason}): put {wanted} or its folder {own_folder} into {folder}"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # of those that are not empty
            for path in missing_folders:
                path.rmdir()


@dataclass(frozen=True)
class Images:
    """M images on a device: uint8 positions, (M * 40 * 40) x 4 (red, green, blue, 0), row by row of the padded images; and
    int64 labels, M."""

    positions: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """What a run sees: the images it trains on, the held-out ones (None for split full), the test set, and their scale.

    mean: float32, (40 * 40) x 3, of the training images' pixels / 255, zero where the padding is.
    std: float32, 3, of the same by channel; all ones unless the config divides by it.
    fingerprint: SHA-256 of all images and labels of the set, before any split.
    """

    train: Images
    validation: Images | None
    test: Images
    mean: Tensor
    std: Tensor
    fingerprint: str

    @property
    def side(self) -> int:
        return math.isqrt(len(self.mean)) - 2 * PADDING

    def unpad(self, positions: Tensor) -> Tensor:
        """The images within padded ones, M x 32 x 32 x 3, of positions as `Images` and the mean have them."""
        padded, within = self.side + 2 * PADDING, slice(PADDING, PADDING + self.side)
        return positions.view(-1, padded, padded, positions.shape[-1])[:, within, within, : len(self.std)]


def validation_mask(labels: np.ndarray, seed: int) -> np.ndarray:
    """A boolean mask, M: a tenth of every class, drawn by the seed."""
    mask = np.zeros(len(labels), dtype=bool)
    generator = random_generator(seed, SPLIT)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        mask[members[: len(members) // VALIDATION_FRACTION]] = True
    return mask


def find_data_folder(config: Config, data: str) -> Path:
    """Where the config's data set is or goes: the folder that `--data` names, or the generated sets' own.

    The folder with the files themselves may be named as well.
    """
    if config.dataset in ("synthetic", "pictures"):
        return Path("data/synthetic" if config.dataset == "synthetic" else data)
    folder = Path(RunOptions.data if data == config.dataset_info.given else data)
    if folder.absolute().name != config.dataset_info.folder:
        return folder
    is_its_own = detect_dataset(data) == "mnist" or (folder / CIFAR10.train_list[0][0]).is_file()
    return folder.absolute().parent if is_its_own else folder


def read_dataset(config: Config, folder: Path) -> tuple[list[np.ndarray], str]:
    """The images, uint8 M x 32 x 32 x 3, and labels, int64 M, of the training set, then of the test set; their fingerprint.

    Raises:
        RuntimeError: a file of CIFAR-10 or of a generated set is missing or damaged.
        UserError: something is wrong with a folder of pictures.
    """
    name, side, channels = config.dataset, config.dataset_info.side, config.dataset_info.channels
    if name == "mnist" and any(is_damaged_file(folder / path, md5) for path, md5 in list_dataset_files(name)[0].items()):
        raise RuntimeError("a file is damaged")  # torchvision looks at MNIST's archives only
    if name == "pictures":
        arrays = read_image_folder(config, folder)
    else:
        sets = [READERS[name](folder, train=train) for train in (True, False)]
        arrays = [torch.as_tensor(values).numpy() for part in sets for values in (part.data, part.targets)]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return [array.reshape(-1, side, side, channels) if array.ndim > 1 else array for array in arrays], digest.hexdigest()


def load_data(config: Config, folder: Path, device: torch.device) -> Data:
    """Reads the config's data set (downloading or generating it where it is missing) and puts it on the device.

    Raises:
        UserError: it is not there and cannot be downloaded, or there are too few images for a batch.
    """
    try:
        arrays, fingerprint = read_dataset(config, folder)
        sizes = len(arrays[1]), len(arrays[3])
        if config.dataset == "synthetic" and sizes == SYNTHETIC_SIZES and fingerprint != SYNTHETIC_FINGERPRINT:
            raise RuntimeError("another set than the one that is generated here")
    except RuntimeError:  # torchvision's word for missing or damaged files, too
        download_dataset(folder, config.dataset)
        arrays, fingerprint = read_dataset(config, folder)
    train_NHWC, train_labels, test_NHWC, test_labels = arrays
    out = validation_mask(train_labels, config.seed) if config.split == "val" else np.zeros(len(train_labels), dtype=bool)
    check_batch_size(config, int((~out).sum()))
    if config.split == "val" and not out.any():
        raise UserError(f"{folder} has no class of {VALIDATION_FRACTION} pictures to hold out one of: leave out --split val")
    mean_HWC, std_C = normalization_statistics(train_NHWC[~out], config)
    return Data(
        train=to_device(train_NHWC[~out], train_labels[~out], device),
        validation=to_device(train_NHWC[out], train_labels[out], device) if out.any() else None,
        test=to_device(test_NHWC, test_labels, device),
        mean=torch.from_numpy(pad_images(mean_HWC[None]).reshape(-1, len(std_C))).float().to(device),
        std=torch.from_numpy(std_C).float().to(device),
        fingerprint=fingerprint,
    )


_load_once = lru_cache(maxsize=4)(load_data)


def load_data_cached(config: Config, folder: Path, device: torch.device) -> Data:
    """As `load_data`, but the runs of a process that see the same images share them."""
    seen = {name: getattr(config, name) for name in ("dataset", "classes", "pictures", "split", "normalization")}
    sees = Config(**seen, seed=config.seed if config.split == "val" else 0)
    data = _load_once(sees, folder.resolve(), device)
    check_batch_size(config, len(data.train))
    return data


def check_batch_size(config: Config, images: int):
    """Refuses batches that no permutation of the training images fills, where only whole ones count (see `sample_batches`).

    Raises:
        UserError: there would be no batch at all.
    """
    rule = f"batch-size must be at most {images}, the training images, where the last batch is dropped"
    require(config.last_batch == "stream" or config.batch_size <= images, rule, config.batch_size)


def normalization_statistics(images_NHWC: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Mean, 32 x 32 x 3, and standard deviation, 3, of training images' pixels / 255, as the config wants them."""
    # Summed as integers, the mean does not depend on the order or the machine.
    mean_HWC = images_NHWC.sum(axis=0, dtype=np.int64) / (255 * len(images_NHWC))
    channels = mean_HWC.shape[2]
    if config.normalization == "none":
        return np.zeros_like(mean_HWC), np.ones(channels)
    if config.normalization == "pixel-mean":
        return mean_HWC, np.ones(channels)
    mean_C = mean_HWC.mean(axis=(0, 1))
    if config.normalization == "channel-mean":
        return np.broadcast_to(mean_C, mean_HWC.shape), np.ones(channels)
    counts = [np.bincount(images_NHWC[..., channel].ravel(), minlength=256) for channel in range(channels)]
    squares_C = np.array([count @ (np.arange(256) / 255) ** 2 / count.sum() for count in counts])
    return np.broadcast_to(mean_C, mean_HWC.shape), np.sqrt(squares_C - mean_C**2)


def pad_images(images_NHWC: np.ndarray) -> np.ndarray:
    return np.pad(images_NHWC, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))


def to_device(images_NHWC: np.ndarray, labels: np.ndarray, device: torch.device) -> Images:
    """Pads uint8 images, M x 32 x 32 x 3, and sends them to the device."""
    count, side, _, channels = images_NHWC.shape
    padded = torch.zeros(count, side + 2 * PADDING, side + 2 * PADDING, 4, dtype=torch.uint8)
    padded[:, PADDING : PADDING + side, PADDING : PADDING + side, :channels] = torch.from_numpy(images_NHWC)
    return Images(padded.view(-1, 4).to(device), torch.from_numpy(labels).long().to(device))


# Choosing and making batches ------------------------------------------------------------------------------------------


def sample_batches(config: Config, images: int, start: int, stop: int) -> Tensor:
    """What the iterations start <= i < stop train on: int32 on the CPU, T x 4 x N of image, top, left and mirrored.

    The images come from an endless stream of permutations of the training set, cut into batches, so that a batch may end
    one permutation and begin the next (or, with last_batch drop, each permutation gives whole batches only). Top and left
    are those of the crop in the padded image, each uniform in 0..8.
    """
    size = config.batch_size
    used = images // size * size if config.last_batch == "drop" else images
    first, last = start * size // used, (stop * size - 1) // used
    permutations = [random_generator(config.seed, ORDER, p).permutation(images)[:used] for p in range(first, last + 1)]
    stream = np.concatenate(permutations)
    rows = np.full((stop - start, 4, size), PADDING, dtype=np.int32)
    rows[:, 0] = stream[start * size - first * used : stop * size - first * used].reshape(-1, size)
    rows[:, 3] = 0
    if config.augment:
        # As random_numbers(config.seed, AUGMENTATION, iteration), without making a generator each time.
        generator = random_generator(config.seed, AUGMENTATION)
        state = generator.bit_generator.state
        for row, iteration in zip(rows, range(start, stop), strict=True):
            state["state"]["counter"][3] = iteration
            generator.bit_generator.state = state
            row[1:3] = generator.integers(0, 2 * PADDING + 1, (2, size))
            row[3] = generator.integers(0, 2, size)
    return torch.from_numpy(rows)


_plan_once = lru_cache(maxsize=32)(sample_batches)


def sample_batches_cached(config: Config, images: int, start: int, stop: int) -> Tensor:
    """As `sample_batches`, but the nets of a process that train on the same batches share them: not to be written to."""
    draws = {name: getattr(config, name) for name in ("seed", "batch_size", "last_batch", "augment")}
    return _plan_once(Config(**draws), images, start, stop)


def center_crops(start: int, stop: int, device: torch.device) -> Tensor:
    """The rows of a plan, 4 x N, that take the images start <= m < stop as they are."""
    image = torch.arange(start, stop, dtype=torch.int32, device=device)
    return torch.stack([image, *(torch.full_like(image, offset) for offset in (PADDING, PADDING, 0))])


def gather_batch(images: Images, data: Data, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The batch of `images`, a part of `data`, that one row of a plan describes: int32, 4 x N, on their device.

    Returns: images, float32 N x 3 x 32 x 32 (channels last in memory), (pixels / 255 - mean) / std; labels, int64 N.
    """
    image, top, left, mirrored = (row.view(-1, 1, 1) for row in rows)
    side, padded, channels = data.side, data.side + 2 * PADDING, len(data.std)
    line = torch.arange(side, dtype=rows.dtype, device=rows.device)
    column = torch.where(mirrored.bool(), side - 1 - line, line) + left
    position = (top + line.view(1, -1, 1)) * padded + column
    # index_select and in-place arithmetic: three times as fast on a CPU as images.positions[...] / 255 - mean[...].
    words = images.positions.view(torch.int32).flatten().index_select(0, (image * padded**2 + position).flatten())
    pixels = words.view(torch.uint8).view(-1, 4).float().div_(255)[:, :channels]
    pixels = pixels.sub(data.mean.index_select(0, position.flatten())).div_(data.std)
    return pixels.view(-1, side, side, channels).permute(0, 3, 1, 2), images.labels.index_select(0, rows[0])
