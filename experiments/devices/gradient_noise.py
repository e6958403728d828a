"""Compare the error of bf16 gradients with the noise of the mini-batches.

    python experiments/devices/gradient_noise.py --data DIR

Computes the gradient of each mini-batch in fp32 and in bf16 autocast from the same weights: for ResNet-20, ResNet-56, plain-20
and plain-56 at their initial weights, and for the trained networks in weights/. Batches are sampled and augmented as in
training, and BN uses batch statistics. With g the fp32 gradient of a batch, e the error of its bf16 gradient, and norms over
all parameters, it prints and records for each network:

  relative_error   mean of |e| / |g| over the batches
  bias             the systematic part of e, relative to |mean g|: the signed square root of the inner product of the
                   mean e of one half of the batches and that of the other half, in which random errors cancel
  bias_by_chance   the magnitude that `bias` exceeds with probability 5% if there is no bias (random signs of e)
  noise            standard deviation of g over the batches, relative to |mean g|. A value near the square root of the number of
                   batches means that mean g itself is noise, as at the end of training
  gradient_norm    |mean g|

For the trained networks it also records test_error_fp32 and test_error_bf16: the test error in percent, evaluated in each
precision with the published BN statistics.

Device-hours: 0.4 on a CPU core shared with other work.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # import this checkout, not an installed version

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro

from experiments.devices import format_file_name
from reproduce import cli
from reproduce import device as devices
from reproduce.config import Config, DeviceChoice, Precision, require
from reproduce.dataset import detect_dataset, find_data_folder

import torch  # isort: skip
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from reproduce.evaluation import measure_error
from reproduce.model import build_network
from reproduce.record import describe_git, write_json
from reproduce.sampling import Data, gather_batch, load_data, sample_batches
from reproduce.weights import load_network

NETS = [Config(depth=depth, residual=residual) for residual in (True, False) for depth in (20, 56)]
WEIGHTS = Path("weights")
"""Folder with the weights files of the trained networks."""
INITIAL = "initial"
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32")
SIGNS = 2000
"""Number of random sign vectors for `bias_by_chance`."""


@dataclass(frozen=True)
class Options:
    """What to measure.

    Raises:
        UserError: a value is out of range.
    """

    batches: int = 64
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic")] = "data"
    """Folder of CIFAR-10, or synthetic."""
    device: DeviceChoice = "auto"
    out: Path = Path("experiments/records/gradient_noise")
    """Folder for <device>.json; replaces an older record."""

    def __post_init__(self):
        require(self.batches >= 4 and self.batches % 2 == 0, "batches must be even and at least 4", self.batches)


def compute_gradient(network: nn.Module, batch: tuple[Tensor, Tensor], device: devices.Device, precision: Precision) -> Tensor:
    """Return the gradient of all parameters as one vector (float32, P, on the CPU)."""
    images_NCHW, labels_N = batch
    network.zero_grad()
    with devices.autocast(device, precision):
        logits_NK = network(images_NCHW)
    F.cross_entropy(logits_NK.float(), labels_N).backward()
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None]).cpu()


def compare_gradients(exact_BP: Tensor, rounded_BP: Tensor) -> dict[str, float]:
    """Return the statistics in the module's docstring, from the gradients of B batches in fp32 and in bf16."""
    exact_BP, rounded_BP = exact_BP.double(), rounded_BP.double()
    error_BP, mean_P = rounded_BP - exact_BP, exact_BP.mean(0)
    half = len(error_BP) // 2
    products = error_BP[::2] @ error_BP[1::2].T / half**2
    signs = torch.randint(0, 2, (2, SIGNS, half), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    by_chance = ((signs[0] @ products) * signs[1]).sum(1).abs().quantile(0.95)
    product, norm = float(products.sum()), float(mean_P.norm())
    found = {
        "relative_error": (error_BP.norm(dim=1) / exact_BP.norm(dim=1)).mean(),
        "bias": math.copysign(math.sqrt(abs(product)), product) / norm,
        "bias_by_chance": math.sqrt(by_chance) / norm,
        "noise": (exact_BP - mean_P).square().sum().div(len(exact_BP) - 1).sqrt() / norm,
        "gradient_norm": norm,
    }
    return {name: float(f"{float(value):.4g}") for name, value in found.items()}


def measure_gradients(network: nn.Module, config: Config, data: Data, device: devices.Device, batches: int) -> dict[str, float]:
    """Return the statistics of `compare_gradients`; changes BN's running statistics."""
    network.train()
    exact, rounded = [], []
    for crops_4N in sample_batches(config, len(data.train), 0, batches).to(device.torch_device):
        images_NCHW, labels_N = gather_batch(data.train, data, crops_4N)
        batch = images_NCHW.contiguous(memory_format=device.memory_format), labels_N
        exact.append(compute_gradient(network, batch, device, "fp32"))
        rounded.append(compute_gradient(network, batch, device, "bf16"))
    return compare_gradients(torch.stack(exact), torch.stack(rounded))


def list_networks(data: Data) -> Iterator[tuple[str, Config, nn.Module, Data]]:
    """Yield each network with the source of its weights, its configuration, and the data with its normalization."""
    for config in NETS:
        yield INITIAL, config, build_network(config), data
    for path in sorted(WEIGHTS.glob("*.safetensors")):
        trained = load_network(path)
        yield path.name, trained.config, trained.classifier.network, trained.normalize(data)


def measure(options: Options) -> Path:
    """Measure all networks, print and record the results, and return the record's path.

    Raises:
        UserError: the dataset is missing, or the device unusable or without bf16.
        OSError: the record cannot be written.
    """
    device = devices.choose_device(options.device)
    for precision in PRECISIONS:
        devices.set_numerics(device, precision, deterministic=False)
    config = Config(dataset=detect_dataset(options.data))
    require(config.dataset in ("cifar10", "synthetic"), "--data must be the folder of CIFAR-10, or synthetic", options.data)
    data = load_data(config, find_data_folder(config.dataset, options.data), device.torch_device)
    about = devices.describe_device(device)
    path = options.out / f"{format_file_name(about['device_name'])}.json"
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"git": describe_git()} | about
    record |= {"data": config.dataset, "batch_size": config.batch_size, "batches": options.batches}
    rows: list[dict[str, Any]] = []
    for weights, config, network, normalized in list_networks(data):
        network = network.to(device.torch_device).to(memory_format=device.memory_format)
        row: dict[str, Any] = {"net": config.net, "weights": weights}
        for precision in PRECISIONS if weights != INITIAL else ():
            evaluated = replace(config, precision=precision)
            row[f"test_error_{precision}"] = measure_error(network, normalized.test, normalized, device, evaluated)
        rows.append(row | measure_gradients(network, config, normalized, device, options.batches))
        percent = {name: f"{100 * rows[-1][name]:.2f}%" for name in ("relative_error", "bias", "bias_by_chance", "noise")}
        percent |= {name: f"{value:.2f}%" for name, value in row.items() if name.startswith("test_error")}
        print(f"{config.net:12}{weights:36}" + "  ".join(f"{name} {value}" for name, value in percent.items()), flush=True)
        write_json(path, record | {"rows": rows})
    print(path)
    return path


def main(arguments: Sequence[str]) -> int:
    measure(cli.parse_args(Options, arguments, "gradient_noise.py", __doc__))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
