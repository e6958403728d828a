"""Check if training fits into the device's memory, and explain out-of-memory errors."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reproduce.config import Config
from reproduce.device import Device
from reproduce.errors import OutOfMemory, is_out_of_memory
from reproduce.model import STAGE_CHANNELS

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def estimate_memory(config: Config) -> int:
    """Return a lower bound on the memory of training, in bytes.

    It counts two feature maps per layer and image (after the convolution, and after BN and ReLU), and for each weight its
    value, gradient and optimizer state. The measured usage is 0 to 24% higher, depending on shortcut and block design.
    For families other than 6n+2 it counts only the images.
    """
    if config.family != "6n+2":
        return 4 * config.batch_size * config.dataset_info.channels * config.dataset_info.side**2
    blocks = (config.depth - 2) // 6  # per stage
    sides = [config.dataset_info.side >> stage for stage in range(len(STAGE_CHANNELS))]
    stages = sum(2 * blocks * channels * side**2 for channels, side in zip(STAGE_CHANNELS, sides, strict=True))
    maps = STAGE_CHANNELS[0] * sides[0] ** 2 + stages
    weights = sum(2 * blocks * 9 * channels**2 for channels in STAGE_CHANNELS)
    size, copies = 2 if config.precision == "bf16" else 4, 3 if config.optimizer == "sgd" else 4
    return 2 * size * config.batch_size * maps + 4 * copies * weights


def available_memory(device: Device) -> int | None:
    """Return the total memory of an accelerator, or the free memory of a CPU, in bytes; None if unknown."""
    if device.is_accelerator:
        return device.backend.mem_get_info()[1]
    found = []
    with suppress(OSError, ValueError, StopIteration):  # not Linux
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError, KeyError):  # no container or no limit
        found.append(int((CGROUP / "memory.max").read_text()) - int((CGROUP / "memory.current").read_text()))
        # The page cache counts as used but can be dropped.
        statistics = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        found[-1] += int(statistics["inactive_file"])
    return min(found, default=None)


def format_shortage(config: Config, device: Device) -> str:
    """Return the estimated and the available memory, and which flags to lower."""
    memory = available_memory(device)
    available = "" if memory is None else f", but the {device.kind} has {memory / 1e9:,.1f} GB"
    lower = "--batch-size" if config.batch_size > 1 or config.family != "6n+2" else "--depth"
    if config.depth > 1202 and config.batch_size > 1:
        lower += " and --depth"
    needed = (
        f"training {config.net} with batch size {config.batch_size:,} needs at least {estimate_memory(config) / 1e9:,.1f} GB"
    )
    return f"{needed} of memory{available}: lower {lower}"


def check_memory(config: Config, device: Device):
    """Check that training can fit into the device's memory.

    Raises:
        OutOfMemory: it is too small.
    """
    memory = available_memory(device)
    if memory is not None and estimate_memory(config) > memory:
        raise OutOfMemory(format_shortage(config, device))


@contextmanager
def explain_out_of_memory(config: Config, device: Device) -> Iterator[None]:
    """Turn the out-of-memory errors of Python, torch and the device into an OutOfMemory with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory: {format_shortage(config, device)} or stop other processes") from None
