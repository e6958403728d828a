"""Images on the device as uint8 tensors, and batches that are a pure function of (seed, iteration).

Shapes: M images in a set, N in a batch, T iterations, H rows, W columns, C channels; 32 x 32 x 3 for CIFAR-10.

An image is stored with 4 pixels of zero padding on each side. A batch is one gather: for each of its images, the pixels of
a random crop, flipped or not. The mean is padded with zeros and gathered in the same way, so padding is exactly zero after the
subtraction, as if the padding had been added after it (section 4.2).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reproduce.config import Config, LastBatch, Normalization, require
from reproduce.dataset import DatasetName, read_dataset
from reproduce.errors import UserError
from reproduce.randomness import AUGMENTATION, ORDER, SPLIT, random_generator

PADDING = 4
VALIDATION_DIVISOR = 10
"""The validation split contains 1/10 of each class, 5k of CIFAR-10's 50k training images."""


@dataclass(frozen=True)
class Images:
    """M images on a device.

    pixels: uint8, (M * 40 * 40) x 4, the padded images row by row; red, green, blue and a zero, so that a pixel is gathered
    as one 32-bit word (NPUs are slow with rows of 3 bytes). labels: int64, M.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """The images of a run and their normalization.

    validation: None without a validation split. mean: float32, (40 * 40) x 3, of the training images' pixels / 255, zero in
    the padding. std: float32, 3, per channel; ones unless the configuration divides by it. fingerprint: SHA-256 of all
    images and labels of the dataset, before the split.
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


# Loading --------------------------------------------------------------------------------------------------------------


def load_data(config: Config, folder: Path, device: torch.device) -> Data:
    """Read the configuration's dataset, downloading or generating it if missing, and put it on the device.

    Runs of this process that need the same data share it.

    Raises:
        UserError: the dataset cannot be read or downloaded, or is too small.
    """
    split_seed = config.seed if config.split == "val" else None
    data = build_data(config.dataset, config.classes, config.normalization, split_seed, folder.resolve(), device)
    count = len(data.train)
    rule = f"batch-size must be at most {count:,}, the number of training images, with --last-batch drop"
    require(config.last_batch == "stream" or config.batch_size <= count, rule, config.batch_size)
    return data


@lru_cache(maxsize=4)
def build_data(
    dataset: DatasetName,
    classes: str,
    normalization: Normalization,
    split_seed: int | None,
    folder: Path,
    device: torch.device,
) -> Data:
    """Read a dataset, split it (by `split_seed`, unless None) and put it on the device.

    Takes no Config: the arguments are the cache key.
    """
    (train_NHWC, train_labels, test_NHWC, test_labels), fingerprint = read_dataset(dataset, folder, classes)
    mask = np.zeros(len(train_labels), dtype=bool) if split_seed is None else validation_mask(train_labels, split_seed)
    if split_seed is not None and not mask.any():
        raise UserError(f"--split val needs a class of at least {VALIDATION_DIVISOR} training images in {folder}")
    mean_HWC, std_C = normalization_statistics(train_NHWC[~mask], normalization)
    return Data(
        train=to_device(train_NHWC[~mask], train_labels[~mask], device),
        validation=to_device(train_NHWC[mask], train_labels[mask], device) if mask.any() else None,
        test=to_device(test_NHWC, test_labels, device),
        mean=torch.from_numpy(pad_mean(mean_HWC)).float().to(device),
        std=torch.from_numpy(std_C).float().to(device),
        fingerprint=fingerprint,
    )


