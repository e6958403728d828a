"""The learning rate, and the optimizers with a learning rate that stays on the device (section 4.2)."""

# pyright: reportPrivateImportUsage=false

import torch
from torch import Tensor, nn

from reproduce.config import Config
from reproduce.device import Device

WARMUP_ERROR = 80.0
"""The training error, in percent, that ends an error-triggered warm-up (section 4.2, on ResNet-110)."""
WARMUP_WINDOW = 100
"""Iterations over which that error is measured, again and again until it is low enough."""
WARMUP_ITERATIONS = 400
"""Length of a fixed warm-up: what the paper found the error-triggered one to take."""


def learning_rate(config: Config, iteration: int, warmup_ended: int | None) -> float:
    """The learning rate of an iteration, counted from 0.

    warmup_ended: the first iteration after an error-triggered warm-up, None while it lasts. A warm-up that the error does
    not end is over at the first milestone.
    """
    ended = {"none": 0, "iterations": WARMUP_ITERATIONS, "error": warmup_ended}[config.warmup]
    milestones = (config.iterations // 2, config.iterations * 3 // 4)
    passed = sum(iteration >= milestone for milestone in milestones)
    warming = passed == 0 and (ended is None or iteration < ended)
    assert config.lr is not None
    return config.lr / 10 ** (passed + warming)


class ForeachSGD(torch.optim.SGD):
    """torch's SGD with momentum for devices without its fused kernel: torch's own foreach form reads a learning rate
    that is a tensor back to the host at every step."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            parameters = group["params"]
            gradients = torch._foreach_add([p.grad for p in parameters], parameters, alpha=group["weight_decay"])
            buffers = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in parameters]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, gradients)
            torch._foreach_sub_(parameters, torch._foreach_mul(buffers, group["lr"]))


def make_optimizer(config: Config, network: nn.Module, rate: Tensor, device: Device) -> torch.optim.Optimizer:
    """The config's optimizer, whose learning rate is the device scalar `rate` whenever it steps."""
    # Weights have several dimensions; biases and BN's parameters one.
    decayed, others = [], []
    for parameter in network.parameters():
        (decayed if config.decay == "all" or parameter.dim() > 1 else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        if device.fused:
            return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, fused=True)
        return ForeachSGD(groups, lr=rate, momentum=config.momentum)
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    betas = (config.momentum, 0.999)
    return optimizer(groups, lr=rate, betas=betas, fused=device.fused, capturable=device.is_accelerator)
