"""How fast training is beside a plain PyTorch loop on the same device, and beside what the device could do at best.

    python experiments/devices/throughput.py --data DIR

measures, for each depth and precision, and all in one process in rounds in which the candidates take turns:

  plain              the usual loop: torchvision transforms in a DataLoader with worker processes, contiguous tensors, eager,
                     torch.optim.SGD, and .item() at every step
  plain compiled     the same with the network compiled by torch.compile
  eager              this repository's step, operator by operator
  captured           the same as a graph that is replayed, as run.py trains (cuda, npu)
  ... contiguous     the same with contiguous tensors, where this repository's are channels_last
  ... native BN      the same with BN by torch's own kernels, where float32 would go to cuDNN's, which may not run side by
                     side (cuda)
  captured compiled  the network compiled by torch.compile, then captured (on a CPU: compiled)
  ... by block       each block compiled by itself: BN, addition and ReLU as one kernel, in five graphs whatever the depth
  4 together         four runs that take turns, as train_many.py trains them: time of an iteration of all, divided by four
  4 side by side     a process and a thread for each of four runs, as sweep.py trains on four cores; time as above (cpu)

With --quick only what the choice of a way to train rests on.

The floor of a net is the larger of two times: its floating-point operations at the rate of a large matrix product, and the
bytes that every step has to move at the speed of a large copy (see `count_work`), both measured on the same device. It is
no law: a convolution in fewer operations than its definition has (Winograd's) can be faster.
What is measured is printed and, net by net, written to a record, which python analysis/table.py makes into a table.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # run this checkout, whatever is installed
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from experiments.engine.concurrency import THROUGHPUT, count_cores
from reproduce import cli
from reproduce import device as devices
from reproduce.config import Config, DeviceChoice, Precision, require
from reproduce.dataset import find_data_folder, read_dataset
from reproduce.errors import UserError

import torch  # isort: skip
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from reproduce.device import Device, make_stream
from reproduce.interleave import Task, resume_on_stream, run_interleaved
from reproduce.model import build_network
from reproduce.record import describe_git, write_json
from reproduce.reference import make_sgd, train_network
from reproduce.sampling import Data, gather_batch, load_data, sample_batches
from reproduce.step import Training

Candidate = Callable[[int], float]
"""Trains so many iterations and returns the seconds that one of one run took, the others' share taken off."""


QUICK = {"together": (2, 4, 8), "iterations": 20, "rounds": 3}
QUICK_ON_CPU = {"depths": (20,), "together": (2,), "iterations": 6, "rounds": 3}
"""What --quick sets."""
QUICK_CHUNK = 100
"""Iterations of an accelerator's chunk then."""
ESSENTIAL = r"plain|eager|captured|\d+ together|\d+ side by side"
"""The candidates then."""


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Raises:
        UserError: a value outside its range.
    """

    depths: tuple[int, ...] = (20, 56)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    only: str = ""
    """Only candidates whose name matches this regular expression, and no record; by default all."""
    quick: bool = False
    """Only the plain loop, the steps of run.py and what sweep.py chooses from; together, iterations and rounds are then set,
    and on a CPU, where only depth 20 is measured, depths as well."""
    together: tuple[int, ...] = (4,)
    """Numbers of runs that are trained together."""
    iterations: int = 20
    """Iterations of one candidate in one round; half as many before them are not counted. What is captured trains whole chunks,
    as run.py does."""
    rounds: int = 5
    """Rounds that are counted; one more before them, in which kernels are chosen, compiled and captured, is not."""
    workers: int = 2
    """Processes of the plain loop's DataLoader."""
    data: str = "data"
    """Folder of CIFAR-10, or the word synthetic."""
    device: DeviceChoice = "auto"
    out: Path = THROUGHPUT
    """Folder that receives <device>.json or, with --quick, <device>-quick.json; what is there under that name is replaced."""

    def __post_init__(self):
        for name in ("iterations", "rounds"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        require(self.workers >= 0, "workers must be at least 0", self.workers)
        require(all(count >= 2 for count in self.together), "together must be at least 2", self.together)
        try:
            re.compile(self.only)
        except re.error as error:
            raise UserError(f"only must be a regular expression ({error}), not {self.only}") from None


# The candidates ---------------------------------------------------------------------------------------------------------


def repeat_loader(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def compile_network(network: nn.Module, **options: Any):
    """Has torch compile a network, which fails where torch would else run it uncompiled without a word.

    By default that is the case after eight variants of one forward method, which all networks share.
    """
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    network.compile(**options)


class TransformedImages(Dataset):
    """Training images as torchvision's datasets return them: each a PIL image, transformed, with its label."""

    def __init__(self, config: Config, folder: Path, transform: Callable[[Any], Tensor]):
        (self.images_NHWC, self.labels, *_), _ = read_dataset(config.dataset, folder)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images_NHWC[index])), int(self.labels[index])


