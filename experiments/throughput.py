"""How fast a training step is beside a plain PyTorch loop on the same device, measured in one process.

    python experiments/throughput.py --data DIR

prints, for each depth, seconds per iteration (median, minimum and maximum over rounds in which the candidates take turns):
  plain   the usual loop: torchvision transforms in a DataLoader with 2 worker processes, contiguous tensors, eager,
          torch.optim.SGD, and .item() at every step
  ours    this repository's step, as run.py trains
and what share of our step goes into preparing its batch.
"""

import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reproduce import command
from reproduce import device as devices
from reproduce.config import Config, Precision

import torch  # isort: skip
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR10

from reproduce.data import Data, Synthetic, batch, choose_folder, load, plan
from reproduce.device import Device
from reproduce.model import build_network
from reproduce.train import Training

WORKERS = 2


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    depths: tuple[int, ...] = (20, 56)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    iterations: int = 15
    """Iterations of one candidate in one round (ours: whole chunks); the first third is not counted."""
    rounds: int = 5
    data: str = "data"
    """Folder of CIFAR-10, or the word synthetic."""
    device: str = "auto"


def endless(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield from loader


def plain_loop(config: Config, folder: Path, device: Device) -> Callable[[int], list[float]]:
    """The usual training loop; the function returned trains so many iterations and gives the seconds of each."""
    dataset = Synthetic if config.dataset == "synthetic" else CIFAR10
    normalize = transforms.Normalize((0.4914, 0.4822, 0.4465), (1.0, 1.0, 1.0))
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    images = dataset(folder, transform=transforms.Compose([*augment, transforms.ToTensor(), normalize]))
    loader = DataLoader(images, config.batch_size, shuffle=True, drop_last=True, num_workers=WORKERS)
    batches = endless(loader)
    network = build_network(config).to(device.torch_device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def train(iterations: int) -> list[float]:
        seconds = []
        for _ in range(iterations):
            before = time.perf_counter()
            inputs, labels = (tensor.to(device.torch_device) for tensor in next(batches))
            with torch.autocast(device.kind, torch.bfloat16, enabled=config.precision == "bf16"):
                loss = F.cross_entropy(network(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            seconds.append(time.perf_counter() - before)
        return seconds

    return train


def our_step(config: Config, data: Data, device: Device) -> Callable[[int], list[float]]:
    """Chunks of this repository's training; the mean of a chunk stands for each of its iterations."""
    training, starts = Training(config, data, device, capture=True), itertools.count(0, device.chunk)

    def train(iterations: int) -> list[float]:
        seconds = []
        for start in itertools.islice(starts, math.ceil(iterations / device.chunk)):
            before = time.perf_counter()
            training.chunk(start, start + device.chunk, [0.1] * device.chunk)
            seconds += [(time.perf_counter() - before) / device.chunk] * device.chunk
        return seconds

    return train


def preparation(config: Config, data: Data, device: Device, iterations: int) -> float:
    """Seconds per iteration that go into choosing and making batches."""
    before = time.perf_counter()
    rows = plan(config, len(data.train), 0, iterations).to(device.torch_device)
    for row in rows:
        images, _ = batch(data.train, data, row)
    images[0, 0, 0, 0].item()
    return (time.perf_counter() - before) / iterations


def measure(settings: Settings) -> None:
    """Prints the table.

    Raises:
        UserError: the data set is missing or the device not usable.
    """
    device = devices.choose(settings.device)
    default = Config(dataset="synthetic" if settings.data == "synthetic" else "cifar10")
    folder = choose_folder(default, settings.data)
    data = load(default, folder, device.torch_device)
    devices.set_numerics(device, "fp32", deterministic=False)
    about = devices.describe(device)
    print(f"{about['device_name']}, {about['threads']} threads, torch {about['versions']['torch']}, batch {default.batch_size}")
    for depth in settings.depths:
        configs = {precision: replace(default, depth=depth, precision=precision) for precision in settings.precisions}
        candidates = {f"plain {p}": plain_loop(config, folder, device) for p, config in configs.items()}
        candidates |= {f"ours {p}": our_step(config, data, device) for p, config in configs.items()}
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(settings.rounds):
            for name, train in candidates.items():
                seconds[name].append(statistics.mean(train(settings.iterations)[settings.iterations // 3 :]))
        reference = statistics.median(seconds["plain fp32"])
        for name, rounds in seconds.items():
            median = statistics.median(rounds)
            print(
                f"depth {depth:4}  {name:11}  {median:.4f} s/iteration ({min(rounds):.4f} to {max(rounds):.4f})  "
                f"{default.batch_size / median:7.0f} images/s  {reference / median:.2f} times plain fp32",
                flush=True,
            )
        fastest = min(statistics.median(rounds) for name, rounds in seconds.items() if name.startswith("ours"))
        share = statistics.median(preparation(default, data, device, 50) for _ in range(settings.rounds)) / fastest
        print(f"depth {depth:4}  preparing a batch is {100 * share:.2f}% of our fastest step", flush=True)


def main(arguments: Sequence[str]) -> int:
    measure(command.parse(Settings, arguments, "throughput.py", __doc__))
    return 0


if __name__ == "__main__":
    sys.exit(command.tell(main, sys.argv[1:]))
