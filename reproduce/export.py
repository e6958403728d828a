"""Export a trained network for use elsewhere, checked against the original on test images before it is called done.

    python reproduce/export.py runs/residual20-1f0c58b5/seed0 --format onnx

Every format takes images in [0, 1], N x 3 x 32 x 32 with any N, and gives logits, N x 10: the normalisation is inside.
  safetensors   weights, normalisation, config and result, for evaluate.py, predict.py, hubconf.py; with a model card
  torchscript   for torch.jit.load, from Python or C++
  onnx          for onnxruntime and others; needs pip install -e '.[export]'
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from reproduce import cli
from reproduce.config import RunOptions
from reproduce.errors import UserError
from reproduce.model_card import format_card, sha256_of_file, write_card
from reproduce.record import write_atomically

if TYPE_CHECKING:  # imported where it is used, so that the command line answers at once
    from torch import Tensor

    from reproduce.weights import Classifier, TrainedNetwork

Format = Literal["safetensors", "torchscript", "onnx"]
EXTENSION = {"safetensors": ".safetensors", "torchscript": ".pt", "onnx": ".onnx"}
TOLERANCE = 1e-5
"""The largest difference of a logit that an exported network may show, as a share of the largest logit: fp32's rounding grows
with what is rounded."""
CHECKED = 256
"""Test images on which it is compared."""


@dataclass(frozen=True)
class Export:
    """What to export, and how."""

    source: tyro.conf.Positional[Path]
    """A finished run's folder, or a weights file."""
    format: Format
    output: Path | None = None
    """File to write; by default the net's name in the current folder."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic|mnist")] = RunOptions.data
    """As for run.py: the test images of the check come from there."""


def write_torchscript(path: Path, classifier: Classifier, example: Tensor):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export, whose files need its own version
        torch.jit.save(torch.jit.trace(classifier, example), path)


def write_onnx(path: Path, classifier: Classifier, example: Tensor):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own insides
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
    """Logits of the exported file, by the library that users of the format have."""
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


def compare(exported_NK: Tensor, original_NK: Tensor) -> float:
    """The largest difference of a logit, as a share of the original's largest.

    Raises:
        UserError: it is above TOLERANCE, or an image is put into another class.
    """
    difference = float((exported_NK - original_NK).abs().max() / original_NK.abs().max())
    moved = int((exported_NK.argmax(1) != original_NK.argmax(1)).sum())
    if moved or not difference <= TOLERANCE:
        by = f"{difference:.1e} of the largest logit"
        if moved:
            by += f" and puts {moved} of {len(original_NK)} images into other classes"
        raise UserError(f"the exported network differs from the original by {by}: nothing is written")
    return difference


def export(trained: TrainedNetwork, format: Format, output: Path, images: Tensor) -> float:
    """Writes the network to `output`, whole or not at all; images: in [0, 1], on which the file is checked.

    Returns: the largest difference of a logit from the original's, see `compare`.

    Raises:
        UserError: the exported network is not the original, or onnx is not installed; nothing is written.
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
            difference = compare(run_exported(unfinished, format, images), trained.classifier(images))
        except ImportError as error:
            raise UserError(f"this format needs {error.name}: pip install -e '.[export]'") from None
        os.replace(unfinished, output)
    return difference


def main(arguments: Sequence[str]) -> int:
    """Exports, checks, and says where the file is.

    Raises:
        UserError: the source cannot be read, the data set is missing, the exported network is not the original, or the card
            would replace another file.
        OSError: the file cannot be written.
    """
    export_ = cli.parse_args(Export, arguments, "export.py", __doc__)

    import torch

    from reproduce.sampling import find_data_folder, load_data
    from reproduce.weights import load_network

    trained = load_network(export_.source, export_.data)
    output = export_.output or Path(f"{trained.config.net}{EXTENSION[export_.format]}")
    if output.suffix != EXTENSION[export_.format]:
        raise UserError(f"--format {export_.format} writes a file ending in {EXTENSION[export_.format]}, and {output} does not")
    card = write_card(output) if export_.format == "safetensors" and trained.result.get("parameters") else None
    data = load_data(trained.config, find_data_folder(trained.config, export_.data), torch.device("cpu"))
    images = data.unpad(data.test.positions)[:CHECKED].permute(0, 3, 1, 2).contiguous().float() / 255
    difference = export(trained, export_.format, output, images)
    agreement = f"on {len(images)} test images within {difference:.1e} of the original, relative to the largest logit"
    print(f"{output}: {output.stat().st_size:,} bytes; {agreement}")
    if card is not None:
        write_atomically(card, format_card(trained.config, trained.result, sha256_of_file(output)).encode())
        print(card)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
