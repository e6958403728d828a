"""The plain and residual networks of section 4.2 (6n+2 layers), and a few others.

Shapes: N images, C channels, H rows, W columns, K classes.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reproduce.config import Block as BlockDesign
from reproduce.config import Config, Shortcut, Trainable
from reproduce.randomness import INITIALIZATION, random_generator

STAGE_CHANNELS = (16, 32, 64)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def relu_(x_NCHW: Tensor) -> Tensor:
    """Apply ReLU in place. Safe after BN or an addition, whose backward passes do not need their outputs."""
    return F.relu(x_NCHW, inplace=True)


class ZeroPaddedShortcut(nn.Module):
    """Shortcut A: strided subsampling, and zero channels padded half before, half after. No parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.padding = (out_channels - in_channels) // 2

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return F.pad(x_NCHW[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


def make_shortcut(kind: Shortcut, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return shortcut A, B (projection where the shape changes) or C (projection everywhere); section 3.3, Table 3."""
    changes_shape = stride != 1 or in_channels != out_channels
    if kind == "C" or (kind == "B" and changes_shape):
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
    return ZeroPaddedShortcut(in_channels, out_channels, stride) if changes_shape else nn.Identity()


class Block(nn.Module):
    """Two 3x3 layers, with a shortcut around them in a residual network. The designs are from Identity Mappings, Fig. 4.

    In the first block of a full-preactivation network, the stem provides the first BN and ReLU.
    """

    def __init__(self, config: Config, in_channels: int, out_channels: int, stride: int, first: bool):
        super().__init__()
        self.design: BlockDesign = config.block
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.conv2 = conv3x3(out_channels, out_channels)
        if self.design == "full-preactivation":
            self.bn1 = nn.Identity() if first else nn.BatchNorm2d(in_channels)
        else:
            self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = make_shortcut(config.shortcut, in_channels, out_channels, stride) if config.residual else None

    def forward(self, x_NCHW: Tensor) -> Tensor:
        conv1, bn1, conv2, bn2 = self.conv1, self.bn1, self.conv2, self.bn2
        if self.shortcut is None:
            return relu_(bn2(conv2(relu_(bn1(conv1(x_NCHW))))))
        identity_NCHW = self.shortcut(x_NCHW)
        match self.design:
            case "original":
                return relu_(bn2(conv2(relu_(bn1(conv1(x_NCHW))))).add_(identity_NCHW))
            case "bn-after-add":
                return relu_(bn2(conv2(relu_(bn1(conv1(x_NCHW)))).add_(identity_NCHW)))
            case "relu-before-add":
                return relu_(bn2(conv2(relu_(bn1(conv1(x_NCHW)))))) + identity_NCHW
            case "relu-only-preactivation":
                return bn2(conv2(relu_(bn1(conv1(F.relu(x_NCHW)))))).add_(identity_NCHW)
            case "full-preactivation":
                return conv2(relu_(bn2(conv1(F.relu(bn1(x_NCHW)))))).add_(identity_NCHW)

    def responses(self) -> list[nn.Module]:
        """Return the modules whose outputs are the responses of the two 3x3 layers (see `Network.responses`)."""
        if self.design == "full-preactivation":
            return [self.bn2, self.conv2]
        return [self.bn1, self.conv2 if self.design == "bn-after-add" else self.bn2]


class Network(nn.Module):
    """A 6n+2 network: 3x3 stem, 3n blocks (maps of 32 x 32, 16 x 16, 8 x 8), global average pooling, linear layer."""

    def __init__(self, config: Config):
        super().__init__()
        self.conv = conv3x3(config.dataset_info.channels, STAGE_CHANNELS[0])
        self.bn = nn.BatchNorm2d(STAGE_CHANNELS[0])
        blocks, in_channels = [], STAGE_CHANNELS[0]
        for stage, out_channels in enumerate(STAGE_CHANNELS):
            for position in range((config.depth - 2) // 6):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(Block(config, in_channels, out_channels, stride, first=not blocks))
                in_channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        # The pre-activation designs need an activation after the last addition (Identity Mappings, appendix).
        match config.block:
            case "full-preactivation":
                self.last = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
            case "relu-only-preactivation":
                self.last = nn.ReLU()
            case _:
                self.last = nn.Identity()
        self.linear = nn.Linear(in_channels, len(config.dataset_info.class_names))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the logits (N x K) of normalized images (N x 3 x 32 x 32)."""
        maps_NCHW = self.last(self.blocks(relu_(self.bn(self.conv(images_NCHW)))))
        return self.linear(maps_NCHW.mean((2, 3)))

    def responses(self) -> list[nn.Module]:
        """Return the modules whose outputs are the responses of the depth - 1 3x3 layers, in order (Fig. 7).

        For each 3x3 layer, this is the BN layer that directly follows it, or the 3x3 layer itself if there is none.
        """
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        return [self.bn, *(module for block in blocks for module in block.responses())]


def build_network(config: Config) -> nn.Module:
    """Build a network on the CPU with He initialization (reference [13] of the paper) from the configuration's seed.

    Plain and residual networks of the same depth get the same initial weights, with any block design and shortcut A.
    """
    network = Network(config) if config.family == "6n+2" else build_other_family(config)
    generator = random_generator(config.seed, INITIALIZATION)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        fan, kernel_size = layer.weight.shape[1], layer.weight[0, 0].numel()
        if config.initialization == "fan-out" and isinstance(layer, nn.Conv2d):
            fan = layer.out_channels // layer.groups
        draws = generator.standard_normal(tuple(layer.weight.shape), dtype=np.float32)
        layer.weight.data.copy_(torch.from_numpy(draws).mul_(math.sqrt(2 / (fan * kernel_size))))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    if config.last_layer == "uniform":
        bound = 1 / math.sqrt(layers[-1].weight.shape[1])
        for parameter in layers[-1].parameters():
            draws = generator.uniform(-bound, bound, tuple(parameter.shape))
            parameter.data.copy_(torch.from_numpy(draws))
    return network


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def find_head(network: nn.Module) -> str:
    """Return the name of the head, the last linear layer."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]


def freeze_layers(network: nn.Module, trainable: Trainable):
    """Freeze every layer outside `trainable`. Frozen BN layers use their running statistics."""
    if trainable == "all":
        return
    trained = [network.get_submodule(find_head(network))]
    if trainable == "last-stage" and isinstance(network, Network):
        trained += [network.last, *list(network.blocks)[-len(network.blocks) // len(STAGE_CHANNELS) :]]
    elif trainable == "last-stage":
        trained.append(network.get_submodule("layer4"))
    network.requires_grad_(False).eval()
    for module in trained:
        module.requires_grad_(True).train()


# Other families -------------------------------------------------------------------------------------------------------


def build_other_family(config: Config) -> nn.Module:
    """Build one of torchvision's ResNets or ResNeXts for small images, or LeNet.

    torchvision's networks get a 3x3 stem with stride 1 and no max-pooling, so their stages work on maps of 32, 16, 8 and 4
    pixels. LeNet has two 3x3 convolutions and two linear layers, with biases and without BN.
    """
    channels, classes = config.dataset_info.channels, len(config.dataset_info.class_names)
    if config.family == "lenet":
        convolutions = [nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        convolutions += [nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        pixels = (config.dataset_info.side // 4) ** 2
        return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8 * pixels, 32), nn.ReLU(), nn.Linear(32, classes))
    from torchvision import models

    network = getattr(models, config.family)(num_classes=classes)
    network.conv1, network.maxpool = conv3x3(channels, 64), nn.Identity()
    return network
