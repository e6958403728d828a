"""Look at trained networks: test error, error of each class, confusion matrix and calibration, as text and as pictures.

    python reproduce/evaluate.py runs/residual20-1f0c58b5/seed0 runs/residual20-1f0c58b5/seed1
    python reproduce/evaluate.py WEIGHTS.safetensors --figures figures --worst

takes folders of finished runs, weights files of this repository, and checkpoints of akamaster/pytorch_resnet_cifar10.
On the device that trained a run, with the same versions, the test error is the one in its result.json, to the last image.

Shapes: M images in the test set, K classes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from reproduce import cli, record
from reproduce.config import RunOptions, require
from reproduce.errors import UserError

if TYPE_CHECKING:  # imported where it is used, so that the command line answers at once
    from torch import Tensor

    from reproduce.device import Device
    from reproduce.sampling import Data
    from reproduce.weights import TrainedNetwork

BINS = 15
"""Of equal width, for the calibration error; as Guo et al. 2017 (arXiv:1706.04599) use them."""
GRID = (5, 8)
"""Rows and columns of the picture of test images."""


@dataclass(frozen=True)
class Evaluation:
    """What to look at, and how."""

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Finished runs' folders, and weights files."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic|mnist")] = RunOptions.data
    """As for run.py."""
    device: Literal["auto", "npu", "cuda", "cpu"] = RunOptions.device
    """As for run.py."""
    figures: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that receives confusion.png and images.png of a single source."""
    record: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run's folder in the records, which receives predictions.txt of a single source, where it has none."""
    worst: bool = False
    """In images.png, show the most confident mistakes instead of the first images."""

    def __post_init__(self):
        require(len(self.sources) > 0, "name at least one run's folder or weights file", "none")
        require(self.figures is None or len(self.sources) == 1, "--figures is for one source", len(self.sources))
        require(self.record is None or len(self.sources) == 1, "--record is for one source", len(self.sources))
        if self.worst and self.figures is None:
            raise UserError("--worst chooses the images that --figures draws: add --figures DIR")


