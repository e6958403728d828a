"""Choosing a device, its flags, and what stands in the way of one."""

# pyright: reportAttributeAccessIssue=false

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from reproduce import device
from reproduce.config import UserError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("usable", "chosen"), [({"npu", "cuda"}, "npu"), ({"cuda"}, "cuda"), ({"npu"}, "npu"), (set(), "cpu")])
def test_auto_takes_npu_then_cuda_then_cpu(monkeypatch: pytest.MonkeyPatch, usable: set[str], chosen: str):
    reasons = {kind: None if kind in usable | {"cpu"} else "it is not there" for kind in device.DEVICES}
    monkeypatch.setattr(device, "find_problem", reasons.get)
    assert device.choose_device("auto").kind == chosen


@pytest.mark.parametrize("kind", ["npu", "cuda"])
def test_a_device_asked_for_is_refused_with_the_reason_and_never_replaced(monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.setattr(device, "find_problem", lambda kind: "it is not there")
    with pytest.raises(UserError, match=f"^device {kind} is not usable: it is not there$"):
        device.choose_device(kind)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
def test_a_missing_cuda_device_is_explained():
    assert "CUDA" in (device.find_problem("cuda") or "")


IMPORT = "import os, {first}; from reproduce import device; print(device.find_problem('npu'), os.environ.get('{variable}'))"


def import_device(folder: Path, package: str | None, first: str = "sys", **environment: str) -> str:
    """What a fresh process finds of an NPU, with `package` standing in for an installed torch_npu."""
    if package is not None:
        (folder / "torch_npu.py").write_text(package)
    command = IMPORT.format(first=first, variable=device.AUTOLOAD)
    environment = {"PYTHONPATH": f"{folder}:{ROOT}", "PATH": "", **environment}
    return subprocess.run(
        [sys.executable, "-c", command], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_what_stands_in_the_way_of_an_npu_and_the_environment_is_as_before(tmp_path: Path):
    assert import_device(tmp_path, None) == "torch_npu is not installed None"
    forbidden = import_device(tmp_path, None, **{device.AUTOLOAD: "0"})
    assert forbidden == f"{device.AUTOLOAD}=0 forbids loading torch_npu 0"
    without_cann = "raise ImportError('libhccl.so: cannot open shared object file: No such file or directory')"
    answer = import_device(tmp_path, without_cann, **{device.AUTOLOAD: "1"})
    assert answer.startswith("torch_npu is installed but does not load (ImportError: libhccl.so: cannot open")
    assert answer.endswith("CANN is missing or not on LD_LIBRARY_PATH: source the set_env.sh of the Ascend toolkit 1")
    no_device = "import torch, types; torch.npu = types.SimpleNamespace(is_available=lambda: False)"
    assert "sees no device" in import_device(tmp_path, no_device)


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
