"""Device selection, precision flags and graph capture."""

# pyright: reportAttributeAccessIssue=false

import gc
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reproduce import device
from reproduce.errors import UnsupportedPrecision, UserError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("usable", "chosen"), [({"npu", "cuda"}, "npu"), ({"cuda"}, "cuda"), ({"npu"}, "npu"), (set(), "cpu")])
def test_auto_takes_npu_then_cuda_then_cpu(monkeypatch: pytest.MonkeyPatch, usable: set[str], chosen: str):
    reasons = {kind: None if kind in usable | {"cpu"} else "broken" for kind in device.DEVICES}
    monkeypatch.setattr(device, "explain_unusable", reasons.get)
    assert device.choose_device("auto").kind == chosen


@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
def test_a_missing_device_is_refused_with_the_reason():
    with pytest.raises(UserError, match="^device cuda is not usable: .*CUDA"):
        device.choose_device("cuda")


def test_torch_imports_although_torch_npu_is_broken(tmp_path: Path):
    (tmp_path / "torch_npu.py").write_text("raise ImportError('libhccl.so: cannot open shared object file')")
    code = "from reproduce import device; print(device.explain_unusable('npu'))"
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("torch_npu is installed but does not load (ImportError: libhccl.so: cannot open")
    assert "CANN is missing" in done.stdout


def test_commands_that_do_not_use_the_npu_ignore_a_broken_torch_npu(tmp_path: Path):
    """torch loads the package of this entry point on import."""
    (tmp_path / "torch_npu.py").write_text("raise ImportError('libhccl.so: cannot open shared object file')")
    metadata = tmp_path / "torch_npu-2.7.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_npu\nVersion: 2.7.1\n")
    (metadata / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    importing = subprocess.run([sys.executable, "-c", "import torch"], env=environment, capture_output=True, text=True)
    assert "Failed to load the backend extension: torch_npu" in importing.stderr
    nowhere = "there is no run folder or weights file nowhere"
    for name, flags, message in [
        ("predict.py", ["nowhere", str(tmp_path / "torch_npu.py")], nowhere),
        ("export.py", ["nowhere"], nowhere),
        ("reference.py", ["--depth", "7"], "depth must be 6n+2"),
    ]:
        command = [sys.executable, str(ROOT / "reproduce" / name), *flags]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and message in done.stderr


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
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    flags = device.set_numerics(device.DEVICES["cuda"], precision, deterministic=False)
    assert flags["matmul.allow_tf32"] is flags["convolution.allow_tf32"] is fast
    assert torch.backends.cudnn.benchmark
    # The old and the new flags agree.
    assert torch.get_float32_matmul_precision() == ("high" if fast else "highest")
    assert torch.backends.cudnn.allow_tf32 is fast
    for module in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):  # pyright: ignore[reportAttributeAccessIssue]
        assert (module.fp32_precision == "tf32") is fast


def test_deterministic_mode(monkeypatch: pytest.MonkeyPatch):
    assert device.set_numerics(device.DEVICES["cuda"], "fp32", deterministic=True)["deterministic"]
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert not device.set_numerics(device.DEVICES["cpu"], "fp32", deterministic=False)["deterministic"]


@pytest.mark.parametrize(("kind", "precision"), [("cpu", "tf32"), ("cuda", "tf32"), ("cuda", "bf16")])
def test_an_unsupported_precision_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str, precision: Any):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    with pytest.raises(UnsupportedPrecision, match=f"this {kind} device does not support {precision}: use another --precision"):
        device.set_numerics(device.DEVICES[kind], precision, deterministic=False)


# Capture --------------------------------------------------------------------------------------------------------------


class Pools:
    """The memory pools of torch's CUDA allocator: each is open during its capture and freed exactly once."""

    def __init__(self, closes_after_failure: bool):
        self.closes_after_failure, self.open, self.freed = closes_after_failure, [], []

    @contextmanager
    def capture(self, graph: Any, pool: Any, stream: Any):
        assert not self.open, "captures_underway.empty() INTERNAL ASSERT FAILED"
        self.open.append(pool)
        try:
            yield
        except BaseException:
            if self.closes_after_failure:
                self.open.remove(pool)
                self.freed.append(pool)  # by the graph's destructor
            raise RuntimeError("operation failed due to a previous error during capture") from None
        self.open.remove(pool)

    def end(self, index: int, pool: Any):
        if pool not in self.open:
            raise RuntimeError("not currently recording to the pool")
        self.open.remove(pool)

    def release(self, index: int, pool: Any):
        assert pool not in self.freed, "use_count >= 0 INTERNAL ASSERT FAILED"
        self.freed.append(pool)


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, closes_after_failure: bool) -> Pools:
    pools, handles = Pools(closes_after_failure), iter(range(1, 10))
    backend = {"graph": pools.capture, "graph_pool_handle": lambda: (0, next(handles)), "current_device": lambda: 0}
    backend |= {"CUDAGraph": lambda: SimpleNamespace(replay=print), "current_stream": lambda: None}
    monkeypatch.setattr(device.Device, "backend", SimpleNamespace(**backend))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", pools.end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", pools.release, raising=False)
    return pools


@pytest.mark.parametrize("closes_after_failure", [False, True])
def test_a_failed_capture_returns_the_steps_error_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch, closes_after_failure: bool
):
    """With torch versions that leave the pool open after a failed capture, and with those that close it."""
    pools = pretend_cuda(monkeypatch, closes_after_failure)

    def fail():
        raise RuntimeError("not permitted when stream is capturing\nand more")

    found = device.capture_graph(device.DEVICES["cuda"], fail)
    assert found == "RuntimeError: not permitted when stream is capturing"
    assert pools.open == [] and pools.freed == [(0, 1)] and gc.isenabled()
    assert device.capture_graph(device.DEVICES["cuda"], lambda: None) is print
    assert pools.open == [] and pools.freed == [(0, 1)]