def plain_loop(config: Config, folder: Path, device: Device, workers: int, compiled: bool = False) -> Candidate:
    """The usual training loop, reproduce/reference.py's."""
    normalize = transforms.Normalize((0.4914, 0.4822, 0.4465), (1.0, 1.0, 1.0))
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    images = TransformedImages(config, folder, transforms.Compose([*augment, transforms.ToTensor(), normalize]))
    loader = DataLoader(images, config.batch_size, shuffle=True, drop_last=True, num_workers=workers)
    batches = ((inputs.to(device.torch_device), labels.to(device.torch_device)) for inputs, labels in repeat_loader(loader))
    network = build_network(config).to(device.torch_device).train()
    if compiled:
        compile_network(network)
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


class NativeBatchNorm(nn.BatchNorm2d):
    """BN by torch's own kernels also where nn.BatchNorm2d would choose a library's."""

    def forward(self, input: Tensor) -> Tensor:
        assert self.momentum is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(int(self.training))
        averages = self.running_mean, self.running_var
        return torch.native_batch_norm(input, self.weight, self.bias, *averages, self.training, self.momentum, self.eps)[0]


def seeds(config: Config, count: int) -> list[Config]:
    return [replace(config, seed=seed) for seed in range(count)]


def train_iterations(training: Training, start: int, stop: int) -> Task[None]:
    for begin in range(start, stop, training.device.chunk_iterations):
        end = min(begin + training.device.chunk_iterations, stop)
        yield from training.train_chunk(begin, end, [0.1] * (end - begin))


def advancing(runs: Sequence[Training], device: Device) -> Candidate:
    """Trains runs that take turns.

    Raises, while training:
        RuntimeError: a run has given up its capture, and would be measured as what it is not.
    """
    start, streams, captured = 0, [make_stream(device) for _ in runs], [run.may_capture for run in runs]

    def train(iterations: int) -> float:
        nonlocal start
        stop = start + iterations
        each = zip(streams, runs, strict=True)
        turns = [resume_on_stream(stream, device, train_iterations(run, start, stop), lambda: None) for stream, run in each]
        before = time.perf_counter()
        run_interleaved(turns)
        if captured != [run.may_capture for run in runs]:
            raise RuntimeError("its step is not captured")
        start = stop
        return (time.perf_counter() - before) / iterations / len(runs)

    return train


candidate_here: Candidate
"""In a process of `side_by_side`, its run."""


def begin_beside(config: Config, folder: Path):
    """Makes the run of a process of `side_by_side`."""
    global candidate_here
    torch.set_num_threads(1)
    device = devices.choose_device("cpu")
    devices.set_numerics(device, config.precision, deterministic=False)
    candidate_here = advancing(
        [Training(config, load_data(config, folder, device.torch_device), device, capture=False)], device
    )


def train_beside(iterations: int):
    candidate_here(iterations)


def side_by_side(config: Config, folder: Path, count: int) -> Candidate:
    """Trains runs in a process and on a thread each. The processes end with the candidate."""
    # Started afresh, since a fork of a process whose torch has used threads may wait for them for ever.
    begun = [(begin_beside, (seed, folder)) for seed in seeds(config, count)]
    processes = [ProcessPoolExecutor(1, get_context("spawn"), *begin) for begin in begun]

    def train(iterations: int) -> float:
        before = time.perf_counter()
        for future in [process.submit(train_beside, iterations) for process in processes]:
            future.result()
        return (time.perf_counter() - before) / iterations / count

    return train


