"""Tell what a trained network sees in pictures of any size.

    python reproduce/predict.py WEIGHTS.safetensors cat.jpg dog.png

A picture is turned upright and made as small as CIFAR-10's: its shorter side resized to 32 pixels, its centre cut to 32 x 32.
For a network of MNIST they are 28, and the picture turns grey: white on black is what it knows.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from reproduce import cli
from reproduce.config import RunOptions, require
from reproduce.image_folder import read_image

if TYPE_CHECKING:  # imported where it is used, so that the command line answers at once
    from torch import Tensor

    from reproduce.dataset import DatasetInfo

SHOWN, BAR = 3, 40
"""Classes shown for a picture, and the length of the bar that stands for 100%."""


@dataclass(frozen=True)
class Prediction:
    """What to look at, and with which network."""

    source: tyro.conf.Positional[Path]
    """A weights file, or a finished run's folder."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures, of any format that Pillow reads."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic|mnist")] = RunOptions.data
    """Where a run folder's data set is, for the mean of its training images; weights files hold theirs."""

    def __post_init__(self):
        require(len(self.images) > 0, "name at least one picture", "none")


def load_input(path: Path, dataset_info: DatasetInfo) -> Tensor:
    """A picture as a network of this data set takes it: float32 in [0, 1], 1 x 3 x 32 x 32; raises as `read_image`."""
    from torchvision import transforms

    return transforms.ToTensor()(read_image(path, dataset_info))[None]


def choose_block() -> str:
    """What bars are made of, as far as stdout's encoding goes."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return "█"


def describe(probabilities: Tensor, names: Sequence[str]) -> str:
    """The likeliest classes of one picture, K probabilities, with bars."""
    values, classes = probabilities.topk(min(SHOWN, len(names)))
    rows, block, width = zip(values.tolist(), classes.tolist(), strict=True), choose_block(), max(12, *map(len, names))
    return "\n".join(f"  {names[index]:{width}} {100 * value:6.2f}%  {block * round(BAR * value)}" for value, index in rows)


def main(arguments: Sequence[str]) -> int:
    """Prints the classes of each picture.

    Raises:
        UserError: the network or a picture cannot be read.
    """
    prediction = cli.parse_args(Prediction, arguments, "predict.py", __doc__)

    import torch

    from reproduce.weights import load_network

    trained = load_network(prediction.source, prediction.data)
    dataset_info = trained.config.dataset_info
    pictures = [load_input(path, dataset_info) for path in prediction.images]
    size = f"{dataset_info.side} x {dataset_info.side} pixels"
    print(f"{trained.config.net} of {trained.source}; pictures resized and centre-cropped to {size}")
    with torch.inference_mode():
        for path, picture in zip(prediction.images, pictures, strict=True):
            print(f"{path}\n{describe(trained.classifier(picture)[0].softmax(0), dataset_info.class_names)}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
