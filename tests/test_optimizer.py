"""Learning rate schedules, and SGD with a learning rate on the device."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, OneCycleLR

from reproduce.config import Config
from reproduce.interleave import run_task
from reproduce.optimizer import ForeachSGD, learning_rate
from reproduce.sampling import Data
from reproduce.step import Training
from tests.conftest import CPU, QUICK, assert_equal

MOMENTS = (0, 399, 400, 31_999, 32_000, 47_999, 48_000, 63_999)


@pytest.mark.parametrize(
    ("config", "warmup_ended", "rates"),
    [
        (Config(depth=56), None, (0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001)),
        (Config(depth=110), 400, (0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001)),
        (Config(depth=110), 300, (0.01, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001)),
        (Config(depth=110), None, (0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.001, 0.001)),
        (Config(depth=110, warmup="iterations"), None, (0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001)),
        (Config(depth=110, warmup="none"), None, (0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001)),
    ],
)
def test_learning_rate_of_the_paper(config: Config, warmup_ended: int | None, rates: tuple[float, ...]):
    got = [learning_rate(config, iteration, warmup_ended) for iteration in MOMENTS]
    assert got == pytest.approx(rates, rel=1e-12)


@pytest.mark.parametrize("iterations", [1, 7, 333])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant"])
def test_schedules_equal_torch(schedule: Any, iterations: int):
    config = Config(schedule=schedule, iterations=iterations, lr=0.3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = {
        "onecycle": lambda: OneCycleLR(optimizer, max_lr=0.3, total_steps=iterations, cycle_momentum=False),
        "cosine": lambda: CosineAnnealingLR(optimizer, iterations),
        "constant": lambda: ConstantLR(optimizer, 1.0),
    }[schedule]()
    for iteration in range(iterations):
        assert learning_rate(config, iteration, None) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if iteration + 1 < iterations:
            scheduler.step()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_foreach_sgd_equals_torch(momentum: float):
    torch.manual_seed(0)
    tensors = [torch.randn(5, 3), torch.randn(7), torch.randn(1)]
    ours, theirs = ([nn.Parameter(tensor.clone()) for tensor in tensors] for _ in range(2))

    def make_groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
        return [{"params": parameters[:2], "weight_decay": 0.01}, {"params": parameters[2:], "weight_decay": 0.0}]

    rate = torch.tensor(0.1)
    a = ForeachSGD(make_groups(ours), lr=rate, momentum=momentum)
    b = torch.optim.SGD(make_groups(theirs), lr=0.1, momentum=momentum)
    for step in range(5):
        if step == 3:
            rate.fill_(0.01)
            for group in b.param_groups:
                group["lr"] = 0.01
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_foreach_sgd_resumes_from_a_checkpoint(synthetic: Data, decay: Any):
    """A checkpoint has one buffer per parameter, the optimizer one per group."""
    device, config = replace(CPU, fused=False, memory_format=torch.contiguous_format), replace(QUICK, decay=decay)

    def train(training: Training, start: int) -> Training:
        run_task(training.train_chunk(start, start + 3, [0.1] * 3))
        return training

    unbroken = train(Training(config, synthetic, device, capture=False), 0)
    saved = copy.deepcopy(unbroken.state())  # on a CPU its tensors are those of the training
    resumed = Training(config, synthetic, device, capture=False)
    resumed.restore(saved)
    assert_equal(resumed.state(), saved)
    assert_equal(train(resumed, 3).state(), train(unbroken, 3).state())
    assert_equal(list(saved["optimizer"][0]), ["momentum_buffer"])
