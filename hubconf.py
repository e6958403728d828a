"""torch.hub entry points: the networks with weights in weights/, with their normalization.

    network = torch.hub.load(".", "resnet20_cifar10", source="local", pretrained=True)  # "." is a clone of this repository
    logits = network(images)  # N x 3 x 32 x 32 in [0, 1] -> N x 10

With pretrained=True a network is in evaluation mode and includes its normalization; by default it has random weights, is in
training mode and does not normalize.
"""

import pathlib

import torch

# torch.hub lists every callable of this module as an entry point, so import modules only.
from reproduce import config, model, weights

dependencies = ["filelock", "msgspec", "numpy", "safetensors", "torch", "torchvision", "tqdm", "tyro"]
WEIGHTS = pathlib.Path(__file__).with_name("weights")


def _load(name: str, network: config.Config, pretrained: bool) -> weights.Classifier:
    """Build a network: if pretrained, in evaluation mode; else in training mode, without normalization."""
    if not pretrained:
        return weights.Classifier(model.build_network(network), torch.zeros(3, 32, 32), torch.ones(3, 1, 1))
    return weights.load_network(WEIGHTS / f"{name}.safetensors").classifier


def resnet20_cifar10(pretrained: bool = False) -> weights.Classifier:
    """ResNet-20 of section 4.2, 0.27M parameters. Pretrained: weights/residual20.md."""
    return _load("residual20", config.Config(depth=20), pretrained)


def resnet32_cifar10(pretrained: bool = False) -> weights.Classifier:
    """ResNet-32 of section 4.2, 0.46M parameters. Pretrained: weights/residual32.md."""
    return _load("residual32", config.Config(depth=32), pretrained)


def resnet44_cifar10(pretrained: bool = False) -> weights.Classifier:
    """ResNet-44 of section 4.2, 0.66M parameters. Pretrained: weights/residual44.md."""
    return _load("residual44", config.Config(depth=44), pretrained)


def resnet56_cifar10(pretrained: bool = False) -> weights.Classifier:
    """ResNet-56 of section 4.2, 0.85M parameters. Pretrained: weights/residual56.md."""
    return _load("residual56", config.Config(depth=56), pretrained)


def resnet56_warmup_cifar10(pretrained: bool = False) -> weights.Classifier:
    """ResNet-56 trained with a warm-up of 400 iterations. Pretrained: weights/residual56-warmup.md."""
    return _load("residual56-warmup", config.Config(depth=56), pretrained)


def resnet20_bn_after_add_cifar10(pretrained: bool = False) -> weights.Classifier:
    """ResNet-20 with BN after the addition. Pretrained: weights/residual20-bn-after-add.md."""
    return _load("residual20-bn-after-add", config.Config(depth=20, block="bn-after-add"), pretrained)


def resnet32_bn_after_add_cifar10(pretrained: bool = False) -> weights.Classifier:
    """ResNet-32 with BN after the addition. Pretrained: weights/residual32-bn-after-add.md."""
    return _load("residual32-bn-after-add", config.Config(depth=32, block="bn-after-add"), pretrained)
