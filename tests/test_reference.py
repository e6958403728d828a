"""The plain recipe, and that batches, learning rate and training are it.

Against its loop, tests/test_step.py holds the other optimizers as well.
"""

import numpy as np
import pytest
import torch

from reproduce import reference
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.interleave import run_task
from reproduce.model import build_network
from reproduce.optimizer import learning_rate
from reproduce.sampling import PADDING, Data, gather_batch, sample_batches
from reproduce.step import Training
from tests.conftest import CPU
from tests.test_sampling import as_data, random_images


@pytest.mark.parametrize("iterations", [2_000, 200, 13])
def test_the_learning_rate_is_the_references(iterations: int):
    ours = [learning_rate(Config(iterations=iterations), iteration, None) for iteration in range(iterations)]
    np.testing.assert_allclose(ours, reference.list_rates(iterations), rtol=1e-12)


def test_the_papers_recipe_trains_as_the_reference_does():
    """Twelve iterations with the default recipe, its schedule shortened to them, on the same batches."""
    config = Config(depth=8, batch_size=16, iterations=12)
    data = as_data(random_images(64))
    rates = [learning_rate(config, iteration, None) for iteration in range(12)]
    training = Training(config, data, CPU, capture=False)
    losses = []
    for start in (0, 6):
        losses += run_task(training.train_chunk(start, start + 6, rates[start : start + 6]))[0]
    network = build_network(config)
    batches = [gather_batch(data.train, data, row) for row in sample_batches(config, 64, 0, 12)]
    steps = reference.train_network(network, reference.make_sgd(network), batches, reference.list_rates(12))
    assert losses == pytest.approx([loss.item() for loss, _, _ in steps], rel=1e-3)
    for ours, plain in zip(training.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-3, rtol=1e-2)


def test_the_images_of_a_batch_are_the_references(synthetic: Data):
    """Every image of its batches is one of the 9 x 9 x 2 that data.py can make of the same image and the same mean."""
    torch.manual_seed(0)
    images_NCHW = synthetic.unpad(synthetic.train.positions).permute(0, 3, 1, 2)
    mean_CHW = images_NCHW.sum(0) / (255 * len(images_NCHW))
    torch.testing.assert_close(mean_CHW, synthetic.unpad(synthetic.mean)[0].permute(2, 0, 1), rtol=1e-6, atol=0)
    few, seen = images_NCHW[:130], torch.arange(130)
    batches = reference.draw_batches(few, seen, synthetic.unpad(synthetic.mean)[0].permute(2, 0, 1))
    (first, whose), (rest, others) = next(batches), next(batches)
    assert len(first) == 128 and len(rest) == 2 and torch.equal(torch.cat([whose, others]).sort().values, seen)
    grid = torch.cartesian_prod(torch.arange(2 * PADDING + 1), torch.arange(2 * PADDING + 1), torch.arange(2)).T
    drawn = set()
    for image_CHW, index in zip(first, whose, strict=True):
        views, _ = gather_batch(synthetic.train, synthetic, torch.cat([index.expand(1, grid.shape[1]), grid]))
        equal = (views == image_CHW).flatten(1).all(1)
        assert equal.any()
        drawn.add(tuple(grid[:, int(equal.nonzero()[0])].tolist()))
    assert len(drawn) > 60, "each image has its own crop and flip"


def test_it_trains_and_prints_errors(workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    monkeypatch.setattr(reference, "PRINT_EVERY", 6)
    assert reference.main("--depth 8 --iterations 16 --data synthetic".split()) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows] == ["6/16", "12/16", "16/16"] and [row[4] for row in rows] == ["0.1", "0.01", "0.001"]
    assert np.isfinite(float(rows[-1][6])) and 0 <= float(rows[-1][-1].rstrip("%")) < 80


@pytest.mark.parametrize("flags", ["--depth 9", "--iterations 0", "--optimizer adam"])
def test_wrong_use(flags: str):
    with pytest.raises(UserError):
        reference.main(flags.split())
