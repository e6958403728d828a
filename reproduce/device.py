"""The device: choosing it, its precision flags, its graph capture, its description.

Whatever depends on the kind, npu, cuda or cpu, is told here: in the rest of reproduce/ these are words of the command line.

Import this module before torch: where torch_npu is installed without CANN, torch's own loading of it makes `import torch`
fail for the whole process. Here that loading is put off until torch is in, and its failure is kept as the reason.
"""

import gc
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduce.config import Precision
from reproduce.errors import UnsupportedPrecision, UserError

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
_autoload_before = os.environ.get(AUTOLOAD)
os.environ[AUTOLOAD] = "0"
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts; deterministic mode needs it
# Read when CUDA starts: the hardware queues. With fewer than there are streams, one run would wait for another.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
import torch  # noqa: E402


def format_exception(error: Exception) -> str:
    """An error in one line: its kind and, where it has one, the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def load_torch_npu() -> str | None:
    """Loads torch_npu; returns why it is not usable, or None."""
    if hasattr(torch, "npu"):
        return None
    if _autoload_before == "0":
        return f"{AUTOLOAD}=0 forbids loading torch_npu"
    if importlib.util.find_spec("torch_npu") is None:
        return "torch_npu is not installed"
    try:
        importlib.import_module("torch_npu")
    except Exception as error:  # its import can fail in any way, and then the other devices must still work
        reason = f"torch_npu is installed but does not load ({format_exception(error)})"
        if isinstance(error, ImportError) and ".so" in str(error):
            reason += "; CANN is missing or not on LD_LIBRARY_PATH: source the set_env.sh of the Ascend toolkit"
        return reason
    return None


NPU_PROBLEM = load_torch_npu()
if _autoload_before is None:
    del os.environ[AUTOLOAD]
else:
    os.environ[AUTOLOAD] = _autoload_before


@dataclass(frozen=True)
class Device:
    """One usable device and what suits it.

    chunk_iterations: iterations between two meetings with the host. fused: torch.optim has one-kernel updates for it whose
    learning rate may stay on the device.
    """

    kind: str
    memory_format: torch.memory_format
    chunk_iterations: int
    eval_batch_size: int
    fused: bool

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.kind)

    @property
    def backend(self) -> Any:
        """torch.cuda or torch.npu."""
        return getattr(torch, self.kind)

    @property
    def is_accelerator(self) -> bool:
        return self.kind != "cpu"


DEVICES = {
    "npu": Device("npu", torch.contiguous_format, chunk_iterations=500, eval_batch_size=1000, fused=False),
    "cuda": Device("cuda", torch.channels_last, chunk_iterations=500, eval_batch_size=1000, fused=True),
    "cpu": Device("cpu", torch.channels_last, chunk_iterations=10, eval_batch_size=250, fused=True),
}


def unusable_reason(kind: str) -> str | None:
    """Why a kind of device cannot be used here, or None."""
    if kind == "npu":
        if NPU_PROBLEM is None and not torch.npu.is_available():  # pyright: ignore[reportAttributeAccessIssue]
            return "torch_npu loads but sees no device (look at npu-smi info and ASCEND_RT_VISIBLE_DEVICES)"
        return NPU_PROBLEM
    if kind == "cuda" and not torch.cuda.is_available():
        if torch.version.cuda is None:
            return "this torch is built without CUDA"
        return "torch sees no CUDA device (look at nvidia-smi and CUDA_VISIBLE_DEVICES)"
    return None


def choose_device(kind: str) -> Device:
    """The device of a kind, or for "auto" the first usable one of npu, cuda, cpu.

    Raises:
        UserError: the kind asked for is not usable; the sentence says why.
    """
    if kind == "auto":
        kind = next(kind for kind in DEVICES if unusable_reason(kind) is None)
    reason = unusable_reason(kind)
    if reason is not None:
        raise UserError(f"device {kind} is not usable: {reason}")
    return DEVICES[kind]


def set_numerics(device: Device, precision: Precision, deterministic: bool) -> dict[str, Any]:
    """Sets the flags that decide what a float32 operation computes, and returns them as they then read.

    Raises:
        PrecisionLacking: the device does not have the precision.
    """
    if precision == "tf32" and device.kind == "cpu":
        raise UnsupportedPrecision("precision tf32 needs an accelerator: choose fp32 or bf16 on a cpu")
    if precision == "bf16" and device.kind != "cpu" and not device.backend.is_bf16_supported():
        raise UnsupportedPrecision(f"precision bf16 is not supported by this {device.kind} device: choose fp32")
    torch.use_deterministic_algorithms(deterministic)
    flags: dict[str, Any] = {"precision": precision, "deterministic": torch.are_deterministic_algorithms_enabled()}
    fast_float32 = precision == "tf32"
    if device.kind == "cuda":
        # Each sets the newer fp32_precision as well. That set alone leaves these unreadable, and torch.compile reads them.
        for name, module in (("matmul", torch.backends.cuda.matmul), ("convolution", torch.backends.cudnn)):
            module.allow_tf32 = fast_float32  # pyright: ignore[reportAttributeAccessIssue]
            flags[f"{name}.allow_tf32"] = module.allow_tf32
        torch.backends.cudnn.benchmark = not deterministic
        flags["cudnn.benchmark"] = torch.backends.cudnn.benchmark
    if device.kind == "npu":
        # A convolution may use HF32 unless told otherwise; its private formats suit more channels than these.
        for name, module in (("matmul", device.backend.matmul), ("convolution", device.backend.conv)):
            module.allow_hf32 = fast_float32
            flags[f"{name}.allow_hf32"] = module.allow_hf32
        device.backend.config.allow_internal_format = False
    return flags


def autocast(device: Device, precision: Precision) -> AbstractContextManager:
    """bf16 autocast, or nothing. Without a cache of cast weights, which a captured step must not have."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.kind, torch.bfloat16, cache_enabled=False)


