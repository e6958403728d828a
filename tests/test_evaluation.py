"""Evaluation, population statistics and layer responses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reproduce.evaluation import evaluate_test_set, measure_error, measure_small_scales, update_population_statistics
from reproduce.interleave import run_task
from reproduce.model import Network
from reproduce.sampling import Data, center_crops, gather_batch
from reproduce.step import Training
from tests.conftest import CPU, QUICK, build


@pytest.mark.parametrize("size", [7, 100])
def test_evaluation_counts_every_image_once(synthetic: Data, size: int):
    network = build(QUICK).eval()
    with torch.no_grad():
        views, labels = gather_batch(synthetic.test, synthetic, center_crops(0, 100, CPU.torch_device))
        predicted = network(views).argmax(1)
    wrong, device = int((predicted != labels).sum()), replace(CPU, eval_batch_size=size)
    assert evaluate_test_set(network, synthetic, device, QUICK)[:3] == (wrong, predicted.tolist(), labels.tolist())
    assert not any(module._forward_hooks for module in network.modules())
    for is_training in (False, True):
        network.train(is_training)
        assert measure_error(network, synthetic.test, synthetic, device, QUICK) == wrong
        assert network.training is is_training, "an evaluation must restore the mode"


def test_population_statistics_are_averages_over_the_training_set_and_do_not_affect_training(synthetic: Data):
    few = replace(synthetic, train=synthetic.test)
    training = Training(QUICK, few, replace(CPU, eval_batch_size=100), capture=False)
    network = training.network
    assert isinstance(network, Network)
    run_task(training.train_chunk(0, 3, [0.1] * 3))
    update_population_statistics(training.network, few, training.device, QUICK)
    views, _ = gather_batch(few.train, few, center_crops(0, 100, CPU.torch_device))
    with torch.no_grad():
        responses = network.conv(views)
    torch.testing.assert_close(network.bn.running_mean, responses.mean((0, 2, 3)))
    torch.testing.assert_close(network.bn.running_var, responses.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    update_population_statistics(training.network, few, replace(CPU, eval_batch_size=30), QUICK)  # the last batch has 10 images
    torch.testing.assert_close(network.bn.running_mean, responses.mean((0, 2, 3)))
    assert network.bn.momentum == 0.1
    weights = {n: t for n, t in training.network.named_parameters()}
    run_task(training.train_chunk(3, 6, [0.1] * 3))
    uninterrupted = Training(QUICK, few, CPU, capture=False)
    run_task(uninterrupted.train_chunk(0, 6, [0.1] * 6))
    assert all(torch.equal(weights[name], tensor) for name, tensor in uninterrupted.network.named_parameters())


@pytest.mark.parametrize("block", ["original", "full-preactivation"])
def test_layer_responses_are_the_standard_deviations_over_the_test_set(synthetic: Data, block: str):
    config = replace(QUICK, block=block)
    network = build(config)
    got = evaluate_test_set(network, synthetic, replace(CPU, eval_batch_size=30), config).responses
    seen: list[float] = []
    for module in network.responses():
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.std(correction=0).item()))
    network.eval()
    with torch.no_grad():
        network(gather_batch(synthetic.test, synthetic, center_crops(0, 100, CPU.torch_device))[0])
    np.testing.assert_allclose(got, seen, rtol=1e-4)
    assert len(got) == QUICK.depth - 1


@pytest.mark.parametrize(
    ("block", "second"), [("original", "blocks.0.bn1.weight"), ("full-preactivation", "blocks.0.bn2.weight")]
)
def test_small_scales_count_the_channels_of_each_bn_layer(block: str, second: str):
    network = build(replace(QUICK, block=block, shortcut="C"))
    assert measure_small_scales(network) == {"0.02": [0.0] * 7, "0.05": [0.0] * 7}
    with torch.no_grad():
        network.get_parameter(second)[:4] = torch.tensor([0.01, -0.01, 0.04, -0.06])
    assert measure_small_scales(network) == {"0.02": [0, 2 / 16, 0, 0, 0, 0, 0], "0.05": [0, 3 / 16, 0, 0, 0, 0, 0]}
