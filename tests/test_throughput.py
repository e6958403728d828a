"""throughput.py measures its candidates and records them; the tests assert no speed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.devices import throughput
from experiments.devices.throughput import Settings, count_work, list_candidates, run_benchmark
from reproduce import step
from reproduce.config import Config
from reproduce.device import DEVICES
from reproduce.sampling import Data
from tests.conftest import CPU, QUICK


def test_a_short_benchmark(workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def broken():
        raise OSError("no compiler\nand much more")

    def some(*arguments: Any) -> dict[str, Any]:
        made = {name: make for name, make in list_candidates(*arguments).items() if "compiled" not in name}
        return made | {"broken": broken}

    monkeypatch.setattr(throughput, "list_candidates", some)
    monkeypatch.setattr(throughput, "ROUNDS", 2)
    settings = Settings(depths=(8,), precisions=("bf16",), together=(2,), iterations=1)
    record = json.loads(run_benchmark(replace(settings, data="synthetic", device="cpu", out=workplace / "out")).read_text())
    assert record["device"] == "cpu" and torch.__version__.startswith(record["versions"]["torch"])
    assert [row["candidate"] for row in record["rows"]] == ["plain", "eager", "2 together"]
    assert "broken                not measured, OSError: no compiler\n" in capsys.readouterr().out
    operations, moved = count_work(Config(depth=8, precision="bf16"))
    bound = 1000 * max(operations / record["ceilings"]["bf16"], moved / record["ceilings"]["copy"])
    for row in record["rows"]:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["images_per_second"] == pytest.approx(128_000 / row["median"], abs=1)
        assert row["floor_fraction"] == pytest.approx(bound / row["median"], rel=1e-3, abs=1e-5)
        assert row["times_plain"] == pytest.approx(record["rows"][0]["median"] / row["median"], abs=0.01)


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


def test_a_captured_step_is_a_candidate_on_accelerators(synthetic: Data):
    candidates = list_candidates(Settings(together=(2,)), QUICK, Path(), synthetic, DEVICES["cuda"])
    assert list(candidates) == ["plain", "plain compiled", "eager", "captured", "2 together"]


def test_an_eager_step_is_not_measured_as_a_captured_one(
    synthetic: Data, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def some(*arguments: Any) -> dict[str, Any]:
        return {name: make for name, make in list_candidates(*arguments).items() if name in ("eager", "captured")}

    monkeypatch.setattr(type(CPU), "is_accelerator", property(lambda self: True))
    monkeypatch.setattr(step, "capture_graph", lambda device, step: "there are no graphs")
    monkeypatch.setattr(throughput, "list_candidates", some)
    timings = throughput.compare_candidates(Settings(iterations=4), QUICK, Path(), synthetic, CPU, 1e-3)
    assert [timing.candidate for timing in timings] == ["eager"]
    assert "not measured, RuntimeError: its step is not captured" in capsys.readouterr().out