def make_stream(device: Device) -> Any:
    """A stream for work that comes after all earlier work; on a CPU, which has none, None."""
    if not device.is_accelerator:
        return None
    device.backend.synchronize()
    return device.backend.Stream()


def on_stream(device: Device, stream: Any) -> AbstractContextManager:
    return nullcontext() if stream is None else device.backend.stream(stream)


def own_stream(device: Device) -> AbstractContextManager:
    """A stream of its own for what is computed within (capture refuses the default one)."""
    return on_stream(device, make_stream(device))


def record_event(device: Device) -> Callable[[], bool]:
    """Marks a point in the work of the current stream; returns what tells, without waiting, whether it is reached."""
    if not device.is_accelerator:
        return lambda: True
    event = device.backend.Event()
    event.record()
    return event.query


CAPTURE_ERRORS = (RuntimeError, AttributeError, NotImplementedError)


def capture_graph(device: Device, step: Callable[[], None]) -> Callable[[], None] | str:
    """Captures one call of step, which must have run a few times, on the current stream; nothing is computed meanwhile.

    Returns: what replays it, or, where capture fails, the reason in one line.
    """
    graph_type = "NPUGraph" if device.kind == "npu" else "CUDAGraph"
    pool, reason = None, None
    # A collection within the capture could free another run's graph, which a capture does not survive.
    gc.collect()
    gc.disable()
    try:
        graph = getattr(device.backend, graph_type)()
        pool = device.backend.graph_pool_handle()
        with device.backend.graph(graph, pool=pool, stream=device.backend.current_stream()):
            try:
                step()
            except CAPTURE_ERRORS as error:
                reason = format_exception(error)  # the end of a capture that this has broken fails as well, in words of its own
                raise
    except CAPTURE_ERRORS as error:
        release_pool(device, pool)
        return reason or format_exception(error)
    finally:
        gc.enable()
    return graph.replay


def release_pool(device: Device, pool: Any):
    """Ends and frees the memory pool of a capture that has failed, where it was left open.

    torch 2.11 leaves it so on cuda, and then refuses to free memory and to capture anything for the rest of the process
    (pytorch#180395). A later torch ends the pool itself: ending it again is an error, and it is not ours to free.
    """
    if device.kind == "cuda" and pool is not None:
        index = device.backend.current_device()
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)


def peak_memory(device: Device) -> int | None:
    """The most bytes of device memory that this process's tensors have held since `reset_peak_memory`; None on a CPU."""
    return device.backend.max_memory_allocated() if device.is_accelerator else None


def reset_peak_memory(device: Device):
    if device.is_accelerator:
        device.backend.reset_peak_memory_stats()


def count_threads(device: Device) -> int | None:
    """How many threads of this process share an operation; None on an accelerator."""
    return None if device.is_accelerator else torch.get_num_threads()


def format_device(device: Device) -> str:
    """The device in a few words, as cpu (its name), 2 threads."""
    about, threads = describe_device(device), count_threads(device)
    return f"{device.kind} ({about['device_name']})" + (f", {threads} thread{'s' * (threads > 1)}" if threads else "")


def describe_device(device: Device) -> dict[str, Any]:
    """The device's name and the versions that decide what it computes."""
    versions: dict[str, Any] = {name: installed_version(name) for name in ("torch", "torchvision", "torch_npu", "numpy")}
    versions["python"] = platform.python_version()
    if device.kind == "cuda":
        versions |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {
        "device": device.kind,
        "device_name": device.backend.get_device_name() if device.is_accelerator else cpu_name(),
        "threads": torch.get_num_threads(),
        "platform": f"{sys.platform} {platform.machine()}",
        "versions": versions,
    }


def installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The CPU's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
