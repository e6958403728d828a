"""Measure training throughput relative to a baseline PyTorch loop and to the device's roofline bound.

    python experiments/devices/throughput.py --data DIR

Measures these candidates for each depth and precision, interleaved in one process:

  plain           the baseline loop: torchvision transforms in a DataLoader with worker processes, contiguous tensors, eager,
                  torch.optim.SGD, .item() at every step
  plain compiled  the same with a network compiled by torch.compile
  eager           this repository's step, operator by operator
  captured        the same as a replayed graph, as run.py trains (cuda, npu)
  4 together      four interleaved runs, as in train_many.py; time in which all advance by one iteration, divided by four

The roofline bound of a step is the longer of two times: its floating-point operations at the rate of a large matrix product,
and the bytes that it has to move at the bandwidth of a large copy (see `count_work`), both measured on the device. It is not
a strict bound: a convolution with fewer operations than its definition (Winograd) can be faster.
The results are printed and written to a record after each network. python analysis/table.py makes docs/devices.md from it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # import this checkout, not an installed version

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from experiments.devices import Timing, format_file_name
from reproduce import cli
from reproduce import device as devices
from reproduce.config import Config, DeviceChoice, Precision, require
from reproduce.dataset import find_data_folder, read_dataset

import torch  # isort: skip
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from reproduce.device import Device, create_stream
from reproduce.interleave import Task, run_interleaved, run_on_stream
from reproduce.model import build_network
from reproduce.record import describe_git, write_json
from reproduce.reference import make_sgd, train_network
from reproduce.sampling import Data, load_data
from reproduce.step import Training

TrainFunction = Callable[[int], float]
"""Trains for a number of iterations and returns the seconds per iteration, divided by the number of concurrent runs."""

CHUNK = 100
"""Iterations of a captured candidate between synchronizations with the host."""
ROUNDS = 3
"""Timed rounds, after one warm-up round."""
WORKERS = 2
"""DataLoader processes of the baseline loop."""


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Raises:
        UserError: a value is out of range.
    """

    depths: tuple[int, ...] = (20, 56)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    together: tuple[int, ...] = (2, 4, 8)
    """Numbers of concurrent runs to measure."""
    iterations: int = 20
    """Iterations of a candidate per round, after half as many for warm-up; rounded up to a multiple of 100 if captured."""
    data: str = "data"
    """Folder of CIFAR-10, or synthetic."""
    device: DeviceChoice = "auto"
    out: Path = Path("experiments/records/throughput")
    """Folder for <device>.json; replaces an older record."""

    def __post_init__(self):
        require(self.iterations >= 1, "iterations must be at least 1", self.iterations)
        require(all(count >= 2 for count in self.together), "together must be at least 2", self.together)


# The candidates ---------------------------------------------------------------------------------------------------------


class TransformedImages(Dataset):
    """Training images as torchvision's datasets return them: each a PIL image, transformed, with its label."""

    def __init__(self, config: Config, folder: Path, transform: Callable[[Any], Tensor]):
        (self.images_NHWC, self.labels, *_), _ = read_dataset(config.dataset, folder)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images_NHWC[index])), int(self.labels[index])


def make_baseline(config: Config, folder: Path, device: Device, compiled: bool = False) -> TrainFunction:
    """Return the baseline: the loop of reproduce/reference.py on a DataLoader."""
    normalize = transforms.Normalize((0.4914, 0.4822, 0.4465), (1.0, 1.0, 1.0))
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    images = TransformedImages(config, folder, transforms.Compose([*augment, transforms.ToTensor(), normalize]))
    loader = DataLoader(images, config.batch_size, shuffle=True, drop_last=True, num_workers=WORKERS)
    repeated = (batch for _ in itertools.count() for batch in loader)
    batches = ((inputs.to(device.torch_device), labels.to(device.torch_device)) for inputs, labels in repeated)
    network = build_network(config).to(device.torch_device).train()
    if compiled:
        network.compile()
    optimizer = make_sgd(network)

    def compute_logits(images_NCHW: Tensor) -> Tensor:
        with torch.autocast(device.kind, torch.bfloat16, enabled=config.precision == "bf16"):
            return network(images_NCHW).float()

    def train(iterations: int) -> float:
        before = time.perf_counter()
        for loss, _, _ in train_network(compute_logits, optimizer, batches, [0.1] * iterations):
            loss.item()
        return (time.perf_counter() - before) / iterations

    return train


