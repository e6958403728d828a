"""Captured steps, concurrent runs and interrupted runs on a real accelerator, in deterministic mode and to the bit.

Skipped without one. tests/test_npu.py tests the same and more on a stand-in.
"""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from reproduce import device as devices
from reproduce import record, train_many
from reproduce.config import Config, RunOptions
from reproduce.interleave import run_task
from reproduce.run import main, parse
from reproduce.sampling import load_data
from reproduce.schema import Finished, Result
from reproduce.step import Training
from tests.conftest import CPU, QUICK, assert_equal, interrupt, train_alone
from tests.test_npu import CONFIGS, read_portable_outcome

KIND = next((kind for kind in ("npu", "cuda") if devices.explain_unusable(kind) is None), "none")
STEPS = 53
"""Three before capture and fifty captured."""

pytestmark = pytest.mark.skipif(KIND == "none", reason="no accelerator")


@pytest.fixture(autouse=True)
def leave_no_flags():
    yield
    devices.set_numerics(CPU, "fp32", deterministic=False)


def train_steps(
    config: Config, folder: Path, device: devices.Device, capture: bool
) -> tuple[list[float], dict[str, Any], bool]:
    """Train some steps; return their losses, the state, and whether they were captured."""
    device = replace(device, chunk_iterations=STEPS)
    devices.set_numerics(device, config.precision, deterministic=True)
    data = load_data(config, folder, device.torch_device)
    with devices.use_stream(device, devices.create_stream(device)):
        training = Training(config, data, device, capture)
        losses, _ = run_task(training.train_chunk(0, STEPS, [config.lr or 0.0] * STEPS))
        return losses, training.state(), training.replay is not None


def test_fp32_keeps_more_bits_than_tf32_and_hf32():
    device = devices.choose_device(KIND)
    devices.set_numerics(device, "fp32", deterministic=True)
    value = 1 + 2**-14  # rounds to 1 with the 10 or 11 bits of those formats
    inputs = torch.full((128, 64, 8, 8), value, device=device.torch_device)
    weights = torch.eye(64, device=device.torch_device)
    convolved = F.conv2d(inputs, F.pad(weights[..., None, None], (1, 1, 1, 1)), padding=1)
    for result in (convolved, inputs[:, :, 0, 0] @ weights):
        torch.testing.assert_close(result, torch.full_like(result, value), rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_captured_steps_equal_eager_ones(synthetic_folder: Path, config: Config):
    device = devices.choose_device(KIND)
    *eager, replayed = train_steps(config, synthetic_folder, device, capture=False)
    assert not replayed
    *captured, replayed = train_steps(config, synthetic_folder, device, capture=True)
    assert replayed
    assert_equal(captured, eager)


def test_the_first_losses_are_close_to_the_cpus(synthetic_folder: Path):
    here, _, _ = train_steps(QUICK, synthetic_folder, devices.choose_device(KIND), capture=True)
    cpu, _, _ = train_steps(QUICK, synthetic_folder, CPU, capture=False)
    assert here[:3] == pytest.approx(cpu[:3], rel=1e-3)  # on one CPU two memory formats differ by up to 8e-5, and later by more


FLAGS = "--depth 8 --batch-size 8 --iterations 60 --data synthetic --eval-every 20 --checkpoint-every 20 --deterministic"
VARIANTS = ("", "--seed 1", "--no-residual --precision bf16", "--optimizer adam", "--block full-preactivation")


def test_concurrent_runs_equal_single_runs(workplace: Path):
    lines = [f"{FLAGS} --device {KIND} {variant}" for variant in VARIANTS]
    for line in lines:
        assert main([*line.split(), "--out", "single"]) == 0
    assert train_many.train_lines(f"{line} --out concurrent" for line in lines) == 0
    for line in lines:
        folder = parse(line.split())[0].folder
        assert_equal(read_portable_outcome(Path("concurrent") / folder), read_portable_outcome(Path("single") / folder))


def test_an_interrupted_run_equals_an_uninterrupted_one(
    synthetic_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    device = devices.choose_device(KIND)
    devices.set_numerics(device, QUICK.precision, deterministic=True)
    data = load_data(QUICK, synthetic_folder, device.torch_device)

    def run(out: Path) -> Result | None:
        with record.open_run_folder(QUICK, out) as folder:
            return train_alone(QUICK, RunOptions(eval_every=6, checkpoint_every=4), data, device, folder)

    assert isinstance(run(tmp_path / "uninterrupted"), Finished)
    interrupt(monkeypatch, 11, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run(tmp_path / "interrupted") is None
    assert isinstance(run(tmp_path / "interrupted"), Finished)
    interrupted, uninterrupted = (
        read_portable_outcome(tmp_path / name / QUICK.folder) for name in ("interrupted", "uninterrupted")
    )
    assert_equal(interrupted, uninterrupted)
