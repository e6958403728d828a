"""The networks of section 4.2: sizes, layers, shortcuts, block designs, initialization."""

import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reproduce.config import Block as BlockDesign
from reproduce.config import Config
from reproduce.model import Block, Network, build_network, build_other_family, make_shortcut
from tests.conftest import build

DESIGNS = get_args(BlockDesign)
PARAMETERS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def on_meta(config: Config) -> Network:
    with torch.device("meta"):
        return Network(config)


@pytest.mark.parametrize(("depth", "parameters"), PARAMETERS.items())
def test_plain_and_residual_networks_have_the_papers_parameter_counts(depth: int, parameters: int):
    assert count_parameters(on_meta(Config(depth=depth))) == parameters
    assert count_parameters(on_meta(Config(depth=depth, residual=False))) == parameters


def test_block_designs_add_no_parameters_and_projections_do():
    for design in DESIGNS:
        assert count_parameters(on_meta(Config(depth=56, block=design))) == PARAMETERS[56]
    assert count_parameters(on_meta(Config(depth=56, shortcut="B"))) == PARAMETERS[56] + 2_752
    projections = 9 * (16 * 16 + 32 * 32 + 64 * 64) + 16 * 32 + 32 * 64 - 32 * 32 - 64 * 64 + 2 * 9 * (16 + 32 + 64)
    assert count_parameters(on_meta(Config(depth=56, shortcut="C"))) == PARAMETERS[56] + projections


@pytest.mark.parametrize(("depth", "millions"), [(20, 40.55), (56, 125.49), (110, 252.89)])
def test_multiplications_per_image(depth: int, millions: float):
    network = on_meta(Config(depth=depth))
    total = 0

    def add_multiplications(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor):
        nonlocal total
        total += output[0].numel() * math.prod(module.get_parameter("weight").shape[1:])

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add_multiplications)
    network(torch.empty(1, 3, 32, 32, device="meta"))
    assert round(total / 1e6, 2) == millions


# Shortcuts ------------------------------------------------------------------------------------------------------------


def test_shortcut_a_subsamples_and_adds_zero_channels_without_parameters():
    shortcut = make_shortcut("A", 16, 32, 2)
    assert count_parameters(shortcut) == 0
    x = torch.randn(2, 16, 8, 8)
    y = shortcut(x)
    assert y.shape == (2, 32, 4, 4)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any() and not y[:, 24:].any()
    assert isinstance(make_shortcut("A", 16, 16, 1), nn.Identity)


# Block designs --------------------------------------------------------------------------------------------------------


def formula(design: str, block: Block, x: torch.Tensor) -> torch.Tensor:
    """Identity Mappings, Fig. 4, with batch statistics."""

    def conv(layer: nn.Conv2d, y: torch.Tensor) -> torch.Tensor:
        return F.conv2d(y, layer.weight, stride=layer.stride, padding=1)

    def bn(layer: nn.Module, y: torch.Tensor) -> torch.Tensor:
        mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), keepdim=True, correction=0)
        weight, bias = (parameter[None, :, None, None] for parameter in layer.parameters())
        return (y - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    c1, c2, b1, b2, relu = block.conv1, block.conv2, block.bn1, block.bn2, torch.relu
    match design:
        case "plain":
            return relu(bn(b2, conv(c2, relu(bn(b1, conv(c1, x))))))
        case "original":
            return relu(bn(b2, conv(c2, relu(bn(b1, conv(c1, x))))) + x)
        case "bn-after-add":
            return relu(bn(b2, conv(c2, relu(bn(b1, conv(c1, x)))) + x))
        case "relu-before-add":
            return relu(bn(b2, conv(c2, relu(bn(b1, conv(c1, x)))))) + x
        case "relu-only-preactivation":
            return bn(b2, conv(c2, relu(bn(b1, conv(c1, relu(x)))))) + x
        case _:
            return conv(c2, relu(bn(b2, conv(c1, relu(bn(b1, x)))))) + x


@pytest.mark.parametrize("design", ["plain", *DESIGNS])
def test_a_block_computes_its_formula(design: str):
    torch.manual_seed(0)
    config = Config(residual=False) if design == "plain" else replace(Config(), block=design)
    block = Block(config, 16, 16, 1, first=False).train()
    for module in (block.bn1, block.bn2):
        for parameter in module.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
    x = torch.randn(4, 16, 8, 8)
    torch.testing.assert_close(block(x), formula(design, block, x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_layers_before_the_first_and_after_the_last_block(design: BlockDesign):
    network = build(Config(depth=8, block=design)).eval()
    images = torch.randn(2, 3, 32, 32)
    first_input, last_output = [], []
    network.blocks[0].register_forward_pre_hook(lambda module, inputs: first_input.append(inputs[0]))
    network.blocks[-1].register_forward_hook(lambda module, inputs, output: last_output.append(output))
    logits = network(images)
    torch.testing.assert_close(first_input[0], torch.relu(network.bn(network.conv(images))))
    pooled = last_output[0]
    if design == "full-preactivation":
        pooled = network.last.get_submodule("0")(pooled)
    if design.endswith("preactivation"):
        pooled = torch.relu(pooled)
    torch.testing.assert_close(logits, network.linear(pooled.mean((2, 3))))


# Initialization -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initialization", ["fan-in", "fan-out"])
@pytest.mark.parametrize("config", [Config(depth=56), Config(family="resnext50_32x4d"), Config(family="lenet")])
def test_he_initialization(config: Config, initialization: Any):
    for module in build_network(replace(config, initialization=initialization)).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            outputs, inputs, *window = module.weight.shape
            if initialization == "fan-out" and isinstance(module, nn.Conv2d):
                inputs = outputs // module.groups
            std, count = math.sqrt(2 / (inputs * math.prod(window))), module.weight.numel()
            assert module.weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * count))
            assert abs(module.weight.mean().item()) < 5 * std / math.sqrt(count)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight)) and not module.bias.any()


