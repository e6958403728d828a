"""Learning rate schedules, and optimizers whose learning rate stays on the device (section 4.2)."""

# pyright: reportPrivateImportUsage=false

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors as flatten
from torch._utils import _unflatten_dense_tensors as unflatten

from reproduce.config import Config
from reproduce.device import DEVICES, Device

WARMUP_ERROR = 80.0
"""Training error in percent below which an error-triggered warm-up ends (section 4.2, ResNet-110)."""
WARMUP_WINDOW = 100
"""Iterations over which that error is averaged."""
WARMUP_ITERATIONS = 400
"""Length of a fixed warm-up; about as long as the error-triggered one in the paper."""


def learning_rate(config: Config, iteration: int, warmup_ended: int | None) -> float:
    """Return the learning rate of an iteration, counted from 0.

    warmup_ended: the first iteration after an error-triggered warm-up, None during it. It ends at the first milestone
    at the latest.
    """
    assert config.lr is not None
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "cosine":
        return anneal(config.lr, 0.0, iteration / config.iterations)
    if config.schedule == "onecycle":  # the rates of torch's OneCycleLR with its defaults; momentum is constant
        top, last = 0.3 * config.iterations - 1, config.iterations - 1
        if iteration <= top:
            return anneal(config.lr / 25, config.lr, iteration / top)
        return anneal(config.lr, config.lr / 25e4, (iteration - top) / (last - top))
    end = {"none": 0, "iterations": WARMUP_ITERATIONS, "error": warmup_ended}[config.warmup]
    milestones = (config.iterations // 2, config.iterations * 3 // 4)
    passed = sum(iteration >= milestone for milestone in milestones)
    is_warmup = passed == 0 and (end is None or iteration < end)
    return config.lr / 10 ** (passed + is_warmup)


def anneal(start: float, end: float, fraction: float) -> float:
    """Interpolate from `start` to `end` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


class ForeachSGD(torch.optim.SGD):
    """SGD with momentum for devices without torch's fused kernel, without a synchronization per step.

    torch's own foreach implementation copies a learning rate tensor to the host at each step. The momentum buffers of a group
    are views of one tensor, so that multiplying them by the learning rate is one kernel: NPUs lack _foreach_mul of a list
    and a tensor.
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
    """Create the optimizer, which reads its learning rate from the scalar `rate` on the device at each step."""
    decayed, others = [], []  # weights have several dimensions; biases and BN's parameters have one
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


def make_example_state(config: Config, network: nn.Module) -> list[dict[str, Tensor]]:
    """Return the optimizer state after one step, as a template for validating checkpoints."""
    example = nn.ParameterList()
    for parameter in network.parameters():
        zeros = torch.zeros_like(parameter, device="cpu")
        example.append(nn.Parameter(zeros, requires_grad=parameter.requires_grad))
        example[-1].grad = zeros.clone() if parameter.requires_grad else None
    optimizer = make_optimizer(config, example, torch.zeros(()), DEVICES["cpu"])
    optimizer.step()
    return [optimizer.state[parameter] for parameter in example]
