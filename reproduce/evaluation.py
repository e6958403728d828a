"""Looking at a network: its error, BN's statistics over the training images, the responses of its layers."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from reproduce.config import Config
from reproduce.device import Device, autocast
from reproduce.model import Network
from reproduce.sampling import Data, Images, center_crops, gather_batch


def iterate_single_views(images: Images, data: Data, device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    """All of `images`, a part of `data`, in order and as they are, in batches, with their labels."""
    for start in range(0, len(images), device.eval_batch_size):
        rows = center_crops(start, min(start + device.eval_batch_size, len(images)), device.torch_device)
        views, labels = gather_batch(images, data, rows)
        yield views.contiguous(memory_format=device.memory_format), labels


@contextmanager
def evaluation_mode(network: nn.Module, device: Device, config: Config) -> Iterator[None]:
    """Within, the network is in evaluation mode, without gradients and in the precision of the training."""
    in_training = [module for module in network.modules() if module.training]  # all, but for what is frozen
    network.eval()
    try:
        with torch.inference_mode(), autocast(device, config.precision):
            yield
    finally:
        for module in in_training:
            module.training = True


def measure_error(network: nn.Module, images: Images, data: Data, device: Device, config: Config) -> float:
    """The error on a part of `data` in percent, single view (section 4.2), in the precision of the training."""
    wrong = torch.zeros((), dtype=torch.int64, device=device.torch_device)
    with evaluation_mode(network, device, config):
        for views, labels in iterate_single_views(images, data, device):
            wrong += (network(views).argmax(1) != labels).sum()
    return 100 * int(wrong) / len(images)


def predict_classes(network: nn.Module, data: Data, device: Device, config: Config) -> tuple[list[int], list[int]]:
    """The class that each test image is given, as in `measure_error`, and its true one."""
    predicted, true = [], []
    with evaluation_mode(network, device, config):
        for views, labels in iterate_single_views(data.test, data, device):
            predicted += network(views).argmax(1).tolist()
            true += labels.tolist()
    return predicted, true


def update_population_statistics(network: nn.Module, data: Data, device: Device, config: Config):
    """Replaces BN's moving averages by averages over the training images as they are.

    Training goes on unchanged, since it normalises by the mini-batch and never reads these averages.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain average over the batches that follow
        with torch.no_grad(), autocast(device, config.precision):
            for views, _ in iterate_single_views(data.train, data, device):
                network(views)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def measure_layer_responses(network: nn.Module, data: Data, device: Device, config: Config) -> list[float]:
    """The standard deviation of every 3x3 layer's response on the test set, first layer first (Fig. 7).

    A response is what leaves the layer's BN, before ReLU or addition; where a block's design has no BN right after the
    layer, it is what leaves the layer. Of another family than the paper's, that of the logits alone.
    """
    layers = network.responses() if isinstance(network, Network) else [network]
    batches = math.ceil(len(data.test) / device.eval_batch_size)
    # One buffer from the start: a small tensor kept between large ones that come and go would keep their memory as well.
    moments = torch.zeros(batches, len(layers), 2, device=device.torch_device)
    sizes: list[int] = []

    def note_moments(module: nn.Module, inputs: Any, response: Tensor):
        values = response.float()
        row = moments[len(sizes), positions[module]]
        row[0], row[1] = values.mean(), values.square().mean()

    positions = {module: position for position, module in enumerate(layers)}
    hooks = [module.register_forward_hook(note_moments) for module in layers]
    try:
        with evaluation_mode(network, device, config):
            for views, _ in iterate_single_views(data.test, data, device):
                network(views)
                sizes.append(len(views))
    finally:
        for hook in hooks:
            hook.remove()
    weights = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    means, squares = moments.cpu().double().unbind(2)
    return (weights @ squares - (weights @ means) ** 2).clamp(min=0).sqrt().tolist()
