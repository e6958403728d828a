"""The learning rate, and the optimizers with a learning rate that stays on the device (section 4.2)."""

# pyright: reportPrivateImportUsage=false

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors as flatten
from torch._utils import _unflatten_dense_tensors as unflatten

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
    assert config.lr is not None
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "cosine":
        return anneal(config.lr, 0.0, iteration / config.iterations)
    if config.schedule == "onecycle":  # of OneCycleLR, with its defaults: a rise over 30%, from lr/25, to lr/25e4
        top, last = 0.3 * config.iterations - 1, config.iterations - 1
        if iteration <= top:
            return anneal(config.lr / 25, config.lr, iteration / top)
        return anneal(config.lr, config.lr / 25e4, (iteration - top) / (last - top))
    ended = {"none": 0, "iterations": WARMUP_ITERATIONS, "error": warmup_ended}[config.warmup]
    milestones = (config.iterations // 2, config.iterations * 3 // 4)
    passed = sum(iteration >= milestone for milestone in milestones)
    warming = passed == 0 and (ended is None or iteration < ended)
    return config.lr / 10 ** (passed + warming)


def anneal(start: float, end: float, share: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


class ForeachSGD(torch.optim.SGD):
    """torch's SGD with momentum for devices without its fused kernel: torch's own foreach form reads a learning rate
    that is a tensor back to the host at every step.

    Momentum buffers are views of one tensor for each group. An NPU has no foreach product of a list with a tensor, only one
    kernel for each parameter; that of one tensor with the learning rate is one kernel.
    """

    def __init__(self, parameters: Any, **settings: Any):
        super().__init__(parameters, **settings)
        self.momenta = [torch.zeros_like(flatten(group["params"])) for group in self.param_groups]
        for group, momenta in zip(self.param_groups, self.momenta, strict=True):
            for parameter, view in zip(group["params"], unflatten(momenta, group["params"]), strict=True):
                self.state[parameter]["momentum_buffer"] = view

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group, momenta in zip(self.param_groups, self.momenta, strict=True):
            parameters = group["params"]
            gradients = torch._foreach_add([p.grad for p in parameters], parameters, alpha=group["weight_decay"])
            momenta.mul_(group["momentum"])
            torch._foreach_add_([self.state[p]["momentum_buffer"] for p in parameters], gradients)
            torch._foreach_sub_(parameters, unflatten(momenta * group["lr"], parameters))


def make_optimizer(config: Config, network: nn.Module, rate: Tensor, device: Device) -> torch.optim.Optimizer:
    """The config's optimizer, whose learning rate is the device scalar `rate` whenever it steps."""
    # Weights have several dimensions; biases and BN's parameters one.
    decayed, others = [], []
    for parameter in filter(lambda parameter: parameter.requires_grad, network.parameters()):
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
