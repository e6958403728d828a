"""Whether a training fits into a device's memory: told before much is allocated, and in a sentence where it did not."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reproduce.config import Config
from reproduce.device import Device
from reproduce.errors import OutOfMemory, is_out_of_memory
from reproduce.model import STAGE_CHANNELS

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def estimate_memory(config: Config) -> int:
    """Bytes that training holds at the end of a forward pass, at least.

    Of every image two maps a layer, the convolution's and the one after BN and ReLU (what autograd was seen to keep lies 0 to
    24% above, by shortcut and block design); of every weight its value, its gradient and what the optimizer has of it.
    Of other families, the images alone.
    """
    if config.family != "6n+2":
        return 4 * config.batch_size * config.dataset_info.channels * config.dataset_info.side**2
    blocks = (config.depth - 2) // 6  # in a stage
    sides = [config.dataset_info.side >> stage for stage in range(len(STAGE_CHANNELS))]
    stages = sum(2 * blocks * channels * side**2 for channels, side in zip(STAGE_CHANNELS, sides, strict=True))
    maps = STAGE_CHANNELS[0] * sides[0] ** 2 + stages
    weights = sum(2 * blocks * 9 * channels**2 for channels in STAGE_CHANNELS)
    size, copies = 2 if config.precision == "bf16" else 4, 3 if config.optimizer == "sgd" else 4
    return 2 * size * config.batch_size * maps + 4 * copies * weights


def available_memory(device: Device) -> int | None:
    """Bytes of memory: all of an accelerator's; of a CPU's, what is left for this process. None where nothing tells."""
    if device.is_accelerator:
        return device.backend.mem_get_info()[1]
    found = []
    with suppress(OSError, ValueError, StopIteration):  # not Linux
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError, KeyError):  # no container, or one without a limit
        found.append(int((CGROUP / "memory.max").read_text()) - int((CGROUP / "memory.current").read_text()))
        # In use are also files that were read, and that can be dropped.
        statistics = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        found[-1] += int(statistics["inactive_file"])
    return min(found, default=None)


def format_shortage(config: Config, device: Device) -> str:
    """What was asked for, what there is, and what to lower."""
    memory = available_memory(device)
    there = "" if memory is None else f" and the {device.kind} has {memory / 1e9:,.1f} GB"
    lower = "--batch-size" if config.batch_size > 1 or config.family != "6n+2" else "--depth"
    if config.depth > 1202 and config.batch_size > 1:
        lower += " and --depth"
    needed = f"training {config.net} in batches of {config.batch_size} takes {estimate_memory(config) / 1e9:,.1f} GB or more"
    return f"{needed} of memory{there}: lower {lower}"


def check_memory(config: Config, device: Device):
    """Refuses what cannot fit.

    Raises:
        OutOfMemory: training takes more than there is.
    """
    memory = available_memory(device)
    if memory is not None and estimate_memory(config) > memory:
        raise OutOfMemory(format_shortage(config, device))


@contextmanager
def explain_out_of_memory(config: Config, device: Device) -> Iterator[None]:
    """Within, what the device or the system says when memory is lacking becomes a sentence.

    Raises:
        OutOfMemory: it is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory: {format_shortage(config, device)}, or end what else uses it") from None
