"""Descriptions of the datasets: names, classes, sizes, folders. Does not import torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DatasetName = Literal["cifar10", "synthetic", "mnist", "pictures"]


@dataclass(frozen=True)
class DatasetInfo:
    """What the images of a set are like, and where they are.

    title: what people call it; given: what `--data` has to be for it, other folders apart; folder: that of its files, as
    torchvision has it; side: of the square images, in pixels; iterations: the training length at which a run on all of its
    training images is compared with what is published, None where nothing is.
    """

    title: str
    class_names: tuple[str, ...]
    given: str
    folder: str
    side: int = 32
    channels: int = 3
    iterations: int | None = None


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STRIPES = tuple(f"{direction}-{width}" for direction in ("upright", "level") for width in (2, 3, 5, 8, 12))
DATASETS: dict[DatasetName, DatasetInfo] = {
    "cifar10": DatasetInfo("CIFAR-10", CIFAR10_CLASSES, "data", "cifar-10-batches-py", iterations=64_000),
    "synthetic": DatasetInfo("a generated set, made to test the code", STRIPES, "synthetic", "cifar-10-batches-py"),
    "mnist": DatasetInfo("MNIST", tuple("0123456789"), "mnist", "MNIST", side=28, channels=1, iterations=37_500),
    "pictures": DatasetInfo("own pictures", (), "DIR", "train"),
}
SUBFOLDERS = ("train", "test")
"""The folders in a folder of pictures."""


def detect_dataset(data: str) -> DatasetName:
    """The data set that `--data` names: by its word, or by a folder's name or content; any other folder is CIFAR-10's."""
    if data == "synthetic":
        return "synthetic"
    if data == DATASETS["pictures"].given or any((Path(data) / part).is_dir() for part in SUBFOLDERS):
        return "pictures"
    return "mnist" if data == "mnist" or Path(data).absolute().name == DATASETS["mnist"].folder else "cifar10"
