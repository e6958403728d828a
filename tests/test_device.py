"""Choosing a device, its flags, and what stands in the way of one."""

# pyright: reportAttributeAccessIssue=false

import gc
import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reproduce import device
from reproduce.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("usable", "chosen"), [({"npu", "cuda"}, "npu"), ({"cuda"}, "cuda"), ({"npu"}, "npu"), (set(), "cpu")])
def test_auto_takes_npu_then_cuda_then_cpu(monkeypatch: pytest.MonkeyPatch, usable: set[str], chosen: str):
    reasons = {kind: None if kind in usable | {"cpu"} else "it is not there" for kind in device.DEVICES}
    monkeypatch.setattr(device, "unusable_reason", reasons.get)
    assert device.choose_device("auto").kind == chosen


@pytest.mark.parametrize("kind", ["npu", "cuda"])
def test_a_device_asked_for_is_refused_with_the_reason_and_never_replaced(monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.setattr(device, "unusable_reason", lambda kind: "it is not there")
    with pytest.raises(UserError, match=f"^device {kind} is not usable: it is not there$"):
        device.choose_device(kind)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
def test_a_missing_cuda_device_is_explained():
    assert "CUDA" in (device.unusable_reason("cuda") or "")


def import_again(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str | None, autoload: str | None) -> str:
    """What an import of device.py finds of an NPU, with `package` standing in for an installed torch_npu."""
    if package is not None:
        (folder / "torch_npu.py").write_text(package)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.delenv(device.AUTOLOAD, raising=False)
        if autoload is not None:
            patch.setenv(device.AUTOLOAD, autoload)
        spec = importlib.util.spec_from_file_location("device_again", device.__file__)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "device_again", module)
        spec.loader.exec_module(module)
        found = module.find_problem("npu")
        assert os.environ.get(device.AUTOLOAD) == autoload, "the environment is as before"
    for left in (lambda: sys.modules.pop("torch_npu", None), lambda: vars(torch).pop("npu", None)):
        left()
    return found


def test_what_stands_in_the_way_of_an_npu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert import_again(monkeypatch, tmp_path, None, None) == "torch_npu is not installed"
    assert import_again(monkeypatch, tmp_path, None, "0") == f"{device.AUTOLOAD}=0 forbids loading torch_npu"
    assert "does not load (ImportError)" in import_again(monkeypatch, tmp_path, "raise ImportError", "1")
    no_device = "import torch, types; torch.npu = types.SimpleNamespace(is_available=lambda: False)"
    assert "sees no device" in import_again(monkeypatch, tmp_path, no_device, None)


