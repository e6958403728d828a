"""All device-specific code: device selection, precision flags, streams, graph capture, descriptions."""

import gc
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reproduce.config import DeviceKind, Precision
from reproduce.errors import UnsupportedPrecision, UserError

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic mode; read when cuBLAS starts
# Hardware queues, read when CUDA starts. With fewer queues than streams, runs would wait for each other.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")


def format_exception(error: Exception) -> str:
    """Return an error's type and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def load_torch_npu() -> str | None:
    """Load torch_npu and return the reason if it is unusable, else None."""
    if importlib.util.find_spec("torch_npu") is None:
        return "torch_npu is not installed"
    try:
        importlib.import_module("torch_npu")
    except Exception as error:  # any failure must leave the other devices usable
        reason = f"torch_npu is installed but does not load ({format_exception(error)})"
        if isinstance(error, ImportError) and ".so" in str(error):
            reason += "; CANN is missing or not on LD_LIBRARY_PATH: source the set_env.sh of the Ascend toolkit"
        return reason
    return None


NPU_PROBLEM = load_torch_npu()


@dataclass(frozen=True)
class Device:
    """A device and its settings.

    chunk_iterations: maximum number of iterations between synchronizations with the host. fused: whether torch.optim's fused
    optimizers accept a learning rate tensor on this device.
    """

    kind: DeviceKind
    memory_format: torch.memory_format
    chunk_iterations: int
    eval_batch_size: int
    fused: bool

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.kind)

    @property
    def backend(self) -> Any:
        """torch.cuda or torch.npu; a CPU has none."""
        return getattr(torch, self.kind)

    @property
    def is_accelerator(self) -> bool:
        return self.kind != "cpu"


DEVICES: dict[str, Device] = {
    "npu": Device("npu", torch.contiguous_format, chunk_iterations=500, eval_batch_size=1000, fused=False),
    "cuda": Device("cuda", torch.channels_last, chunk_iterations=500, eval_batch_size=1000, fused=True),
    "cpu": Device("cpu", torch.channels_last, chunk_iterations=10, eval_batch_size=250, fused=True),
}


def explain_unusable(kind: str) -> str | None:
    """Return why this kind of device cannot be used here, or None."""
    if kind == "npu":
        if NPU_PROBLEM is None and not torch.npu.is_available():  # pyright: ignore[reportAttributeAccessIssue]
            return "torch_npu loads but sees no device (check npu-smi info and ASCEND_RT_VISIBLE_DEVICES)"
        return NPU_PROBLEM
    if kind == "cuda" and not torch.cuda.is_available():
        if torch.version.cuda is None:
            return "this build of torch has no CUDA support"
        return "torch sees no CUDA device (check nvidia-smi and CUDA_VISIBLE_DEVICES)"
    return None


def choose_device(kind: str) -> Device:
    """Return the device, or for "auto" the first usable one of npu, cuda, cpu.

    Raises:
        UserError: the device is not usable.
    """
    if kind == "auto":
        kind = next(kind for kind in DEVICES if explain_unusable(kind) is None)
    reason = explain_unusable(kind)
    if reason is not None:
        raise UserError(f"device {kind} is not usable: {reason}")
    return DEVICES[kind]


def supports_precision(device: Device, precision: Precision) -> bool:
    """Whether the device computes in this precision without emulating it."""
    if device.kind == "cpu":
        return precision != "tf32"
    if device.kind == "cuda":
        return precision == "fp32" or torch.cuda.is_bf16_supported(including_emulation=False)  # these GPUs also have tf32
    return precision != "bf16" or device.backend.is_bf16_supported()


def set_numerics(device: Device, precision: Precision, deterministic: bool) -> dict[str, Any]:
    """Set the flags that affect numerical results and return their values.

    Raises:
        UnsupportedPrecision: the device does not support the precision.
    """
    if not supports_precision(device, precision):
        raise UnsupportedPrecision(
            f"this {device.kind} device does not support {precision}: use another --precision or --device"
        )
    torch.use_deterministic_algorithms(deterministic)
    flags: dict[str, Any] = {"precision": precision, "deterministic": torch.are_deterministic_algorithms_enabled()}
    fast_float32 = precision == "tf32"
    if device.kind == "cuda":
        # Setting allow_tf32 also sets fp32_precision. After setting only fp32_precision, reading allow_tf32 would raise an
        # error, and torch.compile reads it.
        for name, module in (("matmul", torch.backends.cuda.matmul), ("convolution", torch.backends.cudnn)):
            module.allow_tf32 = fast_float32  # pyright: ignore[reportAttributeAccessIssue]
            flags[f"{name}.allow_tf32"] = module.allow_tf32
        torch.backends.cudnn.benchmark = not deterministic
        flags["cudnn.benchmark"] = torch.backends.cudnn.benchmark
    if device.kind == "npu":
        # Convolutions use HF32 by default. NPU-private memory formats are slower for so few channels.
        for name, module in (("matmul", device.backend.matmul), ("convolution", device.backend.conv)):
            module.allow_hf32 = fast_float32
            flags[f"{name}.allow_hf32"] = module.allow_hf32
        device.backend.config.allow_internal_format = False
    return flags


def autocast(device: Device, precision: Precision) -> AbstractContextManager:
    """Return bf16 autocast, without its weight cache (which graph capture does not allow), or a null context."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.kind, torch.bfloat16, cache_enabled=False)


