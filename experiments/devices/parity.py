"""Compare training on two devices step by step, from the same weights on the same batches.

    python experiments/devices/parity.py --devices cpu npu

The first device trains. At some iterations the second device repeats the step from the first one's weights, so that single
steps are compared before training amplifies any difference (acceptance.py compares whole trainings). Prints a line for each
of those iterations:
  loss       relative difference of the step's loss
  gradients  relative difference of the gradient of all parameters, in norm, and the parameter that differs most
  BN         relative difference of BN's running means and variances, in norm
Then prints the test error that each device computes for the first one's final weights, and whether the differences are within
TOLERANCES.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # import this checkout, not an installed version

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro

from reproduce import cli
from reproduce import device as devices
from reproduce.config import Config, DeviceKind, Precision, require
from reproduce.dataset import detect_dataset, find_data_folder

import torch  # isort: skip
from torch import Tensor

from reproduce.device import Device
from reproduce.evaluation import measure_error
from reproduce.interleave import run_task
from reproduce.optimizer import learning_rate
from reproduce.sampling import load_data
from reproduce.step import Training

TOLERANCES = {
    "fp32": {"loss": 2e-5, "gradients": 3e-2, "BN": 4e-5, "test error": 0.1},
    "bf16": {"loss": 4e-3, "gradients": 3e-1, "BN": 8e-4, "test error": 0.5},
}
"""Relative differences; for the test error, percentage points.

Two memory layouts on one CPU (ResNet-20, 48 iterations on CIFAR-10) differ in loss, gradients and BN by up to 3e-6, 8e-3 and
4e-6 in fp32, and 4e-4, 9e-2 and 8e-5 in bf16. A different rounding order can give several times larger differences; too low a
precision gives far larger ones.
"""
N_INTERVALS = 8
"""Number of intervals; the first iteration of each is repeated on the second device."""


@dataclass(frozen=True)
class Parity:
    """What to compare."""

    devices: tuple[DeviceKind, DeviceKind] = ("cpu", "npu")
    """The first is the reference."""
    depth: int = 20
    residual: bool = True
    iterations: int = 200
    precision: Precision = "fp32"
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic")] = "synthetic"
    """Folder of CIFAR-10, or synthetic."""

    def __post_init__(self):
        require(self.precision in TOLERANCES, "precision must be fp32 or bf16", self.precision)
        require(self.iterations >= 10, "iterations must be at least 10", self.iterations)

    def config(self) -> Config:
        fields = {name: getattr(self, name) for name in ("depth", "residual", "iterations", "precision")}
        return Config(dataset=detect_dataset(self.data), warmup="none", **fields)


def relative_difference(reference: Tensor | float, other: Tensor | float) -> float:
    """Return the relative difference in norm, infinite if a value is not finite."""
    first, second = (torch.as_tensor(value, dtype=torch.float64) for value in (reference, other))
    distance = float((first - second).norm())
    relative = distance / float(first.norm()) if distance else 0.0
    return float("inf") if math.isnan(relative) else relative


def collect_gradients(training: Training) -> dict[str, Tensor]:
    named = training.network.named_parameters()
    return {name: parameter.grad.cpu() for name, parameter in named if parameter.grad is not None}


def collect_bn_statistics(training: Training) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in training.network.state_dict().items() if "running_" in name}


def compare_tensors(reference: dict[str, Tensor], other: dict[str, Tensor]) -> tuple[float, str]:
    """Return the relative difference of all tensors as one vector, and the name of the tensor that differs most."""
    vectors = [torch.cat([tensor.flatten() for tensor in tensors.values()]) for tensors in (reference, other)]
    name = max(reference, key=lambda name: relative_difference(reference[name], other[name]))
    return relative_difference(*vectors), name


def train_iteration(training: Training, iteration: int) -> float:
    """Train one iteration and return its loss."""
    return run_task(training.train_chunk(iteration, iteration + 1, [learning_rate(training.config, iteration, 0)]))[0][0]


def compare_devices(config: Config, first: Device, second: Device, folder: Path) -> dict[str, float]:
    """Train on both devices, print each comparison, and return the largest differences.

    Raises:
        UserError: the dataset is missing, or a device does not support the precision.
    """
    for device in (first, second):
        devices.set_numerics(device, config.precision, deterministic=False)
    reference, repeating = [
        Training(config, load_data(config, folder, device.torch_device), device, capture=False) for device in (first, second)
    ]
    worst: dict[str, float] = {name: 0.0 for name in ("loss", "gradients", "BN")}
    print("iteration  loss        relative difference: loss  gradients (worst)  BN")
    spacing = max(1, config.iterations // N_INTERVALS)
    for iteration in range(config.iterations):
        if iteration % spacing:
            train_iteration(reference, iteration)
            continue
        repeating.restore(reference.state())
        losses = [train_iteration(training, iteration) for training in (reference, repeating)]
        gradient, name = compare_tensors(collect_gradients(reference), collect_gradients(repeating))
        found = {
            "loss": relative_difference(losses[0], losses[1]),
            "gradients": gradient,
            "BN": compare_tensors(collect_bn_statistics(reference), collect_bn_statistics(repeating))[0],
        }
        worst = {name: max(value, found[name]) for name, value in worst.items()}
        print(
            f"{iteration + 1:9}  {losses[0]:<10.6f}  {found['loss']:25.1e}  {gradient:.1e} ({name})  {found['BN']:.1e}",
            flush=True,
        )
    repeating.restore(reference.state())
    errors = [measure_error(t.network, t.data.test, t.data, t.device, config) for t in (reference, repeating)]
    worst["test error"] = abs(errors[0] - errors[1])
    print(f"test error of the first device's weights: {errors[0]:.2f}% and {errors[1]:.2f}%")
    return worst


def judge_differences(worst: dict[str, float], precision: str) -> tuple[bool, str]:
    """Return whether the devices agree, and the verdict."""
    found = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    excessive = [f"{name} ({TOLERANCES[precision][name]:g})" for name in worst if worst[name] > TOLERANCES[precision][name]]
    if excessive:
        return False, f"the devices differ by more than the tolerance in {', '.join(excessive)}: {found}"
    return True, f"the devices agree within the tolerances: {found}"


def main(arguments: Sequence[str]) -> int:
    """Print the comparison; return 0 if the devices agree and 1 if they do not.

    Raises:
        UserError: a device is unusable or does not support the precision, or the dataset is missing.
    """
    parity = cli.parse_args(Parity, arguments, "parity.py", __doc__)
    config = parity.config()
    # The same memory layout and optimizer implementation, so that only the devices differ.
    common: dict[str, Any] = {"memory_format": torch.contiguous_format, "fused": False}
    first, second = (replace(devices.choose_device(kind), **common) for kind in parity.devices)
    for device in (first, second):
        about = devices.describe_device(device)
        print(f"{about['device']}: {about['device_name']}, {about['platform']}, {about['versions']}")
    worst = compare_devices(config, first, second, find_data_folder(config.dataset, parity.data))
    agree, verdict = judge_differences(worst, config.precision)
    print(verdict)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
