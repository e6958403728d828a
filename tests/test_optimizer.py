"""The learning rate at the paper's moments, and SGD whose learning rate stays on the device."""

import pytest
import torch
from torch import nn

from reproduce.config import Config
from reproduce.optimizer import ForeachSGD, learning_rate

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
def test_learning_rate_at_the_papers_moments(config: Config, warmup_ended: int | None, rates: tuple[float, ...]):
    got = [learning_rate(config, iteration, warmup_ended) for iteration in MOMENTS]
    assert got == pytest.approx(rates, rel=1e-12)


def test_a_shortened_run_keeps_the_shape_of_the_schedule():
    config = Config(iterations=200)
    rates = [learning_rate(config, iteration, None) for iteration in (0, 99, 100, 149, 150, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_foreach_sgd_is_torchs_sgd(momentum: float):
    torch.manual_seed(0)
    ours, theirs = ([nn.Parameter(t.clone()) for t in tensors] for tensors in [[torch.randn(5, 3), torch.randn(7)]] * 2)
    rate = torch.tensor(0.1)
    a = ForeachSGD(ours, lr=rate, momentum=momentum, weight_decay=0.01)
    b = torch.optim.SGD(theirs, lr=0.1, momentum=momentum, weight_decay=0.01)
    for step in range(5):
        if step == 3:
            rate.fill_(0.01)
            b.param_groups[0]["lr"] = 0.01
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-6)
