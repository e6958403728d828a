"""torch.hub entry points: the networks of section 4.2 and others with published weights, with their normalization.

    network = torch.hub.load(".", "resnet20_cifar10", source="local", pretrained=True)  # "." is a clone of this repository
    logits = network(images)  # N x 3 x 32 x 32 in [0, 1] -> N x 10

Without pretrained=True the weights are random.
"""

from pathlib import Path

import torch

from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.model import build_network
from reproduce.weights import Classifier, load_network

dependencies = ["filelock", "msgspec", "numpy", "safetensors", "torch", "torchvision", "tqdm", "tyro"]
WEIGHTS = Path(__file__).with_name("weights")


def load(config: Config, pretrained: bool) -> Classifier:
    """Build a network, in evaluation mode if pretrained, else in training mode and with mean 0 and std 1.

    Raises:
        UserError: its weights are not published.
    """
    if not pretrained:
        return Classifier(build_network(config), torch.zeros(1), torch.ones(1))
    name = config.net if config.block == "original" else f"{config.net}-{config.block}"
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise UserError(f"no weights of {name} are published yet: train it, or use pretrained=False")
    return load_network(path, "").classifier


def resnet20_cifar10(pretrained: bool = False) -> Classifier:
    """ResNet-20 of section 4.2, 0.27M parameters. Pretrained: weights/residual20.md."""
    return load(Config(depth=20), pretrained)


def resnet32_cifar10(pretrained: bool = False) -> Classifier:
    """ResNet-32 of section 4.2, 0.46M parameters. Pretrained: weights/residual32.md."""
    return load(Config(depth=32), pretrained)


def resnet44_cifar10(pretrained: bool = False) -> Classifier:
    """ResNet-44 of section 4.2, 0.66M parameters. Pretrained: weights/residual44.md."""
    return load(Config(depth=44), pretrained)


def resnet56_cifar10(pretrained: bool = False) -> Classifier:
    """ResNet-56 of section 4.2, 0.85M parameters. Pretrained: weights/residual56.md."""
    return load(Config(depth=56), pretrained)


def resnet110_cifar10(pretrained: bool = False) -> Classifier:
    """ResNet-110 of section 4.2, 1.7M parameters."""
    return load(Config(depth=110), pretrained)


def resnet1202_cifar10(pretrained: bool = False) -> Classifier:
    """ResNet-1202 of section 4.2, 19.4M parameters."""
    return load(Config(depth=1202), pretrained)


def resnet20_bn_after_add_cifar10(pretrained: bool = False) -> Classifier:
    """ResNet-20 with BN after the addition. Pretrained: weights/residual20-bn-after-add.md."""
    return load(Config(depth=20, block="bn-after-add"), pretrained)


def resnet32_bn_after_add_cifar10(pretrained: bool = False) -> Classifier:
    """ResNet-32 with BN after the addition. Pretrained: weights/residual32-bn-after-add.md."""
    return load(Config(depth=32, block="bn-after-add"), pretrained)


def plain20_cifar10(pretrained: bool = False) -> Classifier:
    """Plain network with 20 layers."""
    return load(Config(depth=20, residual=False), pretrained)


def plain32_cifar10(pretrained: bool = False) -> Classifier:
    """Plain network with 32 layers."""
    return load(Config(depth=32, residual=False), pretrained)


def plain44_cifar10(pretrained: bool = False) -> Classifier:
    """Plain network with 44 layers."""
    return load(Config(depth=44, residual=False), pretrained)


def plain56_cifar10(pretrained: bool = False) -> Classifier:
    """Plain network with 56 layers."""
    return load(Config(depth=56, residual=False), pretrained)