def train_iterations(training: Training, start: int, stop: int) -> Task[None]:
    for begin in range(start, stop, training.device.chunk_iterations):
        end = min(begin + training.device.chunk_iterations, stop)
        yield from training.train_chunk(begin, end, [0.1] * (end - begin))


def make_interleaved(config: Config, data: Data, device: Device, count: int, capture: bool = True) -> TrainFunction:
    """Return a candidate that trains `count` runs interleaved, each on its own stream; if captured, in whole chunks.

    It raises a RuntimeError if a run falls back from its captured step to an eager one.
    """
    runs = [Training(replace(config, seed=seed), data, device, capture) for seed in range(count)]
    streams = [create_stream(device) for _ in runs]
    captured = capture and device.is_accelerator
    chunk = device.chunk_iterations if captured else 1
    start = 0

    def train(iterations: int) -> float:
        nonlocal start
        iterations = math.ceil(iterations / chunk) * chunk
        start += iterations
        tasks = [
            run_on_stream(device, stream, train_iterations(run, start - iterations, start), lambda: None)
            for stream, run in zip(streams, runs, strict=True)
        ]
        before = time.perf_counter()
        run_interleaved(tasks)
        if captured and not all(run.may_capture for run in runs):
            raise RuntimeError("its step is not captured")
        return (time.perf_counter() - before) / iterations / count

    return train


def list_candidates(
    settings: Settings, config: Config, folder: Path, data: Data, device: Device
) -> dict[str, Callable[[], TrainFunction]]:
    """Return a function that makes each candidate, by name, in the order of the table."""
    baseline = partial(make_baseline, config, folder, device)
    interleaved = partial(make_interleaved, config, data, device)
    candidates: dict[str, Callable[[], TrainFunction]] = {
        "plain": baseline,
        "plain compiled": partial(baseline, compiled=True),
        "eager": partial(interleaved, 1, capture=False),
    }
    if device.is_accelerator:
        candidates["captured"] = partial(interleaved, 1)
    return candidates | {f"{count} together": partial(interleaved, count) for count in settings.together}


# The roofline bound -----------------------------------------------------------------------------------------------------


def count_work(config: Config) -> tuple[int, int]:
    """Return the least number of floating-point operations and bytes moved in a training step.

    Operations: forward and backward convolutions and the linear layer, 2 per multiply-add. Bytes: each convolution's output
    written and read once (the backward pass needs it; the other feature maps follow from it), with 2 bytes per number in bf16
    and 4 otherwise; each weight and its momentum read and written once, with 4.
    """
    network = build_network(config).to("meta")
    outputs: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(output.numel()))
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(config.batch_size, 3, 32, 32, device="meta")).sum().backward()
    size = 2 if config.precision == "bf16" else 4
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return counter.get_total_flops(), 2 * size * sum(outputs) + 4 * 4 * parameters


def time_calls(call: Callable[[], Any], device: Device) -> float:
    """Return the median seconds of five calls, after one for warm-up."""
    seconds = []
    for _ in range(6):
        before = time.perf_counter()
        call()
        if device.is_accelerator:
            device.backend.synchronize()
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds[1:])


