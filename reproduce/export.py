"""Export a trained network, with its normalization, for use elsewhere.

    python reproduce/export.py runs/residual20-dece074e/seed0 --format onnx

The exported network takes N images in [0, 1] (N x 3 x 32 x 32 for CIFAR-10) and returns their logits.
  safetensors   weights file for evaluate.py, predict.py and --initial, with a model card
  onnx          for onnxruntime and others, checked against PyTorch; needs pip install -e '.[export]'
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import tyro

from reproduce import cli
from reproduce.errors import UserError
from reproduce.model_card import NetworkResult, format_model_card, read_sha256, sha256_of_file
from reproduce.record import CONFIG, write_atomically

if TYPE_CHECKING:  # importing torch takes seconds, and --help should not
    from torch import Tensor

    from reproduce.weights import Classifier, TrainedNetwork

TOLERANCE = 1e-5
"""Largest accepted difference between logits, relative to the largest logit: fp32 rounding errors are relative."""
CHECK_IMAGES = 256
"""Number of random images on which the logits are compared."""


@dataclass(frozen=True)
class Options:
    """Options of export.py."""

    source: tyro.conf.Positional[Path]
    """Folder of a finished run, its best.pt, a weights file, or a checkpoint of akamaster/pytorch_resnet_cifar10."""
    format: Literal["safetensors", "onnx"] = "safetensors"
    output: Path | None = None
    """File to write; by default in the run folder, or next to the weights file."""
    residual: bool = True
    """For a checkpoint of another repository: a residual or a plain network."""
    mean: tuple[float, float, float] | None = None
    """For a checkpoint of another repository: mean of each channel, for pixels in [0, 1]; by default ImageNet's."""
    std: tuple[float, float, float] | None = None
    """For a checkpoint of another repository: standard deviation of each channel; by default ImageNet's."""


def write_weights_file(path: Path, trained: TrainedNetwork) -> list[Path]:
    """Write a weights file and its model card, and return their paths.

    Raises:
        UserError: another file would be overwritten.
        OSError: a file cannot be written.
    """
    from reproduce.weights import save_network

    card = path.with_suffix(".md")
    if card.exists() and read_sha256(card) is None:
        raise UserError(f"the model card would overwrite {card}: choose another --output")
    save_network(path, trained)
    if not NetworkResult.__annotations__.keys() <= trained.result.keys():  # a checkpoint of another repository
        card.unlink(missing_ok=True)  # of an overwritten file
        return [path]
    write_atomically(card, format_model_card(trained.config, trained.result, sha256_of_file(path)).encode())
    return [path, card]


def write_onnx(path: Path, classifier: Classifier):
    """Write an ONNX file, after comparing its logits with the network's.

    Raises:
        UserError: a package is missing, or the logits differ.
        OSError: the file cannot be written.
    """
    import torch

    images = torch.rand(CHECK_IMAGES, *classifier.mean.shape, generator=torch.Generator().manual_seed(0))
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's internals
            program = torch.onnx.export(
                classifier,
                (images[:2],),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images_NCHW": {0: "images"}},
                verbose=False,
            )
    except ImportError as error:
        raise UserError(f"--format onnx needs {error.name}: pip install -e '.[export]'") from None
    assert program is not None
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    exported = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.inference_mode():
        check_logits(exported, classifier(images))
    write_atomically(path, content)


def check_logits(exported_NK: Tensor, original_NK: Tensor):
    """Raise UserError if the exported network's logits differ from the original's by more than TOLERANCE."""
    difference = float((exported_NK - original_NK).abs().max() / original_NK.abs().max())
    if not difference <= TOLERANCE:
        raise UserError(f"nothing written: the exported network's logits differ by {difference:.1e} of the largest logit")


def main(arguments: Sequence[str]) -> int:
    """Export a network, and for safetensors write its model card.

    Raises:
        UserError: the source cannot be read, the exported network differs from it, or the source or another file would be
            overwritten.
        OSError: a file cannot be written.
    """
    options = cli.parse_args(Options, arguments, "export.py", __doc__)

    from reproduce.weights import IMAGENET_MEAN, IMAGENET_STD, load_foreign_checkpoint, load_network

    if not options.source.exists() or (options.residual and options.mean is None and options.std is None):
        trained = load_network(options.source)
    elif options.source.is_dir() or options.source.suffix == ".safetensors" or (options.source.parent / CONFIG).is_file():
        raise UserError(f"--no-residual, --mean and --std are for checkpoints of other repositories, got {options.source}")
    else:
        normalization = options.mean or IMAGENET_MEAN, options.std or IMAGENET_STD
        trained = load_foreign_checkpoint(options.source, options.residual, *normalization)
    source, extension = options.source, f".{options.format}"
    output = options.output or (source / trained.config.net if source.is_dir() else source).with_suffix(extension)
    if output.suffix != extension:
        raise UserError(f"--output must end in {extension} with --format {options.format}, got {output}")
    if output.resolve() == source.resolve():
        raise UserError(f"the export would overwrite its source {output}: choose another --output")
    if options.format == "safetensors":
        print(*write_weights_file(output, trained), sep="\n")
    else:
        write_onnx(output, trained.classifier)
        print(output)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