def candidates(
    settings: Settings, config: Config, folder: Path, data: Data, device: Device
) -> dict[str, Callable[[], Candidate]]:
    """What makes each candidate, in the order of the table."""
    plain = partial(plain_loop, config, folder, device, settings.workers)
    made: dict[str, Callable[[], Candidate]] = {"plain": plain, "plain compiled": partial(plain, compiled=True)}

    def ours(
        count: int = 1, device: Device = device, capture: bool = True, compiled: str = "", native: bool = False
    ) -> Candidate:
        runs = [Training(seed, data, device, capture) for seed in seeds(config, count)]
        for run in runs if native else []:
            for module in run.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.__class__ = NativeBatchNorm
        for run in runs if compiled else []:
            for part in [run.network] if compiled == "whole" else run.network.get_submodule("blocks").children():
                compile_network(part)
        return advancing(runs, device)

    made["eager"] = partial(ours, capture=False)
    contiguous = replace(device, memory_format=torch.contiguous_format)
    other_layout = device.is_accelerator and device != contiguous
    if device.is_accelerator:
        made["captured"] = ours
    if other_layout:
        made["captured contiguous"] = partial(ours, device=contiguous)
    other_bn = device.kind == "cuda" and config.precision != "bf16"
    if other_bn:
        made["captured native BN"] = partial(ours, native=True)
    made["captured compiled" if device.is_accelerator else "eager compiled"] = partial(ours, compiled="whole")
    if device.is_accelerator:
        made["captured compiled by block"] = partial(ours, compiled="by block")
    for count in settings.together:
        made[f"{count} together"] = partial(ours, count)
        if other_layout:
            made[f"{count} together contiguous"] = partial(ours, count, device=contiguous)
        if other_bn:
            made[f"{count} together native BN"] = partial(ours, count, native=True)
    if not device.is_accelerator and count_cores() > 1:
        made[f"{count_cores()} side by side"] = partial(side_by_side, config, folder, count_cores())
    if settings.quick:
        made = {name: make for name, make in made.items() if re.fullmatch(ESSENTIAL, name)}
    return {name: make for name, make in made.items() if re.search(settings.only, name)}


# The floor --------------------------------------------------------------------------------------------------------------


def count_work(config: Config) -> tuple[int, int]:
    """Floating-point operations and bytes that a step of a net takes at least.

    Operations: those of convolutions and the linear layer, forward and backward, 2 for a multiply-add. Bytes: the output
    of every convolution written and read once (the backward pass needs it, and all other maps follow from it), in 2 bytes a
    number for bf16 and 4 else; every weight and its momentum read and written once, in 4.
    """
    network = build_network(config).to("meta")
    size = 2 if config.precision == "bf16" else 4
    moved = 0

    def add_output(module: nn.Module, inputs: Any, output: Tensor):
        nonlocal moved
        moved += 2 * size * output.numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add_output)
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(config.batch_size, 3, 32, 32, device="meta")).sum().backward()
    moved += sum(4 * 4 * parameter.numel() for parameter in network.parameters())
    return counter.get_total_flops(), moved


