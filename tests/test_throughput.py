"""The benchmark measures what it says and records it; no speed is asserted."""

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
    candidates,
    compile_network,
    count_work,
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
        chosen = {name: make for name, make in candidates(*arguments).items() if "compiled" not in name}
        return chosen | {"broken": broken}

    monkeypatch.setattr(throughput, "candidates", some)
    monkeypatch.setattr(throughput, "count_cores", lambda: 2)
    settings = Settings(depths=(8,), precisions=("bf16",), together=(2,), iterations=1, rounds=2, workers=1)
    settings = replace(settings, data="synthetic", device="cpu", out=workplace / "out")
    path = measure_nets(settings)
    assert path is not None
    record = json.loads(path.read_text())
    assert record["device"] == "cpu" and torch.__version__.startswith(record["versions"]["torch"])
    assert [row["candidate"] for row in record["rows"]] == ["plain", "eager", "2 together", "2 side by side"]
    deadline = time.monotonic() + 60
    while multiprocessing.active_children():
        assert time.monotonic() < deadline, "a process has outlived its candidate"
    said = capsys.readouterr().out
    assert "broken                not measured, OSError: no compiler\n" in said and "much more" not in said
    (net,) = record["nets"]
    for row in record["rows"]:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["images_per_second"] == pytest.approx(128_000 / row["median"], abs=1)
        assert row["floor_fraction"] == pytest.approx(net["floor"] / row["median"], rel=1e-3, abs=1e-5)
        assert row["times_plain"] == pytest.approx(record["rows"][0]["median"] / row["median"], abs=0.01)
        assert f"{row['candidate']:21} {row['median']:9.3f} ms" in said
    by_operations, by_bytes = net["operations"] / record["ceilings"]["bf16"], net["bytes"] / record["ceilings"]["copy"]
    assert net["floor"] == pytest.approx(1000 * max(by_operations, by_bytes), rel=1e-3)
    before = path.read_bytes()
    monkeypatch.setattr(throughput, "measure_ceilings", lambda *_: record["ceilings"])
    assert measure_nets(replace(settings, only="eager", rounds=1)) is None and path.read_bytes() == before


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_the_work_of_a_step_is_that_of_the_papers_net(precision, size: int):
    """40.55 million multiply-adds an image forward and, but for the gradient of the images, twice as many backward."""
    operations, moved = count_work(Config(depth=20, precision=precision))
    first_layer = 3 * 9 * 16 * 32 * 32
    forward = first_layer + 6 * 9 * 16 * 16 * 32 * 32 + 9 * (16 + 5 * 32) * 32 * 16 * 16 + 9 * (32 + 5 * 64) * 64 * 8 * 8 + 640
    assert forward == pytest.approx(40.55e6, rel=1e-3)
    assert operations == 128 * 2 * (3 * forward - first_layer)
    responses = 128 * (7 * 16 * 32 * 32 + 6 * 32 * 16 * 16 + 6 * 64 * 8 * 8)
    assert moved == 2 * size * responses + 16 * 269_722


