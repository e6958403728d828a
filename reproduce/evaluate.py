"""Evaluate trained networks: test error, error of each class, confusion matrix, calibration error.

    python reproduce/evaluate.py runs/residual20-dece074e/seed0 runs/residual20-dece074e/seed1

Accepts folders of finished runs, their best.pt (--keep-best), weights files of this repository, and checkpoints of
akamaster/pytorch_resnet_cifar10.
On the same device with the same versions, the test error equals the one in the run's result.json. On a device without the
precision of the run, networks are evaluated in fp32.

Shapes: M test images, K classes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import tyro

from reproduce import cli
from reproduce.config import DeviceChoice, RunOptions, require
from reproduce.errors import UnsupportedPrecision

if TYPE_CHECKING:  # importing torch takes seconds, and --help should not
    from torch import Tensor

    from reproduce.device import Device
    from reproduce.sampling import Data
    from reproduce.weights import TrainedNetwork

BINS = 15
"""Equal-width bins of the calibration error, as in Guo et al. 2017 (arXiv:1706.04599)."""
MAX_CLASSES = 20
"""Largest number of classes for which the confusion matrix is printed."""


@dataclass(frozen=True)
class Options:
    """Options of evaluate.py."""

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of finished runs, their best.pt, weights files, or checkpoints of akamaster/pytorch_resnet_cifar10."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DIR|synthetic|mnist")] = None
    """Folder of the dataset; by default the one that the run was trained on or, if unknown, the dataset's usual folder."""
    device: DeviceChoice = RunOptions.device
    """auto uses the first available device of npu, cuda, cpu."""

    def __post_init__(self):
        require(len(self.sources) > 0, "name at least one run folder or weights file", "none")


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
    """Return the expected calibration error in percent: |accuracy - confidence| averaged over bins, weighted by bin size."""
    import torch

    confidence, predicted = probabilities.double().max(1)
    correct = (predicted == labels).double()
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, correct - confidence)
    return 100 * float(gaps.abs().sum()) / len(labels)


def format_evaluation(trained: TrainedNetwork, probabilities: Tensor, labels: Tensor) -> str:
    """Return the report on one network."""
    names, predicted = trained.config.dataset_info.class_names, probabilities.argmax(1)
    confusions = (labels * len(names) + predicted).bincount(minlength=len(names) ** 2).view(len(names), len(names)).tolist()
    wrong = int((predicted != labels).sum())
    lines = [f"{trained.source}: test error {100 * wrong / len(labels):.2f}% ({wrong} of {len(labels)} images)"]
    recorded = [name for name in ("test_error", "best_test_error") if name in trained.result]
    if recorded:
        lines.append(f"recorded {recorded[0].replace('_', ' ')}: {trained.result[recorded[0]]:.2f}%")
    lines += ["", f"{'class':12}  {'error':>7}  {'images':>9}"]
    for number, (name, row) in enumerate(zip(names, confusions, strict=True)):
        lines.append(f"{name:12}  {100 - 100 * row[number] / max(sum(row), 1):6.2f}%  {sum(row):9}")
    if len(names) <= MAX_CLASSES:
        lines += ["", "confusion matrix (rows: true class; columns: predicted class, in the same order)"]
        lines += [f"{name:12}" + "".join(f"{count:6}" for count in row) for name, row in zip(names, confusions, strict=True)]
    confidence = 100 * float(probabilities.max(1).values.double().mean())
    error = calibration_error(probabilities, labels)
    lines += ["", f"expected calibration error {error:.2f}% ({BINS} bins); mean confidence {confidence:.2f}%"]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the evaluations.

    Raises:
        UserError: a source cannot be read, its dataset is missing, or the device is unusable.
    """
    options = cli.parse_args(Options, arguments, "evaluate.py", __doc__)

    from reproduce import device as devices
    from reproduce.weights import load_network

    device = devices.choose_device(options.device)
    networks = [load_network(source) for source in options.sources]
    for number, trained in enumerate(networks):
        heading = "\n\n" if number else ""
        try:
            devices.set_numerics(device, trained.config.precision, deterministic=False)
        except UnsupportedPrecision:
            heading += f"evaluating in fp32, since this {device.kind} device does not support {trained.config.precision}\n"
            trained = replace(trained, config=replace(trained.config, precision="fp32"))
            devices.set_numerics(device, "fp32", deterministic=False)
        data = trained.load_data(options.data, device.torch_device)
        print(heading + format_evaluation(trained, *predict_all(trained, data, device)))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
