"""Evaluation: error, predictions, BN statistics over the training set, and layer responses."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reproduce.config import Config
from reproduce.device import Device, autocast
from reproduce.model import Network
from reproduce.sampling import Data, Images, center_crops, gather_batch

SMALL_SCALES = (0.02, 0.05)
"""Thresholds of the absolute BN scale below which a channel counts as unused."""


def iterate_single_views(images: Images, data: Data, device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `images`, a part of `data`, in order and without augmentation, in batches with their labels."""
    for start in range(0, len(images), device.eval_batch_size):
        crops = center_crops(start, min(start + device.eval_batch_size, len(images)), device.torch_device)
        views, labels = gather_batch(images, data, crops)
        yield views.contiguous(memory_format=device.memory_format), labels


@contextmanager
def evaluation_mode(network: nn.Module, device: Device, config: Config) -> Iterator[None]:
    """Put the network into evaluation mode, without gradients and in the precision of training."""
    in_training = [module for module in network.modules() if module.training]  # all except frozen layers
    network.eval()
    try:
        with torch.inference_mode(), autocast(device, config.precision):
            yield
    finally:
        for module in in_training:
            module.training = True


def measure_error(network: nn.Module, images: Images, data: Data, device: Device, config: Config) -> float:
    """Return the single-view error on `images`, a part of `data`, in percent (section 4.2)."""
    wrong = torch.zeros((), dtype=torch.int64, device=device.torch_device)
    with evaluation_mode(network, device, config):
        for views, labels in iterate_single_views(images, data, device):
            wrong += (network(views).argmax(1) != labels).sum()
    return 100 * int(wrong) / len(images)


def update_population_statistics(network: nn.Module, data: Data, device: Device, config: Config):
    """Replace BN's moving averages by averages over the training images, without augmentation.

    This does not affect training, which normalizes by the mini-batch.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
        seen = 0
        with torch.no_grad(), autocast(device, config.precision):
            for views, _ in iterate_single_views(data.train, data, device):
                seen += len(views)
                for layer in layers:
                    layer.momentum = len(views) / seen  # average over all batches; the last one may be smaller
                network(views)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


class Evaluation(NamedTuple):
    """One pass over the test set.

    error: in percent. predicted, labels: the predicted and the true class of each image. responses: the standard deviation
    of each 3x3 layer's response, in order (Fig. 7).
    """

    error: float
    predicted: list[int]
    labels: list[int]
    responses: list[float]


def evaluate_test_set(network: nn.Module, data: Data, device: Device, config: Config) -> Evaluation:
    """Return error, predictions and layer responses on the test set (the same error as `measure_error`).

    A response is the output of the layer's BN, before ReLU or addition (see `Network.responses`). For families other than
    6n+2, the logits are the only response; they serve to detect divergence.
    """
    layers = network.responses() if isinstance(network, Network) else [network]
    moments = torch.zeros(len(layers), 2, dtype=torch.float64)  # sums over images of the mean, and of the mean square
    predicted, true = [], []

    def add_moments(position: int, _layer: nn.Module, _inputs: object, response: Tensor):
        values = response.float()
        moments[position] += len(values) * torch.tensor([values.mean(), values.square().mean()], dtype=torch.float64)

    hooks = [layer.register_forward_hook(partial(add_moments, position)) for position, layer in enumerate(layers)]
    try:
        with evaluation_mode(network, device, config):
            for views, labels in iterate_single_views(data.test, data, device):
                predicted += network(views).argmax(1).tolist()
                true += labels.tolist()
    finally:
        for hook in hooks:
            hook.remove()
    means, squares = (moments / len(true)).unbind(1)
    responses = (squares - means**2).clamp(min=0).sqrt().tolist()
    wrong = sum(one != other for one, other in zip(predicted, true, strict=True))
    return Evaluation(100 * wrong / len(true), predicted, true, responses)


def measure_small_scales(network: Network) -> dict[str, list[float]]:
    """Return, for each threshold, the fraction of each BN layer's channels whose absolute scale is below it.

    The layers are in the order of the 3x3 layers before them; projection shortcuts are left out.
    """
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    scales = [layer.weight.detach().abs() for name, layer in layers if ".shortcut." not in name]
    return {str(threshold): [(scale < threshold).double().mean().item() for scale in scales] for threshold in SMALL_SCALES}
