"""A stand-in for torch_npu, used if its folder is on PYTHONPATH: torch.npu on the device of device.cpp.

It contains what the project uses, and nothing that torch_npu 2.13.0 does not have (names.txt, from its wheel). Environment:

- NPU_STANDIN_DEVICES: number of devices (1); ASCEND_RT_VISIBLE_DEVICES selects from them, as on a real host.
- NPU_STANDIN_CAPTURE: "fails" as with a CANN without graphs; "breaks" when the capture ends; "silent": the replay does
  nothing.

`counts` and `reset_counts` are for the tests.
"""

import contextlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils import backend_registration

sys.path.insert(0, str(Path(__file__).parents[1]))
from build import NAME, build  # noqa: E402

sys.path.pop(0)
_spec = importlib.util.spec_from_file_location(NAME, build())
assert _spec is not None and _spec.loader is not None
_native: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_native)

NAMES = frozenset(Path(__file__).with_name("names.txt").read_text().split())


class Flags(types.SimpleNamespace):
    """Settings without effect, with the defaults of torch_npu 2.13.0."""


class Stream(torch.Stream):
    def __new__(cls, device: Any = None, priority: int = 0):
        return super().__new__(cls, torch.device("npu"), priority=priority)


class Event(torch.Event):
    def __new__(cls):
        return super().__new__(cls, torch.device("npu"))


class NPUGraph(_native.Graph):
    def replay(self):
        if get_capture_fault() != "silent":
            super().replay()


def get_capture_fault() -> str:
    return os.environ.get("NPU_STANDIN_CAPTURE", "")


@contextlib.contextmanager
def use_stream(stream: torch.Stream) -> Iterator[None]:
    before = torch.accelerator.current_stream()
    torch.accelerator.set_stream(stream)
    yield
    torch.accelerator.set_stream(before)


@contextlib.contextmanager
def capture(npu_graph: NPUGraph, pool: Any = None, stream: Any = None) -> Iterator[None]:
    if get_capture_fault() == "fails":
        raise RuntimeError("Failed to find function aclmdlRICaptureBegin")
    if os.environ.get("TASK_QUEUE_ENABLE") == "2":
        raise RuntimeError(
            "Do not support TASK_QUEUE_ENABLE = 2 during NPU graph capture, please export TASK_QUEUE_ENABLE=1/0."
        )
    _native.synchronize()
    with use_stream(stream or Stream()):
        npu_graph.begin()
        broken = True
        try:
            yield
            broken = get_capture_fault() == "breaks"
        finally:
            npu_graph.end()
            if broken:  # as in torch 2.11: it hides the original error
                raise RuntimeError("operation failed due to a previous error during capture")


def list_visible() -> list[str]:
    present = [str(index) for index in range(int(os.environ.get("NPU_STANDIN_DEVICES", "1")))]
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    return present if visible is None else [index for index in visible.split(",") if index in present]


class Names(types.ModuleType):
    """torch.npu: NotImplementedError for names that only the real torch_npu has, AttributeError for unknown names."""

    def __getattr__(self, name: str) -> Any:
        if name in NAMES:
            raise NotImplementedError(f"torch.npu.{name} exists in torch_npu 2.13.0 but not in the stand-in")
        raise AttributeError(f"module 'torch.npu' has no attribute {name!r}, nor has torch_npu 2.13.0")


npu: Any = Names("torch.npu")
_simulated = {
    "is_available": lambda: _native.device_count() > 0,
    "device_count": _native.device_count,
    "current_device": torch.accelerator.current_device_index,
    "get_device_name": lambda device=None: f"NPU stand-in {list_visible()[torch.accelerator.current_device_index()]}",
    "max_memory_allocated": lambda device=None: _native.most_bytes_in_use(),
    "mem_get_info": lambda device=None: (2**35, 2**36),
    "reset_peak_memory_stats": lambda device=None: _native.forget_most_bytes(),
    "synchronize": lambda device=None: _native.synchronize(),
    "is_bf16_supported": lambda: True,
    "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16, torch.float32],
    "Stream": Stream,
    "Event": Event,
    "stream": use_stream,
    "current_stream": lambda device=None: torch.accelerator.current_stream(),
    "NPUGraph": NPUGraph,
    "graph": capture,
    "graph_pool_handle": lambda: (0, 1),
    "is_current_stream_capturing": _native.is_capturing,
    "matmul": Flags(allow_hf32=False),
    "conv": Flags(allow_hf32=True),
    "config": Flags(allow_internal_format=True),
}
assert NAMES.issuperset(_simulated), set(_simulated) - NAMES
npu.__dict__.update(_simulated)

_native.set_device_count(len(list_visible()))
backend_registration.rename_privateuse1_backend("npu")
torch._register_device_module("npu", npu)
backend_registration.generate_methods_for_privateuse1_backend(for_tensor=True, for_module=True, for_storage=True)


def counts() -> dict[str, int]:
    """Return the counts of operators, copies and synchronizations since `reset_counts`."""
    return _native.counts()


reset_counts = _native.reset_counts