def validation_mask(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return a boolean mask (M) that selects a random tenth of every class."""
    mask = np.zeros(len(labels), dtype=bool)
    generator = random_generator(seed, SPLIT)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        mask[members[: len(members) // VALIDATION_DIVISOR]] = True
    return mask


def normalization_statistics(images_NHWC: np.ndarray, normalization: Normalization) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (H x W x C) and standard deviation (C) for normalizing pixels in [0, 1]."""
    # An integer sum depends neither on the order of the images nor on the machine.
    mean_HWC = images_NHWC.sum(axis=0, dtype=np.int64) / (255 * len(images_NHWC))
    ones_C = np.ones(mean_HWC.shape[2])
    if normalization == "none":
        return np.zeros_like(mean_HWC), ones_C
    if normalization == "pixel-mean":
        return mean_HWC, ones_C
    mean_C = mean_HWC.mean(axis=(0, 1))
    if normalization == "channel-mean":
        return np.broadcast_to(mean_C, mean_HWC.shape), ones_C
    counts = [np.bincount(images_NHWC[..., channel].ravel(), minlength=256) for channel in range(len(mean_C))]
    squares_C = np.array([count @ (np.arange(256) / 255) ** 2 / count.sum() for count in counts])
    variance_C = squares_C - mean_C**2
    if (variance_C < 1e-12).any():
        raise UserError("--normalization channel-mean-std cannot divide by 0: the training images have a constant channel")
    return np.broadcast_to(mean_C, mean_HWC.shape), np.sqrt(variance_C)


def pad_mean(mean_HWC: np.ndarray) -> np.ndarray:
    """Pad a mean with zeros and flatten it to (40 * 40) x C."""
    return np.pad(mean_HWC, ((PADDING, PADDING), (PADDING, PADDING), (0, 0))).reshape(-1, mean_HWC.shape[2])


def to_device(images_NHWC: np.ndarray, labels: np.ndarray, device: torch.device) -> Images:
    """Pad uint8 images and move them to the device."""
    count, side, _, channels = images_NHWC.shape
    padded = torch.zeros(count, side + 2 * PADDING, side + 2 * PADDING, 4, dtype=torch.uint8)
    padded[:, PADDING : PADDING + side, PADDING : PADDING + side, :channels] = torch.from_numpy(images_NHWC)
    return Images(padded.view(-1, 4).to(device), torch.from_numpy(labels).long().to(device))


# Batches --------------------------------------------------------------------------------------------------------------


def sample_batches(config: Config, image_count: int, start: int, stop: int) -> Tensor:
    """Return the crops that form the batches of iterations start <= i < stop, from `image_count` training images.

    A crop is the index of an image with its offset and flip.

    Returns: int32 on the CPU, T x 4 x N: image, top, left, flipped. Do not write to it: it is shared by the runs of this
    process that train on the same batches.
    """
    return draw_crops(config.seed, config.batch_size, config.last_batch, config.augment, image_count, start, stop)


@lru_cache(maxsize=32)
def draw_crops(
    seed: int, batch_size: int, last_batch: LastBatch, augment: bool, image_count: int, start: int, stop: int
) -> Tensor:
    """Draw the crops of `sample_batches`.

    The images come from an endless stream of epochs, each a permutation of the training set. With last_batch "stream" a batch
    may begin in one epoch and end in the next; with "drop" the remainder of each epoch is skipped. The offsets of a crop in
    the padded image are uniform in 0..8.

    Takes no Config: the arguments are the cache key.
    """
    used = image_count // batch_size * batch_size if last_batch == "drop" else image_count
    first, last = start * batch_size // used, (stop * batch_size - 1) // used
    stream = np.concatenate([random_generator(seed, ORDER, p).permutation(image_count)[:used] for p in range(first, last + 1)])
    crops = np.full((stop - start, 4, batch_size), PADDING, dtype=np.int32)
    crops[:, 0] = stream[start * batch_size - first * used : stop * batch_size - first * used].reshape(-1, batch_size)
    crops[:, 3] = 0
    if augment:
        # random_generator(seed, AUGMENTATION, iteration), without the cost of a new generator per iteration.
        generator = random_generator(seed, AUGMENTATION)
        state = generator.bit_generator.state
        for crop, iteration in zip(crops, range(start, stop), strict=True):
            state["state"]["counter"][3] = iteration
            generator.bit_generator.state = state
            crop[1:3] = generator.integers(0, 2 * PADDING + 1, (2, batch_size))
            crop[3] = generator.integers(0, 2, batch_size)
    return torch.from_numpy(crops)


def center_crops(start: int, stop: int, device: torch.device) -> Tensor:
    """Return the crops (4 x N) that leave the images start <= m < stop unchanged."""
    image = torch.arange(start, stop, dtype=torch.int32, device=device)
    return torch.stack([image, *(torch.full_like(image, value) for value in (PADDING, PADDING, 0))])


def gather_batch(images: Images, data: Data, crops_4N: Tensor) -> tuple[Tensor, Tensor]:
    """Gather one batch from `images`, a part of `data`. crops_4N: on the same device.

    Returns: (pixels / 255 - mean) / std, float32, N x 3 x 32 x 32 (channels last in memory); labels, int64, N.
    """
    image, top, left, flipped = (row.view(-1, 1, 1) for row in crops_4N)
    side, padded, channels = data.side, data.side + 2 * PADDING, len(data.std)
    line = torch.arange(side, dtype=crops_4N.dtype, device=crops_4N.device)
    column = torch.where(flipped.bool(), side - 1 - line, line) + left
    position = (top + line.view(1, -1, 1)) * padded + column
    # index_select and in-place arithmetic: three times as fast on a CPU as images.pixels[...] / 255 - mean[...].
    words = images.pixels.view(torch.int32).flatten().index_select(0, (image * padded**2 + position).flatten())
    pixels = words.view(torch.uint8).view(-1, 4).float().div_(255)[:, :channels]
    pixels = pixels.sub(data.mean.index_select(0, position.flatten())).div_(data.std)
    return pixels.view(-1, side, side, channels).permute(0, 3, 1, 2), images.labels.index_select(0, crops_4N[0])
