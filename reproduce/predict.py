"""Classify images of any size with a trained network.

    python reproduce/predict.py WEIGHTS.safetensors cat.jpg photos

Resizes the shorter side of each image to 32 pixels and crops the center, to match the training images. For
networks trained on MNIST, it converts to 28 x 28 grayscale; they expect white digits on black.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from reproduce import cli
from reproduce.config import require
from reproduce.errors import UserError
from reproduce.image_folder import EXTENSIONS, read_image

if TYPE_CHECKING:  # importing torch takes seconds, and --help should not
    from torch import Tensor

    from reproduce.dataset import DatasetInfo

TOP_K, BAR_WIDTH = 3, 40
"""Number of classes printed per image, and length of the bar for a probability of 100%."""


@dataclass(frozen=True)
class Options:
    """Options of predict.py."""

    source: tyro.conf.Positional[Path]
    """Folder of a finished run, its best.pt, a weights file, or a checkpoint of akamaster/pytorch_resnet_cifar10."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, or folders of images."""


def expand_folders(paths: Sequence[Path]) -> list[Path]:
    """Replace each folder by the image files below it; raise UserError if there are none."""
    require(len(paths) > 0, "name at least one image", "none")
    images = []
    for path in paths:
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file())
        require(len(found) > 0 or not path.is_dir(), "a folder must contain images", path)
        images += found if path.is_dir() else [path]
    return images


def load_input(path: Path, dataset_info: DatasetInfo) -> Tensor:
    """Load an image as network input: float32 in [0, 1], 1 x 3 x 32 x 32. Raises like `read_image`."""
    from torchvision import transforms

    return transforms.ToTensor()(read_image(path, dataset_info.side, dataset_info.channels))[None]


def format_predictions(probabilities: Tensor, names: Sequence[str]) -> str:
    """Return one line with a bar for each of the most probable classes. probabilities: K."""
    values, classes = probabilities.topk(min(TOP_K, len(names)))
    width = max(12, *map(len, names))
    return "\n".join(
        f"  {names[index]:{width}} {100 * value:6.2f}%  {'#' * round(BAR_WIDTH * value)}"
        for value, index in zip(values.tolist(), classes.tolist(), strict=True)
    )


def main(arguments: Sequence[str]) -> int:
    """Print the predicted classes of each image. Return 1 if some images cannot be read; they are listed at the end.

    Raises:
        UserError: the network cannot be read, or there are no images.
    """
    options = cli.parse_args(Options, arguments, "predict.py", __doc__)

    import torch

    from reproduce.weights import load_network

    paths, trained = expand_folders(options.images), load_network(options.source)
    dataset_info, problems = trained.config.dataset_info, []
    size = f"{dataset_info.side} x {dataset_info.side}"
    print(f"{trained.config.net} from {trained.source}; images resized and center-cropped to {size}")
    with torch.inference_mode():
        for path in paths:
            try:
                logits = trained.classifier(load_input(path, dataset_info))[0]
            except UserError as error:
                problems.append(error)
                continue
            print(f"{path}\n{format_predictions(logits.softmax(0), dataset_info.class_names)}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
