"""The part of check.py that runs with the real torch_npu: `run` with the flags of run.py, or `use`."""

# pyright: reportAttributeAccessIssue=false

import ast
import ctypes
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from reproduce import device as devices

# isort: split
import torch
from torch.utils._pytree import tree_map

# The compiled operators of the index's torchvision need CUDA; its Python code needs these names.
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from reproduce import run  # noqa: E402
from reproduce.cli import run_cli  # noqa: E402
from reproduce.config import Config  # noqa: E402
from reproduce.interleave import run_task  # noqa: E402
from reproduce.sampling import load_data  # noqa: E402
from reproduce.step import Training  # noqa: E402

MEMORY = {
    *("empty.memory_format", "empty_strided", "empty_like", "as_strided", "view", "_reshape_alias", "unfold", "alias"),
    *("detach", "set_", "set_.source_Storage", "set_.source_Storage_storage_offset", "set_.source_Tensor", "is_set_to"),
    *("resize_", "resize_as_", "record_stream", "_pin_memory", "is_pinned", "new_empty", "new_empty_strided", "_to_copy"),
    *("copy_memory_", "_has_compatible_shallow_copy_type", "_copy_from", "_copy_from_and_resize"),
}
"""Operators on memory, for which torch_npu's own are used."""


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a CPU tensor on the memory of a tensor of the stand-in device, which is host memory."""
    storage = tensor.untyped_storage()
    if tensor.device.type == "cpu":
        return tensor
    if storage.nbytes() == 0:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    host = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    return torch.empty(0, dtype=tensor.dtype).set_(host, tensor.storage_offset(), tensor.shape, tensor.stride())


def by_cpu(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operator for the device that applies the CPU's kernel to the device's memory."""

    def compute(*arguments: Any, **keywords: Any) -> Any:
        pairs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def lower(value: Any) -> Any:
            if isinstance(value, torch.device):
                return torch.device("cpu")
            if not isinstance(value, torch.Tensor) or value.device.type == "cpu":
                return value
            host = on_host(value)
            pairs[id(host)] = (host, value)
            return host

        def lift(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            own = pairs[id(value)][1] if id(value) in pairs else None
            if own is not None and own.shape == value.shape:
                return own
            if own is None:
                own = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="npu")
            own.resize_(value.shape) if own.shape != value.shape else None
            on_host(own).copy_(value)
            return own

        torch.npu.synchronize()  # torch_npu may still have copies in its queue
        return tree_map(lift, kernel(*tree_map(lower, arguments), **tree_map(lower, keywords)))

    return compute


def convolution_backward(gradient: Any, images: Any, weight: Any, *rest: Any) -> Any:
    return torch.ops.aten.convolution_backward.default(gradient, images, weight, [weight.size(0)], *rest)


def replace_operators() -> int:
    """Register the CPU's kernels for the device, since the stand-in libraries have none; return how many."""
    library = torch.library.Library("aten", "IMPL")
    globals()["_library"] = library  # keeps the registrations alive
    own = {
        "convolution_overrideable": torch.ops.aten.convolution.default,
        "convolution_backward_overrideable": convolution_backward,
    }
    replaced = 0
    for registration in torch._C._dispatch_get_registrations_for_dispatch_key("PrivateUse1"):
        namespace, _, operator = registration.partition("::")
        base, _, overload = operator.partition(".")
        if namespace != "aten" or operator in MEMORY or base in ("copy_", "_local_scalar_dense"):
            continue
        if not hasattr(torch.ops.aten, base):
            continue  # added by torch_npu
        kernel = own.get(operator) or getattr(getattr(torch.ops.aten, base), overload or "default")
        library.impl(operator, by_cpu(kernel), "PrivateUse1")
        replaced += 1

    def copy(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        torch.npu.synchronize()
        on_host(target).copy_(on_host(source))
        return target

    library.impl("copy_", copy, "PrivateUse1")
    library.impl("_local_scalar_dense", lambda tensor: torch.ops.aten._local_scalar_dense(on_host(tensor)), "PrivateUse1")
    return replaced + 2


def names_used() -> set[str]:
    """Return the attributes of torch.npu that reproduce/ and experiments/ use, as `backend` or torch.npu."""
    root = Path(devices.__file__).parents[1]
    found = {"NPUGraph"}  # used by getattr
    for path in [*root.glob("reproduce/*.py"), *root.glob("experiments/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] in ("backend", "npu"):
                found.add(node.attr)
    return found


def use():
    npu = devices.choose_device("npu")
    names = names_used()
    missing = sorted(name for name in names if not hasattr(torch.npu, name))
    assert not missing, f"torch_npu lacks {missing}"
    standin = set((Path(__file__).parents[1] / "npu_standin/torch_npu/names.txt").read_text().split())
    assert standin <= set(dir(torch.npu)), f"torch_npu lacks {sorted(standin - set(dir(torch.npu)))}"
    for precision in ("fp32", "tf32", "bf16"):
        flags = devices.set_numerics(npu, precision, deterministic=False)
        fast = precision == "tf32"
        assert flags["matmul.allow_hf32"] is torch.npu.matmul.allow_hf32 is fast, flags
        assert flags["convolution.allow_hf32"] is torch.npu.conv.allow_hf32 is fast, flags
    described = devices.describe_device(npu)
    print(f"{described['device_name']}, torch_npu {described['versions']['torch_npu']}: {', '.join(sorted(names))}")

    print(f"{replace_operators()} operators replaced by the CPU's kernels")
    config = Config(depth=8, batch_size=8, dataset="synthetic")
    for residual, precision in ((True, "fp32"), (False, "fp32"), (True, "bf16")):
        outcomes = []
        for kind in ("cpu", "npu"):
            device = replace(devices.choose_device(kind), memory_format=torch.contiguous_format, fused=False)
            device = replace(device, chunk_iterations=10)
            one = replace(config, residual=residual, precision=precision)
            devices.set_numerics(device, one.precision, deterministic=False)
            with devices.use_stream(device, devices.create_stream(device)):
                training = Training(one, load_data(one, Path("data/synthetic"), device.torch_device), device, capture=True)
                losses, _ = run_task(training.train_chunk(0, 5, [0.1] * 5))
            outcomes.append((losses, training.state()["network"]))
        (losses, cpu), (same, npu_state) = outcomes
        assert losses == same and all(torch.equal(cpu[name], npu_state[name]) for name in cpu), (losses, same)
        print(f"5 steps of {one.net}, {precision}: losses, weights and BN statistics equal the CPU's")
    assert (devices.peak_memory(npu) or 0) > 0


if __name__ == "__main__":
    sys.exit(run_cli(run.main, sys.argv[2:]) if sys.argv[1] == "run" else use())
