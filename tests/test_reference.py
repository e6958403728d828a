"""The fast code computes the batches, learning rates and training steps of the plain recipe.

tests/test_step.py compares the other optimizers.
"""

import numpy as np
import pytest
import torch

from reproduce import reference
from reproduce.config import Config
from reproduce.interleave import run_task
from reproduce.model import build_network
from reproduce.optimizer import learning_rate
from reproduce.sampling import PADDING, Data, gather_batch, sample_batches
from reproduce.step import Training
from tests.conftest import CPU, unpad
from tests.test_sampling import as_data, random_images


@pytest.mark.parametrize("iterations", [2_000, 200, 13])
def test_the_learning_rate_is_the_references(iterations: int):
    ours = [learning_rate(Config(iterations=iterations), iteration, None) for iteration in range(iterations)]
    np.testing.assert_allclose(ours, reference.list_rates(iterations), rtol=1e-12)


def test_training_with_the_defaults_equals_the_references():
    """Twelve iterations with a shortened schedule, on the same batches."""
    config = Config(depth=8, batch_size=16, iterations=12)
    data = as_data(random_images(64))
    rates = [learning_rate(config, iteration, None) for iteration in range(12)]
    training = Training(config, data, CPU, capture=False)
    losses = []
    for start in (0, 6):
        losses += run_task(training.train_chunk(start, start + 6, rates[start : start + 6]))[0]
    network = build_network(config)
    batches = [gather_batch(data.train, data, crops) for crops in sample_batches(config, 64, 0, 12)]
    steps = reference.train_network(network, reference.make_sgd(network), batches, reference.list_rates(12))
    assert losses == pytest.approx([loss.item() for loss, _, _ in steps], rel=1e-3)
    for ours, plain in zip(training.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-3, rtol=1e-2)


def test_batches_contain_the_crops_of_the_references(synthetic: Data):
    """Each image of a reference batch equals one of the 9 x 9 x 2 crops that sampling.py can gather."""
    torch.manual_seed(0)
    images_NCHW = unpad(synthetic, synthetic.train.pixels).permute(0, 3, 1, 2)
    mean_CHW = images_NCHW.sum(0) / (255 * len(images_NCHW))
    torch.testing.assert_close(mean_CHW, unpad(synthetic, synthetic.mean)[0].permute(2, 0, 1), rtol=1e-6, atol=0)
    few, indices = images_NCHW[:130], torch.arange(130)
    batches = reference.draw_batches(few, indices, unpad(synthetic, synthetic.mean)[0].permute(2, 0, 1))
    (first, whose), (rest, others) = next(batches), next(batches)
    assert len(first) == 128 and len(rest) == 2 and torch.equal(torch.cat([whose, others]).sort().values, indices)
    grid = torch.cartesian_prod(torch.arange(2 * PADDING + 1), torch.arange(2 * PADDING + 1), torch.arange(2)).T
    drawn = set()
    for image_CHW, index in zip(first, whose, strict=True):
        views, _ = gather_batch(synthetic.train, synthetic, torch.cat([index.expand(1, grid.shape[1]), grid]))
        equal = (views == image_CHW).flatten(1).all(1)
        assert equal.any()
        drawn.add(tuple(grid[:, int(equal.nonzero()[0])].tolist()))
    assert len(drawn) > 60, "each image must have its own crop and flip"


def test_the_reference_trains_and_prints_errors(workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    monkeypatch.setattr(reference, "PRINT_EVERY", 6)
    assert reference.main("--depth 8 --iterations 16 --data synthetic".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "iteration 6/16: learning rate 0.1", "iteration 12/16: learning rate 0.01", "iteration 16/16: learning rate 0.001"
    ]  # fmt: skip
    assert float(lines[-1].split()[-1].rstrip("%")) < 80