def measure_peaks(device: Device, precisions: Sequence[Precision]) -> dict[str, float]:
    """Return the bytes/s of a large copy (read and write) and, per precision, the operations/s of a large matrix product."""
    where, large = device.torch_device, device.is_accelerator
    source = torch.randint(0, 255, (2**31 if large else 2**28,), dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    peaks = {"copy": 2 * source.numel() / time_calls(lambda: target.copy_(source), device)}
    side = 8192 if large else 2048
    for precision in precisions:
        devices.set_numerics(device, precision, deterministic=False)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        first, second = (torch.randn(side, side, device=where).to(dtype) for _ in range(2))
        peaks[precision] = 2 * side**3 / time_calls(partial(torch.mm, first, second), device)
    return peaks


# Measuring --------------------------------------------------------------------------------------------------------------


def compare_candidates(
    settings: Settings, config: Config, folder: Path, data: Data, device: Device, bound: float
) -> list[Timing]:
    """Measure and print the candidates for one network and precision. bound: the roofline bound in seconds."""
    title = f"depth {config.depth:4}  {config.precision}"
    started: dict[str, tuple[TrainFunction, float]] = {}
    torch._dynamo.reset()  # frees the compiled code of the previous network
    for name, make in list_candidates(settings, config, folder, data, device).items():
        before = time.perf_counter()
        try:
            train = make()
            train(settings.iterations)
            started[name] = train, time.perf_counter() - before
        except Exception as error:  # a missing compiler or operator must not stop the others
            print(f"{title}  {name:21} not measured, {devices.format_exception(error)}", flush=True)
    milliseconds: dict[str, list[float]] = {name: [] for name in started}
    for _ in range(ROUNDS):
        for name, (train, _) in started.items():
            train(math.ceil(settings.iterations / 2))
            milliseconds[name].append(1000 * train(settings.iterations))
    timings = []
    for name, times in milliseconds.items():
        median = statistics.median(times)
        timing = Timing(
            depth=config.depth,
            precision=config.precision,
            candidate=name,
            seconds_to_start=round(started[name][1], 1),
            median=round(median, 4),
            min=round(min(times), 4),
            max=round(max(times), 4),
            images_per_second=round(1000 * config.batch_size / median),
            floor_fraction=round(1000 * bound / median, 5),
            times_plain=round(statistics.median(milliseconds["plain"]) / median, 2) if "plain" in milliseconds else None,
        )
        timings.append(timing)
        speed = f"{timing.images_per_second:7.0f} images/s, {100 * timing.floor_fraction:.2f}% of roofline"
        print(f"{title}  {name:21} {median:9.3f} ms ({min(times):.3f} to {max(times):.3f})  {speed}", flush=True)
    return timings


def run_benchmark(settings: Settings) -> Path:
    """Measure all networks, print and record the results, and return the record's path.

    Raises:
        UserError: the dataset is missing, the device unusable, or a precision unsupported.
        OSError: the record cannot be written.
    """
    device = devices.choose_device(settings.device)
    device = replace(device, chunk_iterations=min(device.chunk_iterations, CHUNK))
    default = Config(dataset="synthetic" if settings.data == "synthetic" else "cifar10")
    configs = [replace(default, depth=depth, precision=p) for depth in settings.depths for p in settings.precisions]
    for precision in settings.precisions:
        devices.set_numerics(device, precision, deterministic=False)
    folder = find_data_folder(default.dataset, settings.data)
    data = load_data(default, folder, device.torch_device)
    settings.out.mkdir(parents=True, exist_ok=True)  # fail now, not after minutes of measuring
    about = devices.describe_device(device)
    print(f"{about['device_name']}, {about['threads']} threads, torch {about['versions']['torch']}, batch {default.batch_size}")
    peaks = measure_peaks(device, settings.precisions)
    rates = ", ".join(f"{name} {value / 1e12:.3f} TFLOP/s" for name, value in peaks.items() if name != "copy")
    print(f"peak rates: copy {peaks['copy'] / 1e9:.1f} GB/s, {rates}")
    path = settings.out / f"{format_file_name(about['device_name'])}.json"
    record = {"git": describe_git()} | about | {"data": default.dataset, "batch_size": default.batch_size}
    record |= {"iterations": settings.iterations, "rounds": ROUNDS, "workers": WORKERS, "ceilings": peaks}
    timings: list[Timing] = []
    for config in configs:
        devices.set_numerics(device, config.precision, deterministic=False)
        operations, moved = count_work(config)
        bound = max(operations / peaks[config.precision], moved / peaks["copy"])
        work = f"{operations / 1e9:.2f} GFLOP and {moved / 1e6:.1f} MB per step"
        print(f"depth {config.depth:4}  {config.precision}  {work}: roofline bound {1000 * bound:.3f} ms", flush=True)
        timings += compare_candidates(settings, config, folder, data, device, bound)
        write_json(path, record | {"rows": timings})
    print(path)
    return path


def main(arguments: Sequence[str]) -> int:
    run_benchmark(cli.parse_args(Settings, arguments, "throughput.py", __doc__))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