def test_a_device_with_graphs_has_captured_candidates(synthetic: Data, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(throughput, "count_cores", lambda: 3)
    names = candidates(Settings(), QUICK, Path(), synthetic, CPU)
    assert list(names) == ["plain", "plain compiled", "eager", "eager compiled", "4 together", "3 side by side"]
    names = candidates(Settings(quick=True, together=(2,)), QUICK, Path(), synthetic, CPU)
    assert list(names) == ["plain", "eager", "2 together", "3 side by side"]
    monkeypatch.setattr(throughput, "count_cores", lambda: 1)
    assert "1 side by side" not in candidates(Settings(), QUICK, Path(), synthetic, CPU)
    assert round_up(101, "4 together", CPU) == 101
    monkeypatch.setattr(type(CPU), "is_accelerator", property(lambda self: True))
    names = candidates(Settings(only="captured|together"), QUICK, Path(), synthetic, CPU)
    captured = ["captured", "captured contiguous", "captured compiled", "captured compiled by block"]
    assert list(names) == [*captured, "4 together", "4 together contiguous"]
    names = candidates(Settings(quick=True, together=(2, 4)), QUICK, Path(), synthetic, CPU)
    assert list(names) == ["plain", "eager", "captured", "2 together", "4 together"]
    contiguous = replace(CPU, memory_format=torch.contiguous_format)
    assert not any("contiguous" in name for name in candidates(Settings(), QUICK, Path(), synthetic, contiguous))
    assert [round_up(101, name, replace(CPU, chunk_iterations=50)) for name in ("eager", "4 together")] == [101, 150]


def test_a_step_that_is_not_captured_is_not_measured_as_one(
    synthetic: Data, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(type(CPU), "is_accelerator", property(lambda self: True))
    monkeypatch.setattr(step, "capture_graph", lambda device, step: "there are no graphs")
    settings = Settings(only="^(eager|captured)$", iterations=4, rounds=1)
    rows = throughput.compare_candidates(settings, QUICK, Path(), synthetic, CPU, 1e-3)
    assert [row["candidate"] for row in rows] == ["eager"]
    assert "captured              not measured, RuntimeError: its step is not captured" in capsys.readouterr().out


def test_more_networks_are_compiled_than_torch_would_and_too_many_fail():
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


def test_a_network_is_compiled_whole_or_block_by_block(synthetic: Data, monkeypatch: pytest.MonkeyPatch):
    compiled: list[nn.Module] = []
    monkeypatch.setattr(throughput, "compile_network", compiled.append)
    monkeypatch.setattr(throughput, "advancing", lambda runs, device: runs)
    monkeypatch.setattr(throughput, "Training", lambda config, *_: SimpleNamespace(network=build_network(config)))
    names = candidates(Settings(only="compiled"), QUICK, Path(), synthetic, devices.DEVICES["cuda"])
    for name in ("captured compiled", "captured compiled by block"):
        names[name]()
    assert [type(module).__name__ for module in compiled] == ["Network", "Block", "Block", "Block"]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_native_bn_is_torchs_bn_to_the_bit(kind: torch.dtype, training: bool):
    found = []
    for layer in (nn.BatchNorm2d(16), NativeBatchNorm(16)):
        torch.manual_seed(0)
        layer.load_state_dict({name: torch.rand(tensor.shape) + 0.5 for name, tensor in layer.state_dict().items()})
        maps = torch.randn(8, 16, 5, 5, dtype=kind).to(memory_format=torch.channels_last).requires_grad_()
        result = layer.train(training)(maps)
        result.backward(torch.randn_like(result))
        found.append([result.data, maps.grad, layer.weight.grad, layer.bias.grad, *layer.state_dict().values()])
    assert_equal(*found)


def test_native_bn_is_measured_where_cuda_would_choose_another(synthetic: Data, monkeypatch: pytest.MonkeyPatch):
    settings, cuda = Settings(only="native", together=(2,)), devices.DEVICES["cuda"]
    names = candidates(settings, QUICK, Path(), synthetic, cuda)
    assert list(names) == ["captured native BN", "2 together native BN"]
    assert not candidates(settings, replace(QUICK, precision="bf16"), Path(), synthetic, cuda)
    monkeypatch.setattr(throughput, "advancing", lambda runs, device: runs)
    monkeypatch.setattr(throughput, "Training", lambda config, *_: SimpleNamespace(network=build_network(config)))
    for make in names.values():
        for run in cast("list[Any]", make()):
            layers = [module for module in run.network.modules() if isinstance(module, nn.BatchNorm2d)]
            assert len(layers) == 7 and all(isinstance(layer, NativeBatchNorm) for layer in layers)


def test_quick_measures_little_and_its_record_says_so(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    measured: list[Any] = []

    def compare(settings: Settings, config: Config, folder: Path, data: Data, device: devices.Device, floor: float):
        measured.append((settings, config, device))
        return []

    monkeypatch.setattr(throughput, "compare_candidates", compare)
    monkeypatch.setattr(throughput, "measure_ceilings", lambda *_: {"copy": 1e9, "fp32": 1e9, "bf16": 1e9})
    path = measure_nets(
        Settings(quick=True, depths=(8,), iterations=500, data="synthetic", device="cpu", out=workplace / "out")
    )
    assert path is not None
    record = json.loads(path.read_text())
    assert path.stem.endswith("-quick")
    assert [(config.depth, config.precision) for _, config, _ in measured] == [(20, "fp32"), (20, "bf16")]
    assert record["quick"] and record["depths"] == [20] and record["together"] == [2] and record["iterations"] == 6
    assert all(device.chunk_iterations <= throughput.QUICK_CHUNK for _, _, device in measured)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"iterations": 0}, {"workers": -1}, {"together": (1,)}, {"only": "("}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Settings(**wrong)


def test_an_unusable_device_is_refused(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reproduce.device.unusable_reason", lambda kind: "it is not there")
    with pytest.raises(UserError, match="device cuda is not usable"):
        measure_nets(Settings(data="synthetic", device="cuda"))