def predict_all(trained: TrainedNetwork, data: Data, device: Device) -> tuple[Tensor, Tensor]:
    """Probabilities, M x K, and labels, M, of the test set; computed as in training's evaluations."""
    import torch

    from reproduce.evaluation import evaluation_mode, iterate_single_views

    network = trained.classifier.network.to(device.torch_device).to(memory_format=device.memory_format)
    logits, labels = [], []
    with evaluation_mode(network, device, trained.config):
        for views, true in iterate_single_views(data.test, data, device):
            logits.append(network(views).float().cpu())
            labels.append(true.cpu())
    return torch.cat(logits).softmax(1), torch.cat(labels)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error in percent: |accuracy - confidence| averaged over the bins by their share of the images."""
    import torch

    confidence, predicted = probabilities.double().max(1)
    right = (predicted == labels).double()
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, right - confidence)
    return 100 * float(gaps.abs().sum()) / len(labels)


def count_confusions(probabilities: Tensor, labels: Tensor) -> Tensor:
    """How many images of each true class (rows) were taken for each class (columns), K x K."""
    import torch
    from sklearn.metrics import confusion_matrix

    classes = range(probabilities.shape[1])
    return torch.from_numpy(confusion_matrix(labels.numpy(), probabilities.argmax(1).numpy(), labels=list(classes)))


def describe(trained: TrainedNetwork, probabilities: Tensor, labels: Tensor, names: Sequence[str]) -> str:
    """The evaluation as text."""
    counts = count_confusions(probabilities, labels)
    wrong = int(counts.sum() - counts.trace())
    lines = [f"{trained.source}: test error {100 * wrong / len(labels):.2f}% ({wrong} of {len(labels)} images)"]
    for name, meaning in (("test_error", "recorded with it"), ("best_test_error", "its best epoch, recorded with it")):
        if name in trained.result:
            lines.append(f"{meaning}: {trained.result[name]:.2f}%")
            break
    lines += ["", f"{'class':12}  {'error':>7}  of images"]
    for name, row, right in zip(names, counts, counts.diagonal(), strict=True):
        images = int(row.sum())
        lines.append(f"{name:12}  {100 * (1 - int(right) / images) if images else 0:6.2f}%  {images:9}")
    lines += ["", "confusion matrix (a row for each true class, a column for each predicted one, in the same order)"]
    lines += [f"{name:12}" + "".join(f"{count:6}" for count in row) for name, row in zip(names, counts.tolist(), strict=True)]
    confidence = 100 * float(probabilities.max(1).values.double().mean())
    error = calibration_error(probabilities, labels)
    lines += ["", f"expected calibration error {error:.2f}% ({BINS} bins); mean confidence {confidence:.2f}%"]
    return "\n".join(lines)


def choose_images(probabilities: Tensor, labels: Tensor, worst: bool) -> list[int]:
    """The first images of the test set, or the mistakes with the highest confidence first."""
    count = GRID[0] * GRID[1]
    if not worst:
        return list(range(min(count, len(labels))))
    confidence, predicted = probabilities.max(1)
    mistakes = (predicted != labels).nonzero().flatten()
    return mistakes[confidence[mistakes].argsort(descending=True, stable=True)][:count].tolist()


def draw(folder: Path, probabilities: Tensor, labels: Tensor, data: Data, names: Sequence[str], worst: bool) -> list[Path]:
    """Draws confusion.png, and images.png with the true and the predicted class, blue when right and red when wrong.

    Raises:
        OSError: the folder cannot be written.
    """
    import seaborn as sns
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    confusion = Figure(figsize=(7, 6), layout="constrained")
    axes = confusion.subplots()
    counts = count_confusions(probabilities, labels).numpy()
    sns.heatmap(counts, annot=True, fmt="d", cmap="Blues", square=True, xticklabels=names, yticklabels=names, ax=axes)
    axes.set(xlabel="predicted class", ylabel="true class")
    confusion.savefig(folder / "confusion.png", dpi=150)

    images = data.unpad(data.test.positions).cpu()
    grid = Figure(figsize=(GRID[1] * 1.5, GRID[0] * 1.8), layout="constrained")
    panels = grid.subplots(*GRID).flatten()
    chosen = choose_images(probabilities, labels, worst)
    confidence, predicted = probabilities.max(1)
    for axes in panels:
        axes.axis("off")
    for axes, index in zip(panels, chosen, strict=False):
        is_right = bool(predicted[index] == labels[index])
        axes.imshow(images[index].squeeze(-1).numpy(), cmap="gray")  # without a map where there are colours
        label = f"{names[int(predicted[index])]} {100 * float(confidence[index]):.0f}%\nis {names[int(labels[index])]}"
        axes.set_title(label, color="tab:blue" if is_right else "tab:red", fontsize="small")
    grid.savefig(folder / "images.png", dpi=150)
    return [folder / "confusion.png", folder / "images.png"]


def complete_record(folder: Path, trained: TrainedNetwork, predicted: Tensor, labels: Tensor) -> Path:
    """Writes predictions.txt into the record of a finished run that was made before there were any; returns its path.

    Raises:
        UserError: the record is of another run, or has its predictions, or its test error is not that of these.
    """
    result = record.read_result(folder) or {}
    is_best = "chosen_by" in trained.result
    if is_best or record.read_config(folder) != trained.config or result.get("status") != "finished":
        raise UserError(f"{folder} is not the record of the run that {trained.source} is of")
    if record.read_predictions(folder) is not None:
        raise UserError(f"{folder / record.PREDICTIONS} is there already")
    right = predicted == labels
    error = 100 * int((~right).sum()) / len(labels)
    if error != result["test_error"]:
        raise UserError(
            f"{folder} has a test error of {result['test_error']:.2f}%, and here it is {error:.2f}%: nothing is written"
        )
    record.write_predictions(folder, predicted.tolist(), right.tolist(), len(trained.config.dataset_info.class_names))
    return folder / record.PREDICTIONS


def main(arguments: Sequence[str]) -> int:
    """Prints the evaluations and draws the figures asked for.

    Raises:
        UserError: a source cannot be read, the data set is missing, or the device not usable.
        OSError: the figures cannot be written.
    """
    evaluation = cli.parse_args(Evaluation, arguments, "evaluate.py", __doc__)

    from reproduce import device as devices  # first (see there)
    from reproduce.sampling import find_data_folder, load_data_cached
    from reproduce.weights import load_network

    device = devices.choose_device(evaluation.device)
    networks = [load_network(source, evaluation.data) for source in evaluation.sources]
    for number, trained in enumerate(networks):
        devices.set_numerics(device, trained.config.precision, deterministic=False)
        folder = find_data_folder(trained.config, evaluation.data)
        data = trained.normalise(load_data_cached(trained.config, folder, device.torch_device))
        probabilities, labels = predict_all(trained, data, device)
        names = trained.config.dataset_info.class_names
        print(("\n\n" if number else "") + describe(trained, probabilities, labels, names))
        if evaluation.figures is not None:
            for path in draw(evaluation.figures, probabilities, labels, data, names, evaluation.worst):
                print(path)
        if evaluation.record is not None:
            print(complete_record(evaluation.record, trained, probabilities.argmax(1), labels))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