def test_the_last_layer_can_be_initialized_like_torchs():
    linear = build(Config(last_layer="uniform")).linear
    for parameter in linear.parameters():
        assert 0 < parameter.abs().max() <= 1 / 8
    assert linear.weight.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.15)


def test_initial_weights_depend_only_on_the_seed():
    torch.manual_seed(1)
    first = build(Config(depth=8))
    torch.manual_seed(2)
    again = build(Config(depth=8))
    plain, other = build(Config(depth=8, residual=False)), build(Config(depth=8, seed=1))
    preactivated = build(Config(depth=8, block="full-preactivation"))
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert torch.equal(weight, plain.state_dict()[name])
        if "conv" in name or name == "linear.weight":
            assert not torch.equal(weight, other.state_dict()[name])
            assert torch.equal(weight, preactivated.state_dict()[name])


# Other families -------------------------------------------------------------------------------------------------------

OTHERS = {
    "resnet18": 11_173_962, "resnet34": 21_282_122, "resnet50": 23_520_842, "resnet101": 42_512_970,
    "resnext50_32x4d": 22_992_714, "lenet": 13_242,
}  # fmt: skip


@pytest.mark.parametrize(("family", "parameters"), OTHERS.items())
def test_other_families_have_the_published_parameter_counts(family: Any, parameters: int):
    config = Config(family=family, dataset="mnist" if family == "lenet" else "cifar10")
    with torch.device("meta"):
        network = build_other_family(config)
        logits = network(torch.empty(2, config.dataset_info.channels, config.dataset_info.side, config.dataset_info.side))
    assert count_parameters(network) == parameters and logits.shape == (2, 10)


def test_torchvisions_networks_work_on_maps_of_32_to_4_pixels():
    sizes = []
    with torch.device("meta"):
        network = build_other_family(Config(family="resnet18"))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            getattr(network, name).register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
        network(torch.empty(1, 3, 32, 32))
    assert sizes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_lenet_computes_its_formula():
    network = build_network(Config(family="lenet", dataset="mnist"))
    conv1, conv2, linear1, linear2 = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    images = torch.rand(3, 1, 28, 28)
    maps = F.max_pool2d(torch.relu(F.conv2d(images, conv1.weight, conv1.bias, padding=1)), 2)
    maps = F.max_pool2d(torch.relu(F.conv2d(maps, conv2.weight, conv2.bias, padding=1)), 2)
    hidden = torch.relu(F.linear(maps.reshape(3, 392), linear1.weight, linear1.bias))
    torch.testing.assert_close(network(images), F.linear(hidden, linear2.weight, linear2.bias))