def time_calls(call: Callable[[], Any], device: Device, repeats: int = 5) -> float:
    """Seconds of one call: the median of some, after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        before = time.perf_counter()
        call()
        if device.is_accelerator:
            device.backend.synchronize()
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds[1:])


def measure_ceilings(device: Device, precisions: Sequence[Precision]) -> dict[str, float]:
    """Bytes per second of a large copy, read and written counted, and operations per second of a matrix product."""
    where, large = device.torch_device, device.is_accelerator
    source = torch.randint(0, 255, (2**31 if large else 2**28,), dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    ceilings = {"copy": 2 * source.numel() / time_calls(lambda: target.copy_(source), device)}
    side = 8192 if large else 2048
    for precision in precisions:
        devices.set_numerics(device, precision, deterministic=False)
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        first, second = (torch.randn(side, side, device=where).to(kind) for _ in range(2))
        ceilings[precision] = 2 * side**3 / time_calls(partial(torch.mm, first, second), device)
    return ceilings


# Measuring --------------------------------------------------------------------------------------------------------------


def preparation(config: Config, data: Data, device: Device, iterations: int) -> float:
    """Seconds per iteration that go into choosing and making batches."""

    def prepare():
        for row in sample_batches(config, len(data.train), 0, iterations).to(device.torch_device):
            gather_batch(data.train, data, row)

    return time_calls(prepare, device) / iterations


def round_up(iterations: int, name: str, device: Device) -> int:
    """To whole chunks for a candidate that is captured."""
    whole = device.chunk_iterations if device.is_accelerator and name not in ("plain", "plain compiled", "eager") else 1
    return math.ceil(iterations / whole) * whole


def compare_candidates(
    settings: Settings, config: Config, folder: Path, data: Data, device: Device, floor: float
) -> list[dict[str, Any]]:
    """A row for every candidate of one net in one precision, printed as well; times in milliseconds."""
    seconds: dict[str, list[float]] = {}
    trains: dict[str, Candidate] = {}
    rows = []
    torch._dynamo.reset()  # what it has compiled of the net before is of no more use
    for name, make in candidates(settings, config, folder, data, device).items():
        before = time.perf_counter()
        try:
            train = make()
            train(round_up(settings.iterations, name, device))
        except Exception as error:  # torch.compile wants a compiler, an operator may be missing: the others are measured
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            print(f"depth {config.depth:4}  {config.precision}  {name:21} not measured, {reason}", flush=True)
            continue
        trains[name] = train
        rows.append({"depth": config.depth, "precision": config.precision, "candidate": name})
        rows[-1]["iterations"] = round_up(settings.iterations, name, device)
        rows[-1]["seconds_to_start"] = round(time.perf_counter() - before, 1)
        seconds[name] = []
    for _ in range(settings.rounds):
        for name, train in trains.items():
            train(round_up(math.ceil(settings.iterations / 2), name, device))
            seconds[name].append(train(round_up(settings.iterations, name, device)))
    for row in rows:
        times = [1000 * value for value in seconds[row["candidate"]]]
        median = statistics.median(times)
        row |= {"median": round(median, 4), "min": round(min(times), 4), "max": round(max(times), 4)}
        row |= {
            "images_per_second": round(1000 * config.batch_size / median),
            "floor_fraction": round(1000 * floor / median, 5),
        }
        if "plain" in seconds:
            row["times_plain"] = round(1000 * statistics.median(seconds["plain"]) / median, 2)
        print(describe_row(row), flush=True)
    return rows


def describe_row(row: dict[str, Any]) -> str:
    beside = f"{row['times_plain']:6.2f} times plain, " if "times_plain" in row else ""
    return (
        f"depth {row['depth']:4}  {row['precision']}  {row['candidate']:21} {row['median']:9.3f} ms ({row['min']:.3f} to "
        f"{row['max']:.3f})  {row['images_per_second']:7} images/s  {beside}{100 * row['floor_fraction']:.2f}% of the floor's "
        f"speed; started in {row['seconds_to_start']:.1f} s"
    )


def measure_nets(settings: Settings) -> Path | None:
    """Prints the table, writes the record of all candidates and returns its path; of some, None.

    Raises:
        UserError: the data set is missing, the device not usable or without a precision, or no candidate chosen.
        OSError: the record cannot be written.
    """
    device = devices.choose_device(settings.device)
    if settings.quick:
        settings = replace(settings, **QUICK if device.is_accelerator else QUICK_ON_CPU)
        device = replace(device, chunk_iterations=min(device.chunk_iterations, QUICK_CHUNK))
    default = Config(dataset="synthetic" if settings.data == "synthetic" else "cifar10")
    configs = [replace(default, depth=depth, precision=p) for depth in settings.depths for p in settings.precisions]
    folder = find_data_folder(default.dataset, settings.data)
    for precision in settings.precisions:
        devices.set_numerics(device, precision, deterministic=False)
    data = load_data(default, folder, device.torch_device)
    if not any(candidates(settings, config, folder, data, device) for config in configs):
        raise UserError(f"no candidate on {device.kind} matches --only {settings.only}: without it, all are measured")
    if not settings.only:
        settings.out.mkdir(parents=True, exist_ok=True)  # now, and not after minutes of measuring
    about = devices.describe_device(device)
    print(f"{about['device_name']}, {about['threads']} threads, torch {about['versions']['torch']}, batch {default.batch_size}")
    ceilings = measure_ceilings(device, settings.precisions)
    rates = ", ".join(f"{name} {value / 1e12:.3f} TFLOP/s" for name, value in ceilings.items() if name != "copy")
    print(f"ceilings: copy {ceilings['copy'] / 1e9:.1f} GB/s, {rates}")
    name = re.sub("[^a-z0-9]+", "-", about["device_name"].lower()).strip("-")
    path = settings.out / f"{name}{'-quick' if settings.quick else ''}.json"
    chosen = {name: value for name, value in asdict(settings).items() if name not in ("data", "device", "out")}
    record = {"git": describe_git()} | about | {"data": default.dataset, "batch_size": default.batch_size} | chosen
    nets, rows = [], []
    for config in configs:
        devices.set_numerics(device, config.precision, deterministic=False)
        operations, moved = count_work(config)
        times = {"operations": operations / ceilings[config.precision], "bytes": moved / ceilings["copy"]}
        share = preparation(config, data, device, settings.iterations)
        net = {"depth": config.depth, "precision": config.precision, "operations": operations, "bytes": moved}
        net |= {"floor": round(1000 * max(times.values()), 5), "preparation": round(1000 * share, 4)}
        print(
            f"depth {config.depth:4}  {config.precision}  {operations / 1e9:.2f} GFLOP and {moved / 1e6:.1f} MB a step: floor "
            f"{net['floor']:.3f} ms, by its {max(times, key=lambda name: times[name])}; preparing a batch takes "
            f"{net['preparation']:.3f} ms",
            flush=True,
        )
        nets.append(net)
        rows += compare_candidates(settings, config, folder, data, device, max(times.values()))
        if not settings.only:
            write_json(path, record | {"ceilings": ceilings, "nets": nets, "rows": rows})
    if settings.only:
        return None
    print(path)
    return path


def main(arguments: Sequence[str]) -> int:
    measure_nets(cli.parse_args(Settings, arguments, "throughput.py", __doc__))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
