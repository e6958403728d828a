"""parity.py with the CPU as both devices."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.devices import parity
from reproduce.step import Training
from tests.conftest import CPU, QUICK

FIRST = replace(CPU, memory_format=torch.contiguous_format, fused=False)
SECOND = replace(FIRST)  # equal, but another object


def compare(synthetic_folder: Path, second=SECOND) -> dict[str, float]:
    return parity.compare_devices(replace(QUICK, iterations=16), FIRST, second, synthetic_folder)


def test_a_device_equals_itself(synthetic_folder: Path, capsys: pytest.CaptureFixture[str]):
    worst = compare(synthetic_folder)
    assert set(worst.values()) == {0.0} and worst.keys() == parity.TOLERANCES["fp32"].keys()
    assert parity.judge_differences(worst, "fp32")[0]
    rows = [line for line in capsys.readouterr().out.splitlines() if "e+00 (" in line]
    assert [int(row.split()[0]) for row in rows] == [1, 3, 5, 7, 9, 11, 13, 15]


def test_another_memory_layout_differs_by_rounding_only(synthetic_folder: Path):
    worst = compare(synthetic_folder, replace(SECOND, memory_format=torch.channels_last))
    assert 0 < worst["gradients"] < parity.TOLERANCES["fp32"]["gradients"]
    assert parity.judge_differences(worst, "fp32")[0]


@pytest.mark.parametrize("tensor", ["bn.running_var", "linear.weight"])
def test_a_wrong_gradient_or_running_variance_is_found(synthetic_folder: Path, monkeypatch: pytest.MonkeyPatch, tensor: str):
    step = Training.step

    def wrong_step(training: Training):
        step(training)
        if training.device is SECOND:
            state = dict(training.network.named_parameters()) | dict(training.network.named_buffers())
            target = state[tensor].grad if tensor == "linear.weight" else state[tensor]
            assert target is not None
            target.mul_(1.2)

    monkeypatch.setattr(Training, "step", wrong_step)
    agree, sentence = parity.judge_differences(compare(synthetic_folder), "fp32")
    assert not agree and f"more than the tolerance in {'gradients' if tensor == 'linear.weight' else 'BN'}" in sentence


def test_relative_differences():
    assert parity.relative_difference(0.0, 0.0) == 0.0 and parity.relative_difference(2.0, 3.0) == 0.5
    assert parity.relative_difference(1.0, math.nan) == parity.relative_difference(math.nan, math.nan) == math.inf
