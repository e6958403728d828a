"""Transfer: how much do a few pictures of new classes gain from a net that has learnt others, and which layers should learn?

    python experiments/transfer.py

A ResNet-20 learns five classes of CIFAR-10, and then the other five from 50 or 500 pictures of each: all of it trained on,
its last stage and linear layer, or its linear layer alone, beside the same net from scratch, all at the same length and,
for want of another that would favour none, with the paper's schedule. The pictures are drawn anew for each seed, and lie in
folders as one's own would. A step of a net that has learnt is a tenth of the paper's, as is usual, but for a linear layer
that is alone in learning; the choice was not tuned.

Expected: nothing that was published under these conditions. What is commonly held is that pretraining helps the more, the
fewer pictures there are, and that the fewer there are, the fewer layers should learn.

Device-hours: 0.17 for each seed on a CPU core (ten minutes of its time; 14 to 27 by the clock, beside other work).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from reproduce import cli
from reproduce.config import Config, Precision, RunOptions, require
from reproduce.errors import UserError
from reproduce.record import NEWEST

if TYPE_CHECKING:
    import numpy as np

FIRST = "airplane/automobile/bird/cat/deer"
"""The classes that are learnt before, and those that are learnt after."""
SECOND = "dog/frog/horse/ship/truck"
PICTURES = (50, 500)
"""Of each new class."""
SEEDS = 3
LENGTH_BEFORE, LENGTH_AFTER = 1_000, 200
"""Iterations."""
WAYS = {"scratch": 0.1, "all": 0.01, "last-stage": 0.01, "head": 0.1}
"""Their learning rates; all but the first begin with what the net has learnt, and are named as --trainable names them."""
DEPTH = 20
PRECISION: Precision = "bf16"
RECIPE = ["--depth", str(DEPTH), "--precision", PRECISION]


@dataclass(frozen=True)
class Transfer:
    """What to train, and where."""

    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="SEED ...")] = tuple(range(SEEDS))
    """The replicates to train."""
    only_before: bool = False
    """Only train the five classes that are learnt before."""
    data: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path(RunOptions.data)
    """Where CIFAR-10 is."""
    work: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data/transfer")
    """Folder that receives the pictures and the weights."""
    out: Path = RunOptions.out
    """Folder that receives the runs."""

    def __post_init__(self):
        require(all(seed >= 0 for seed in self.seeds), "seeds must be at least 0", self.seeds)


def write_pictures(folder: Path, images: np.ndarray, labels: np.ndarray, classes: str, names: tuple[str, ...]):
    """Writes those images, uint8 M x 32 x 32 x 3, that are of the classes, each into the folder of its class.

    As PPM, which is the same bytes on every machine.
    """
    from PIL import Image

    for name in classes.split("/"):
        (folder / name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        if names[label] in classes.split("/"):
            Image.fromarray(image).save(folder / names[label] / f"{number:05}.ppm")


def make_sets(work: Path, cifar10: Path, seeds: Sequence[int]):
    """Makes the folders of pictures that are not there yet: first, and second-PICTURES-SEED, which share their test set."""
    import numpy as np
    import torch

    from reproduce.dataset import DATASETS
    from reproduce.randomness import SPLIT, random_generator
    from reproduce.sampling import load_data

    wanted = [work / "first", work / "second-test"]
    wanted += [work / f"second-{pictures}-{seed}" for pictures in PICTURES for seed in seeds]
    missing = [folder for folder in wanted if not folder.exists()]
    if not missing:
        return
    data, names = load_data(Config(), cifar10, torch.device("cpu")), DATASETS["cifar10"].class_names
    sets = {"train": data.train, "test": data.test}
    parts = {part: (data.unpad(images.pixels).numpy(), images.labels.numpy()) for part, images in sets.items()}
    for folder in missing:
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        if folder.name == "first":
            for part, (images, labels) in parts.items():
                write_pictures(unfinished / part, images, labels, FIRST, names)
        elif folder.name == "second-test":
            images, labels = parts["test"]
            write_pictures(unfinished, images, labels, SECOND, names)
        else:
            _, pictures, seed = folder.name.split("-")
            images, labels = parts["train"]
            order = random_generator(int(seed), SPLIT).permutation(len(labels))
            chosen = np.concatenate([order[labels[order] == label][: int(pictures)] for label in range(len(names))])
            write_pictures(unfinished / "train", images[chosen], labels[chosen], SECOND, names)
            (unfinished / "test").symlink_to("../second-test")
        os.replace(unfinished, folder)


def list_commands(transfer: Transfer, seed: int) -> Iterator[list[str]]:
    """The command lines of run.py for one seed: first what is learnt before, then everything that begins with it."""
    common = [*RECIPE, "--seed", str(seed), "--out", str(transfer.out)]
    yield [*common, "--data", str(transfer.work / "first"), "--iterations", str(LENGTH_BEFORE)]
    for pictures in PICTURES:
        for way, rate in WAYS.items():
            data = ["--data", str(transfer.work / f"second-{pictures}-{seed}"), "--iterations", str(LENGTH_AFTER)]
            begun = ["--trainable", way, "--initial", str(weights_file(transfer, seed))]
            yield [*common, *data, "--lr", str(rate), *([] if way == "scratch" else begun)]


def weights_file(transfer: Transfer, seed: int) -> Path:
    return transfer.work / f"first-seed{seed}.safetensors"


def main(arguments: Sequence[str]) -> int:
    """Trains what has not ended yet; a run's exit status where it is another than 0.

    Raises:
        UserError: CIFAR-10 is missing, or something is in the way of a run.
    """
    transfer = cli.parse_args(Transfer, arguments, "transfer.py", __doc__, tyro.conf.FlagCreatePairsOff)

    from reproduce import export, run

    make_sets(transfer.work, transfer.data, transfer.seeds)
    for seed in transfer.seeds:
        before, *after = list_commands(transfer, seed)
        status = run.run(before)
        weights = weights_file(transfer, seed)
        if status == 0 and not weights.exists():
            folder = transfer.out / run.parse(before)[0].folder
            if not (folder / NEWEST).exists():
                raise UserError(
                    f"{folder} has ended and holds no {NEWEST}, so that nothing can begin with it: choose another --out"
                )
            first = ["--data", str(transfer.work / "first")]
            export.main([str(folder), "--format", "safetensors", "--output", str(weights), *first])
        for line in [] if transfer.only_before else after:
            status = status or run.run(line)
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