def create_stream(device: Device) -> Any:
    """Synchronize and return a new stream; None on a CPU. Capture is not allowed on the default stream."""
    if not device.is_accelerator:
        return None
    device.backend.synchronize()
    return device.backend.Stream()


def use_stream(device: Device, stream: Any) -> AbstractContextManager:
    return nullcontext() if stream is None else device.backend.stream(stream)


def record_event(device: Device) -> Callable[[], bool]:
    """Record an event on the current stream and return a function that checks, without blocking, whether it has completed."""
    if not device.is_accelerator:
        return lambda: True
    event = device.backend.Event()
    event.record()
    return event.query


CAPTURE_ERRORS = (RuntimeError, AttributeError, NotImplementedError)


def capture_graph(device: Device, step: Callable[[], None]) -> Callable[[], None] | str:
    """Capture one call of `step`, which must have run a few times before, on the current stream.

    Returns: a function that replays the graph or, if capture fails, the reason.
    """
    graph_type = "NPUGraph" if device.kind == "npu" else "CUDAGraph"
    pool, reason = None, None
    # Garbage collection during capture could free the graph of another run, which breaks the capture.
    gc.collect()
    gc.disable()
    try:
        graph = getattr(device.backend, graph_type)()
        pool = device.backend.graph_pool_handle()
        with device.backend.graph(graph, pool=pool, stream=device.backend.current_stream()):
            try:
                step()
            except CAPTURE_ERRORS as error:
                reason = format_exception(error)  # leaving the failed capture raises another error
                raise
    except CAPTURE_ERRORS as error:
        release_pool(device, pool)
        return reason or format_exception(error)
    finally:
        gc.enable()
    return graph.replay


def release_pool(device: Device, pool: Any):
    """Free the memory pool of a failed capture on CUDA if torch has left it open.

    torch 2.11 leaves it open and then can neither free memory nor capture again in this process (pytorch#180395). Later
    versions close the pool themselves, and closing it twice is an error.
    """
    if device.kind == "cuda" and pool is not None:
        index = device.backend.current_device()
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)


def peak_memory(device: Device) -> int | None:
    """Return the peak memory allocated by this process since `reset_peak_memory` in bytes; None on a CPU."""
    return device.backend.max_memory_allocated() if device.is_accelerator else None


def reset_peak_memory(device: Device):
    if device.is_accelerator:
        device.backend.reset_peak_memory_stats()


def format_device(device: Device) -> str:
    """Return a short description, such as "cpu (its name), 2 threads"."""
    about = describe_device(device)
    name, threads = f"{device.kind} ({about['device_name']})", about["threads"]
    return name if device.is_accelerator else f"{name}, {threads} thread{'s' * (threads > 1)}"


def describe_device(device: Device) -> dict[str, Any]:
    """Return the device's name and the software versions that affect its results."""
    versions: dict[str, Any] = {name: find_version(name) for name in ("torch", "torchvision", "torch_npu", "numpy")}
    versions["python"] = platform.python_version()
    if device.kind == "cuda":
        versions |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {
        "device": device.kind,
        "device_name": device.backend.get_device_name() if device.is_accelerator else find_cpu_name(),
        "threads": torch.get_num_threads(),
        "platform": f"{sys.platform} {platform.machine()}",
        "versions": versions,
    }


def find_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_cpu_name() -> str:
    """Return the CPU's model name, or its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text() if cpuinfo.is_file() else "", re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()
