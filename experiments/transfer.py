"""Transfer: how much does pretraining help when images are few, and which layers should be fine-tuned?

A ResNet-20 is pretrained on five classes of CIFAR-10 and then trained on the other five with 50 or 500 images per class:
fine-tuning all layers, the last stage and the linear layer, or the linear layer only, and training from scratch. All
methods are trained for the same number of iterations with the paper's schedule. The images are sampled anew for each seed and
written to image folders.
Fine-tuning uses a tenth of the paper's learning rate, as is common, except for the linear layer alone; it was not tuned.

Expected: nothing is published under these conditions. It is commonly reported that pretraining helps more, and
that fewer layers should be fine-tuned, when data is scarce.

Device-hours: 0.2 to 0.4 per seed on one CPU core, with other work on the CPU.

    python experiments/transfer.py
    python analysis/plot_transfer.py --records runs
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from filelock import FileLock

from reproduce import cli
from reproduce.config import Precision, RunOptions, require
from reproduce.dataset import CIFAR10_CLASSES, find_data_folder, read_dataset
from reproduce.randomness import SPLIT, random_generator

PRETRAINING_CLASSES = "airplane/automobile/bird/cat/deer"
NEW_CLASSES = "dog/frog/horse/ship/truck"
"""Class names, separated by "/" as in Config.classes."""
IMAGES_PER_CLASS = (50, 500)
"""Images per new class."""
SEEDS = 3
PRETRAINING_ITERATIONS, ITERATIONS = 1_000, 200
"""Iterations of pretraining, and of training on the new classes."""
METHODS = {"scratch": 0.1, "all": 0.01, "last-stage": 0.01, "head": 0.1}
"""Learning rate of each method: training from scratch, or fine-tuning with this value of --trainable."""
DEPTH = 20
PRECISION: Precision = "bf16"
RECIPE = ["--depth", str(DEPTH), "--precision", PRECISION]


@dataclass(frozen=True)
class Transfer:
    """What to train, and where."""

    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="SEED ...")] = tuple(range(SEEDS))
    data: Annotated[str, tyro.conf.arg(metavar="DIR")] = RunOptions.data
    """Folder of CIFAR-10."""
    work: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data/transfer")
    """Folder for the image folders and the pretrained weights."""
    out: Path = RunOptions.out
    """Folder for the run folders."""

    def __post_init__(self):
        require(all(seed >= 0 for seed in self.seeds), "seeds must be at least 0", min(self.seeds, default=0))


def write_images(folder: Path, images_NHWC: np.ndarray, labels: np.ndarray, classes: str):
    """Write the images of some classes to a folder per class, as PPM, which is byte-identical on every machine."""
    from PIL import Image

    for name in classes.split("/"):
        (folder / name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images_NHWC, labels, strict=True)):
        if CIFAR10_CLASSES[label] in classes.split("/"):
            Image.fromarray(image).save(folder / CIFAR10_CLASSES[label] / f"{number:05}.ppm")


def write_image_folders(work: Path, data: str, seeds: Sequence[int]):
    """Write the missing image folders, one process at a time.

    first: the pretraining classes. second-<images per class>-<seed>: a sample of the new classes; these share the test images
    in second-test.
    """
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work / ".lock"):
        folders = [work / "first", work / "second-test"]
        folders += [work / f"second-{count}-{seed}" for count in IMAGES_PER_CLASS for seed in seeds]
        if missing := [folder for folder in folders if not folder.exists()]:
            write_missing(missing, data)


def write_missing(folders: Sequence[Path], data: str):
    (train_NHWC, train_labels, test_NHWC, test_labels), _ = read_dataset("cifar10", find_data_folder("cifar10", data))
    for folder in folders:
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        if folder.name == "first":
            write_images(unfinished / "train", train_NHWC, train_labels, PRETRAINING_CLASSES)
            write_images(unfinished / "test", test_NHWC, test_labels, PRETRAINING_CLASSES)
        elif folder.name == "second-test":
            write_images(unfinished, test_NHWC, test_labels, NEW_CLASSES)
        else:
            _, count, seed = folder.name.split("-")
            order = random_generator(int(seed), SPLIT).permutation(len(train_labels))
            chosen = np.concatenate([order[train_labels[order] == label][: int(count)] for label in range(10)])
            write_images(unfinished / "train", train_NHWC[chosen], train_labels[chosen], NEW_CLASSES)
            (unfinished / "test").symlink_to("../second-test")
        os.replace(unfinished, folder)


def list_commands(transfer: Transfer, seed: int) -> Iterator[list[str]]:
    """Yield run.py's flags for one seed: pretraining, then the runs on the new classes."""
    common = [*RECIPE, "--seed", str(seed), "--out", str(transfer.out)]
    yield [*common, "--data", str(transfer.work / "first"), "--iterations", str(PRETRAINING_ITERATIONS)]
    for count in IMAGES_PER_CLASS:
        for method, lr in METHODS.items():
            data = str(transfer.work / f"second-{count}-{seed}")
            flags = ["--data", data, "--iterations", str(ITERATIONS), "--lr", str(lr)]
            pretrained = ["--trainable", method, "--initial", str(pretrained_weights_path(transfer, seed))]
            yield [*common, *flags, *([] if method == "scratch" else pretrained)]


def pretrained_weights_path(transfer: Transfer, seed: int) -> Path:
    return transfer.work / f"first-seed{seed}.safetensors"


def main(arguments: Sequence[str]) -> int:
    """Train the missing runs and return 0, or the exit status of the first run that did not finish.

    Raises:
        UserError: CIFAR-10 or the pretrained weights are missing, or a run reports an error.
    """
    transfer = cli.parse_args(Transfer, arguments, "transfer.py", __doc__, tyro.conf.FlagCreatePairsOff)

    from reproduce import export, run

    write_image_folders(transfer.work, transfer.data, transfer.seeds)
    for seed in transfer.seeds:
        pretraining, *others = list_commands(transfer, seed)
        if status := run.main(pretraining):
            return status
        weights = pretrained_weights_path(transfer, seed)
        if not weights.exists():
            export.main([str(transfer.out / run.parse(pretraining)[0].folder), "--output", str(weights)])
        for flags in others:
            if status := run.main(flags):
                return status
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
