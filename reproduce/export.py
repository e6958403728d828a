"""Export a trained network, and check the exported file against the original on test images.

    python reproduce/export.py runs/residual20-1f0c58b5/seed0 --format onnx

All formats take images in [0, 1] (N x 3 x 32 x 32 for CIFAR-10, for any N) and return logits; they include the normalization.
  safetensors   weights file for evaluate.py, predict.py and hubconf.py, with a model card
  torchscript   for torch.jit.load in Python or C++
  onnx          for onnxruntime and others; needs pip install -e '.[export]'
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version

import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from reproduce import cli
from reproduce.config import RunOptions
from reproduce.errors import UserError
from reproduce.model_card import format_model_card, model_card_path, sha256_of_file
from reproduce.record import write_atomically

if TYPE_CHECKING:  # importing torch takes seconds, and --help should not
    from torch import Tensor

    from reproduce.weights import Classifier, TrainedNetwork

Format = Literal["safetensors", "torchscript", "onnx"]
EXTENSION = {"safetensors": ".safetensors", "torchscript": ".pt", "onnx": ".onnx"}
TOLERANCE = 1e-5
"""Largest accepted difference between logits, relative to the largest logit: fp32 rounding errors are relative."""
CHECK_IMAGES = 256
"""Number of test images for the check."""


@dataclass(frozen=True)
class Options:
    """Options of export.py."""

    source: tyro.conf.Positional[Path]
    """Folder of a finished run, or weights file."""
    format: Format
    output: Path | None = None
    """File to write; by default named after the network, in the current folder."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic|mnist")] = RunOptions.data
    """Folder of the dataset (or synthetic, mnist) with the test images for the check."""


def write_torchscript(path: Path, classifier: Classifier, example: Tensor):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends torch.export, whose files depend on torch's version
        torch.jit.save(torch.jit.trace(classifier, example), path)


def write_onnx(path: Path, classifier: Classifier, example: Tensor):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's internals
        torch.onnx.export(
            classifier,
            (example,),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images_NCHW": {0: "images"}},
            external_data=False,
            verbose=False,
        )


def run_exported(path: Path, format: Format, images: Tensor) -> Tensor:
    """Return the logits of an exported file, computed with the format's own library."""
    import torch

    from reproduce.weights import load_network

    if format == "safetensors":
        return load_network(path, "").classifier(images)
    if format == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.load(path)(images)
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def compare_logits(exported_NK: Tensor, original_NK: Tensor) -> float:
    """Return the largest difference between logits, relative to the original's largest logit.

    Raises:
        UserError: it exceeds TOLERANCE, or the predicted class of an image differs.
    """
    difference = float((exported_NK - original_NK).abs().max() / original_NK.abs().max())
    changed = int((exported_NK.argmax(1) != original_NK.argmax(1)).sum())
    if changed or not difference <= TOLERANCE:
        raise UserError(
            f"nothing written: the exported network's logits differ from the original's by {difference:.1e} of the largest, "
            f"and its predictions on {changed} of {len(original_NK)} images"
        )
    return difference


def export(trained: TrainedNetwork, format: Format, output: Path, images: Tensor) -> float:
    """Write the network to `output`, atomically, and return the result of `compare_logits` on `images`, in [0, 1].

    Raises:
        UserError: the exported network differs from the original, or a package is missing.
        OSError: the file cannot be written.
    """
    import torch

    from reproduce.weights import save_network

    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".unfinished-") as folder, torch.inference_mode():
        unfinished = Path(folder) / output.name
        try:
            if format == "safetensors":
                save_network(unfinished, trained)
            else:
                with torch.inference_mode(False):
                    writer = write_torchscript if format == "torchscript" else write_onnx
                    writer(unfinished, trained.classifier, images[:2].clone())
            difference = compare_logits(run_exported(unfinished, format, images), trained.classifier(images))
        except ImportError as error:
            raise UserError(f"--format {format} needs {error.name}: pip install -e '.[export]'") from None
        os.replace(unfinished, output)
    return difference


def main(arguments: Sequence[str]) -> int:
    """Export a network, and for safetensors write its model card.

    Raises:
        UserError: the source cannot be read, its dataset is missing, the exported network differs from the original, or the
            model card would overwrite another file.
        OSError: a file cannot be written.
    """
    options = cli.parse_args(Options, arguments, "export.py", __doc__)

    import torch

    from reproduce.dataset import find_data_folder
    from reproduce.sampling import load_data
    from reproduce.weights import load_network

    trained = load_network(options.source, options.data)
    output = options.output or Path(f"{trained.config.net}{EXTENSION[options.format]}")
    if output.suffix != EXTENSION[options.format]:
        raise UserError(f"--output must end in {EXTENSION[options.format]} with --format {options.format}, got {output}")
    # Checkpoints of other repositories have no result to describe.
    card = model_card_path(output) if options.format == "safetensors" and "parameters" in trained.result else None
    data = load_data(trained.config, find_data_folder(trained.config.dataset, options.data), torch.device("cpu"))
    images = data.unpad(data.test.pixels)[:CHECK_IMAGES].permute(0, 3, 1, 2).contiguous().float() / 255
    difference = export(trained, options.format, output, images)
    print(f"{output}: logits on {len(images)} test images within {difference:.1e} of the original (relative to the largest)")
    if card is not None:
        write_atomically(card, format_model_card(trained.config, trained.result, sha256_of_file(output)).encode())
        print(card)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