def test_torch_is_loaded_where_its_own_loading_of_torch_npu_would_fail(tmp_path: Path):
    (tmp_path / "torch_npu.py").write_text("raise ImportError('libhccl.so: cannot open shared object file')")
    code = "from reproduce import device; print(device.unusable_reason('npu'))"
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "", device.AUTOLOAD: "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("torch_npu is installed but does not load (ImportError: libhccl.so: cannot open")
    assert done.stdout.endswith("CANN is missing or not on LD_LIBRARY_PATH: source the set_env.sh of the Ascend toolkit\n")


# Flags ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def restore_flags():
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.parametrize(("precision", "fast"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_cuda_flags_follow_the_precision(monkeypatch: pytest.MonkeyPatch, precision: Any, fast: bool):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    flags = device.set_numerics(device.DEVICES["cuda"], precision, deterministic=False)
    assert flags["matmul.allow_tf32"] is flags["convolution.allow_tf32"] is fast
    assert torch.backends.cudnn.benchmark
    # Whichever way a library asks, it gets the same answer.
    assert torch.get_float32_matmul_precision() == ("high" if fast else "highest")
    assert torch.backends.cudnn.allow_tf32 is fast
    for module in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):  # pyright: ignore[reportAttributeAccessIssue]
        assert (module.fp32_precision == "tf32") is fast


def test_deterministic_mode(monkeypatch: pytest.MonkeyPatch):
    assert device.set_numerics(device.DEVICES["cuda"], "fp32", deterministic=True)["deterministic"]
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert not device.set_numerics(device.DEVICES["cpu"], "fp32", deterministic=False)["deterministic"]


def test_a_cpu_has_no_tf32():
    with pytest.raises(UserError, match="needs an accelerator"):
        device.set_numerics(device.DEVICES["cpu"], "tf32", deterministic=False)


def test_a_device_without_bf16_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UserError, match="bf16 is not supported"):
        device.set_numerics(device.DEVICES["cuda"], "bf16", deterministic=False)


def test_the_description_names_the_processor_and_the_versions():
    description = device.describe_device(device.DEVICES["cpu"])
    assert description["device"] == "cpu" and description["device_name"]
    assert description["versions"]["torch"] == torch.__version__.partition("+")[0] or description["versions"]["torch"]


# Capture --------------------------------------------------------------------------------------------------------------


class Pools:
    """The memory pools of torch's CUDA allocator: a pool is open while a capture fills it, and freed once by its owner."""

    def __init__(self, ends_a_broken_one: bool):
        self.ends_a_broken_one, self.open, self.freed = ends_a_broken_one, [], []

    @contextmanager
    def capture(self, graph: Any, pool: Any, stream: Any):
        assert not self.open, "captures_underway.empty() INTERNAL ASSERT FAILED"
        self.open.append(pool)
        try:
            yield
        except BaseException:
            if self.ends_a_broken_one:
                self.open.remove(pool)
                self.freed.append(pool)  # by the graph, when it goes
            raise RuntimeError("operation failed due to a previous error during capture") from None
        self.open.remove(pool)

    def end(self, index: int, pool: Any):
        if pool not in self.open:
            raise RuntimeError("not currently recording to the pool")
        self.open.remove(pool)

    def release(self, index: int, pool: Any):
        assert pool not in self.freed, "use_count >= 0 INTERNAL ASSERT FAILED"
        self.freed.append(pool)


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, ends_a_broken_one: bool) -> Pools:
    pools, handles = Pools(ends_a_broken_one), iter(range(1, 10))
    backend = {"graph": pools.capture, "graph_pool_handle": lambda: (0, next(handles)), "current_device": lambda: 0}
    backend |= {"CUDAGraph": lambda: SimpleNamespace(replay=print), "current_stream": lambda: None}
    monkeypatch.setattr(device.Device, "backend", SimpleNamespace(**backend))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", pools.end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", pools.release, raising=False)
    return pools


@pytest.mark.parametrize("ends_a_broken_one", [False, True])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("not permitted when stream is capturing\nand more"), "not permitted when stream is capturing"),
        (RuntimeError(), ""),
        (NotImplementedError("\nlacking"), "lacking"),
    ],
)
def test_a_failed_capture_tells_the_steps_own_error_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch, ends_a_broken_one: bool, error: Exception, reason: str
):
    """With a torch that leaves the pool of a broken capture open, and with one that does not."""
    pools = pretend_cuda(monkeypatch, ends_a_broken_one)

    def fail():
        raise error

    told = device.capture_graph(device.DEVICES["cuda"], fail)
    assert told == (f"{type(error).__name__}: {reason}" if reason else type(error).__name__)
    assert pools.open == [] and pools.freed == [(0, 1)] and gc.isenabled()
    assert device.capture_graph(device.DEVICES["cuda"], lambda: None) is print
    assert pools.open == [] and pools.freed == [(0, 1)]


def test_a_torch_that_cannot_end_a_pool_still_tells_why_a_capture_failed(monkeypatch: pytest.MonkeyPatch):
    pretend_cuda(monkeypatch, ends_a_broken_one=False)
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool")
    told = device.capture_graph(device.DEVICES["cuda"], lambda: torch.ops.aten.no_such_operator())
    assert isinstance(told, str) and told.startswith("AttributeError: ") and "no_such_operator" in told
