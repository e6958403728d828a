"""Evaluate trained networks: test error, error of each class, confusion matrix, calibration error.

    python reproduce/evaluate.py runs/residual20-1f0c58b5/seed0 runs/residual20-1f0c58b5/seed1
    python reproduce/evaluate.py WEIGHTS.safetensors --figures figures

Accepts folders of finished runs, weights files of this repository, and checkpoints of akamaster/pytorch_resnet_cifar10.
On the same device with the same versions, the test error equals the one in the run's result.json.

Shapes: M test images, K classes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from reproduce import cli
from reproduce.config import DeviceChoice, RunOptions, require

if TYPE_CHECKING:  # importing torch takes seconds, and --help should not
    from torch import Tensor

    from reproduce.device import Device
    from reproduce.sampling import Data
    from reproduce.weights import TrainedNetwork

BINS = 15
"""Equal-width bins of the calibration error, as in Guo et al. 2017 (arXiv:1706.04599)."""
GRID = (5, 8)
"""Rows and columns of mistakes.png."""
MAX_CLASSES = 20
"""Largest number of classes for which the confusion matrix is printed, and drawn with numbers."""


@dataclass(frozen=True)
class Options:
    """Options of evaluate.py."""

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of finished runs, or weights files."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DIR|synthetic|mnist")] = None
    """Folder of the dataset; by default the one that the run was trained on, or data."""
    device: DeviceChoice = RunOptions.device
    """auto uses the first available device of npu, cuda, cpu."""
    figures: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Draw confusion.png, and mistakes.png with the most confident mistakes, into this folder; for one source."""

    def __post_init__(self):
        require(len(self.sources) > 0, "name at least one run folder or weights file", "none")
        require(self.figures is None or len(self.sources) == 1, "--figures needs exactly one source", len(self.sources))


def predict_all(trained: TrainedNetwork, data: Data, device: Device) -> tuple[Tensor, Tensor]:
    """Return probabilities, M x K, and labels, M, of the test set, as in the evaluations during training."""
    import torch

    from reproduce.evaluation import evaluation_mode, iterate_single_views

    network = trained.classifier.network.to(device.torch_device).to(memory_format=device.memory_format)
    logits, labels = [], []
    with evaluation_mode(network, device, trained.config):
        for views, batch_labels in iterate_single_views(data.test, data, device):
            logits.append(network(views).float().cpu())
            labels.append(batch_labels.cpu())
    return torch.cat(logits).softmax(1), torch.cat(labels)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error in percent: |accuracy - confidence|, weighted by the images of each bin."""
    import torch

    confidence, predicted = probabilities.double().max(1)
    correct = (predicted == labels).double()
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, correct - confidence)
    return 100 * float(gaps.abs().sum()) / len(labels)


def count_confusions(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the number of images by true class (rows) and predicted class (columns), K x K."""
    classes = probabilities.shape[1]
    pairs = labels * classes + probabilities.argmax(1)
    return pairs.bincount(minlength=classes**2).view(classes, classes)


def format_evaluation(trained: TrainedNetwork, probabilities: Tensor, labels: Tensor, names: Sequence[str]) -> str:
    counts = count_confusions(probabilities, labels)
    wrong = int(counts.sum() - counts.trace())
    lines = [f"{trained.source}: test error {100 * wrong / len(labels):.2f}% ({wrong} of {len(labels)} images)"]
    recorded = [name for name in ("test_error", "best_test_error") if name in trained.result]
    if recorded:
        lines.append(f"recorded {recorded[0].replace('_', ' ')}: {trained.result[recorded[0]]:.2f}%")
    lines += ["", f"{'class':12}  {'error':>7}  {'images':>9}"]
    for name, row, correct in zip(names, counts, counts.diagonal(), strict=True):
        images = int(row.sum())
        lines.append(f"{name:12}  {100 * (1 - int(correct) / images) if images else 0:6.2f}%  {images:9}")
    if len(names) <= MAX_CLASSES:
        lines += ["", "confusion matrix (rows: true class; columns: predicted class, in the same order)"]
        lines += [
            f"{name:12}" + "".join(f"{count:6}" for count in row) for name, row in zip(names, counts.tolist(), strict=True)
        ]
    confidence = 100 * float(probabilities.max(1).values.double().mean())
    error = calibration_error(probabilities, labels)
    lines += ["", f"expected calibration error {error:.2f}% ({BINS} bins); mean confidence {confidence:.2f}%"]
    return "\n".join(lines)


def find_mistakes(probabilities: Tensor, labels: Tensor) -> list[int]:
    """Return the indices of the misclassified images, in order of decreasing confidence."""
    confidence, predicted = probabilities.max(1)
    mistakes = (predicted != labels).nonzero().flatten()
    return mistakes[confidence[mistakes].argsort(descending=True, stable=True)].tolist()


def draw_figures(folder: Path, probabilities: Tensor, labels: Tensor, data: Data, names: Sequence[str]) -> list[Path]:
    """Draw confusion.png and mistakes.png, and return their paths.

    Raises:
        OSError: the folder cannot be written.
    """
    import seaborn as sns
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    confusion = Figure(figsize=(7, 6), layout="constrained")
    axes = confusion.subplots()
    counts = count_confusions(probabilities, labels).numpy()
    ticks = names if len(names) <= MAX_CLASSES else False
    sns.heatmap(counts, annot=bool(ticks), fmt="d", cmap="Blues", square=True, xticklabels=ticks, yticklabels=ticks, ax=axes)
    axes.set(xlabel="predicted class", ylabel="true class")
    confusion.savefig(folder / "confusion.png", dpi=150)

    images = data.unpad(data.test.pixels).cpu()
    grid = Figure(figsize=(GRID[1] * 1.5, GRID[0] * 1.8), layout="constrained")
    panels = grid.subplots(*GRID).flatten()
    confidence, predicted = probabilities.max(1)
    for axes in panels:
        axes.axis("off")
    for axes, index in zip(panels, find_mistakes(probabilities, labels), strict=False):
        axes.imshow(images[index].squeeze(-1).numpy(), cmap="gray")  # the color map is ignored for RGB images
        label = f"predicted {names[int(predicted[index])]} ({100 * float(confidence[index]):.0f}%)"
        axes.set_title(f"{label}\ntrue: {names[int(labels[index])]}", fontsize="small")
    grid.savefig(folder / "mistakes.png", dpi=150)
    return [folder / "confusion.png", folder / "mistakes.png"]


def main(arguments: Sequence[str]) -> int:
    """Print the evaluations and draw the figures.

    Raises:
        UserError: a source cannot be read, its dataset is missing, or the device is unusable.
        OSError: the figures cannot be written.
    """
    options = cli.parse_args(Options, arguments, "evaluate.py", __doc__)

    from reproduce import device as devices  # must be imported before torch
    from reproduce.weights import load_network

    device = devices.choose_device(options.device)
    networks = [load_network(source, options.data) for source in options.sources]
    for number, trained in enumerate(networks):
        devices.set_numerics(device, trained.config.precision, deterministic=False)
        data = trained.load_data(options.data, device.torch_device)
        probabilities, labels = predict_all(trained, data, device)
        names = trained.config.dataset_info.class_names
        print(("\n\n" if number else "") + format_evaluation(trained, probabilities, labels, names))
        if options.figures is not None:
            for path in draw_figures(options.figures, probabilities, labels, data, names):
                print(path)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
