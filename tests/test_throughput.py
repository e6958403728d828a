"""throughput.py measures its candidates and records them; the tests assert no speed."""

import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit

from experiments.devices import throughput
from experiments.devices.throughput import (
    NativeBatchNorm,
    Settings,
    compile_network,
    count_work,
    list_candidates,
    measure_nets,
    round_up,
)
from reproduce import device as devices
from reproduce import step
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.model import build_network
from reproduce.sampling import Data
from tests.conftest import CPU, QUICK, assert_equal


def test_a_short_benchmark(workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def broken():
        raise OSError("no compiler\nand much more")

    def some(*arguments: Any) -> dict[str, Any]:
        made = {name: make for name, make in list_candidates(*arguments).items() if "compiled" not in name}
        return made | {"broken": broken}

    monkeypatch.setattr(throughput, "list_candidates", some)
    monkeypatch.setattr(throughput, "count_cores", lambda: 2)
    settings = Settings(depths=(8,), precisions=("bf16",), together=(2,), iterations=1, rounds=2, workers=1)
    record = json.loads(measure_nets(replace(settings, data="synthetic", device="cpu", out=workplace / "out")).read_text())
    assert record["device"] == "cpu" and torch.__version__.startswith(record["versions"]["torch"])
    assert [row["candidate"] for row in record["rows"]] == ["plain", "eager", "2 together", "2 side by side"]
    deadline = time.monotonic() + 60
    while multiprocessing.active_children():
        assert time.monotonic() < deadline, "a process has outlived its candidate"
    assert "broken                not measured, OSError: no compiler\n" in capsys.readouterr().out
    (net,) = record["nets"]
    for row in record["rows"]:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["images_per_second"] == pytest.approx(128_000 / row["median"], abs=1)
        assert row["floor_fraction"] == pytest.approx(net["floor"] / row["median"], rel=1e-3, abs=1e-5)
        assert row["times_plain"] == pytest.approx(record["rows"][0]["median"] / row["median"], abs=0.01)
    by_operations, by_bytes = net["operations"] / record["ceilings"]["bf16"], net["bytes"] / record["ceilings"]["copy"]
    assert net["floor"] == pytest.approx(1000 * max(by_operations, by_bytes), rel=1e-3)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_the_work_of_a_step(precision, size: int):
    """40.55 million multiply-adds per image forward, and twice as many backward, except for the gradient of the images."""
    operations, moved = count_work(Config(depth=20, precision=precision))
    first_layer = 3 * 9 * 16 * 32 * 32
    forward = first_layer + 6 * 9 * 16 * 16 * 32 * 32 + 9 * (16 + 5 * 32) * 32 * 16 * 16 + 9 * (32 + 5 * 64) * 64 * 8 * 8 + 640
    assert forward == pytest.approx(40.55e6, rel=1e-3)
    assert operations == 128 * 2 * (3 * forward - first_layer)
    responses = 128 * (7 * 16 * 32 * 32 + 6 * 32 * 16 * 16 + 6 * 64 * 8 * 8)
    assert moved == 2 * size * responses + 16 * 269_722


def test_the_candidates_of_each_kind_of_device(synthetic: Data, monkeypatch: pytest.MonkeyPatch):
    def names(device: devices.Device, config: Config = QUICK, **settings: Any) -> list[str]:
        return list(list_candidates(Settings(together=(2,), **settings), config, Path(), synthetic, device))

    cuda = devices.DEVICES["cuda"]
    monkeypatch.setattr(throughput, "count_cores", lambda: 3)
    assert names(CPU) == ["plain", "plain compiled", "eager", "eager compiled", "2 together", "3 side by side"]
    assert names(CPU, quick=True) == ["plain", "eager", "2 together", "3 side by side"]
    assert names(cuda, quick=True) == ["plain", "eager", "captured", "2 together"]
    captured = ["captured", "captured contiguous", "captured native BN", "captured compiled", "captured compiled by block"]
    concurrent = ["2 together", "2 together contiguous", "2 together native BN"]
    assert names(cuda) == ["plain", "plain compiled", "eager", *captured, *concurrent]
    assert not any("native" in name for name in names(cuda, replace(QUICK, precision="bf16")))
    assert not any("contiguous" in name for name in names(devices.DEVICES["npu"]))
    monkeypatch.setattr(throughput, "count_cores", lambda: 1)
    assert "1 side by side" not in names(CPU)


def test_captured_candidates_train_whole_chunks():
    cuda = replace(devices.DEVICES["cuda"], chunk_iterations=50)
    assert [round_up(101, name, cuda) for name in ("plain", "eager", "captured", "4 together")] == [101, 101, 150, 150]
    assert round_up(101, "4 together", CPU) == 101


def test_an_eager_step_is_not_measured_as_a_captured_one(
    synthetic: Data, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def some(*arguments: Any) -> dict[str, Any]:
        return {name: make for name, make in list_candidates(*arguments).items() if name in ("eager", "captured")}

    monkeypatch.setattr(type(CPU), "is_accelerator", property(lambda self: True))
    monkeypatch.setattr(step, "capture_graph", lambda device, step: "there are no graphs")
    monkeypatch.setattr(throughput, "list_candidates", some)
    rows = throughput.compare_candidates(Settings(iterations=4, rounds=1), QUICK, Path(), synthetic, CPU, 1e-3)
    assert [row["candidate"] for row in rows] == ["eager"]
    assert "not measured, RuntimeError: its step is not captured" in capsys.readouterr().out


def test_compilation_fails_at_torchs_limit_instead_of_running_uncompiled():
    def call(layers: int):
        network = nn.Sequential(*[nn.ReLU() for _ in range(layers)])
        compile_network(network, backend=lambda graph, _: (compiled.append(layers), graph.forward)[1])
        torch._dynamo.config.recompile_limit = min(torch._dynamo.config.recompile_limit, 20)
        network(torch.zeros(2))

    compiled: list[int] = []
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):
        torch._dynamo.reset()
        for layers in range(1, 21):
            call(layers)
        assert compiled == list(range(1, 21))
        with pytest.raises(FailOnRecompileLimitHit):
            call(21)
    torch._dynamo.reset()


def test_which_modules_are_compiled_or_replaced(synthetic: Data, monkeypatch: pytest.MonkeyPatch):
    compiled: list[nn.Module] = []
    monkeypatch.setattr(throughput, "compile_network", compiled.append)
    monkeypatch.setattr(throughput, "make_interleaved", lambda runs, device: runs)
    monkeypatch.setattr(throughput, "Training", lambda config, *_: SimpleNamespace(network=build_network(config)))
    made = list_candidates(Settings(together=(2,)), QUICK, Path(), synthetic, devices.DEVICES["cuda"])
    for name in ("captured compiled", "captured compiled by block"):
        made[name]()
    assert [type(module).__name__ for module in compiled] == ["Network", "Block", "Block", "Block"]
    for run in cast("list[Any]", made["2 together native BN"]()):
        layers = [module for module in run.network.modules() if isinstance(module, nn.BatchNorm2d)]
        assert len(layers) == 7 and all(isinstance(layer, NativeBatchNorm) for layer in layers)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_native_bn_equals_torchs_bn_to_the_bit(kind: torch.dtype, training: bool):
    found = []
    for layer in (nn.BatchNorm2d(16), NativeBatchNorm(16)):
        torch.manual_seed(0)
        layer.load_state_dict({name: torch.rand(tensor.shape) + 0.5 for name, tensor in layer.state_dict().items()})
        maps = torch.randn(8, 16, 5, 5, dtype=kind).to(memory_format=torch.channels_last).requires_grad_()
        result = layer.train(training)(maps)
        result.backward(torch.randn_like(result))
        found.append([result.data, maps.grad, layer.weight.grad, layer.bias.grad, *layer.state_dict().values()])
    assert_equal(*found)


def test_quick_sets_its_own_settings(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    measured: list[Any] = []
    monkeypatch.setattr(throughput, "compare_candidates", lambda *arguments: measured.append(arguments) or [])
    monkeypatch.setattr(throughput, "measure_peaks", lambda *_: {"copy": 1e9, "fp32": 1e9, "bf16": 1e9})
    settings = Settings(quick=True, depths=(8,), iterations=500, data="synthetic", device="cpu", out=workplace / "out")
    path = measure_nets(settings)
    record = json.loads(path.read_text())
    assert path.stem.endswith("-quick")
    assert [(config.depth, config.precision) for _, config, *_ in measured] == [(20, "fp32"), (20, "bf16")]
    assert record["quick"] and record["depths"] == [20] and record["together"] == [2] and record["iterations"] == 6


@pytest.mark.parametrize("invalid", [{"rounds": 0}, {"iterations": 0}, {"workers": -1}, {"together": (1,)}])
def test_invalid_settings_are_rejected(invalid):
    with pytest.raises(UserError, match=next(iter(invalid))):
        Settings(**invalid)
