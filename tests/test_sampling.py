"""Batches as a pure function of (seed, iteration); normalization, validation split, and what runs share."""

import contextlib
import hashlib
import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F
from torchvision import transforms

from reproduce import sampling
from reproduce.config import Config
from reproduce.dataset import read_dataset
from reproduce.errors import UserError
from reproduce.sampling import (
    Data,
    center_crops,
    gather_batch,
    load_data,
    sample_batches,
    to_device,
    validation_mask,
)
from tests.conftest import CPU, QUICK, unpad


def as_data(images_NHWC: np.ndarray, mean_HWC: np.ndarray | None = None) -> Data:
    """A Data of these uint8 images only; image m has label m % 10."""
    images = to_device(images_NHWC, np.arange(len(images_NHWC)) % 10, CPU.torch_device)
    shape = images_NHWC.shape[1:]
    mean = np.zeros(shape) if mean_HWC is None else mean_HWC
    return Data(images, None, images, torch.from_numpy(sampling.pad_mean(mean)).float(), torch.ones(shape[-1]), "")


def random_images(count: int, side: int = 32, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


# Order ----------------------------------------------------------------------------------------------------------------


def test_every_permutation_contains_each_image_once():
    first, *permutations = sample_batches(Config(batch_size=32), 100, 0, 25)[:, 0].reshape(8, 100)
    for permutation in permutations:
        assert torch.equal(permutation.sort().values.long(), torch.arange(100))
        assert not torch.equal(permutation, first)


def test_dropping_the_last_batch_gives_whole_batches_of_each_permutation():
    stream = sample_batches(Config(batch_size=32, last_batch="drop"), 100, 0, 30)[:, 0].reshape(10, 96)
    assert all(len(permutation.unique()) == 96 for permutation in stream)


def test_batches_larger_than_the_training_set_are_refused(synthetic_folder: Path):
    dropping = Config(batch_size=1801, last_batch="drop", split="val", dataset="synthetic")
    with pytest.raises(UserError, match="at most 1,800"):
        load_data(dropping, synthetic_folder, CPU.torch_device)
    assert len(load_data(replace(dropping, batch_size=1800), synthetic_folder, CPU.torch_device).train) == 1800
    assert len(load_data(replace(dropping, last_batch="stream"), synthetic_folder, CPU.torch_device).train) == 1800


def test_batches_depend_only_on_seed_and_iteration():
    config = Config(batch_size=32)
    whole = sample_batches(config, 1000, 0, 60)
    pieces = [sample_batches(config, 1000, start, stop) for start, stop in ((0, 1), (1, 20), (20, 41), (41, 60))]
    assert torch.equal(torch.cat(pieces), whole)
    other = sample_batches(replace(config, seed=1), 1000, 0, 60)
    assert not torch.equal(other[:, 0], whole[:, 0]) and not torch.equal(other[:, 1:], whole[:, 1:])


def test_golden_batches():
    digest = hashlib.sha256(sample_batches(Config(), 50_000, 389, 393).long().numpy().tobytes()).hexdigest()
    assert digest[:16] == "879c33caed949499", "existing records were trained on other batches: pin NumPy or raise config.SCHEMA"


# Shared by the runs of a process --------------------------------------------------------------------------------------


def list_changed_configs() -> list[Config]:
    """QUICK with each field changed in turn, new fields included; those that need other files or are invalid are left out."""
    hints, configs = get_type_hints(Config), []
    for field in fields(Config):
        value = getattr(QUICK, field.name)
        if isinstance(value, str):
            values = get_args(hints[field.name]) if field.name != "dataset" else ()
        else:
            values = [not value if isinstance(value, bool) else value + 6 if isinstance(value, int) else value / 2]
        for other in values:
            with contextlib.suppress(UserError):
                configs.append(replace(QUICK, **{field.name: other}))
    return configs


def test_runs_share_data_and_batches_exactly_where_they_are_equal(synthetic_folder: Path):
    data, batches = load_data(QUICK, synthetic_folder, CPU.torch_device), sample_batches(QUICK, 999, 0, 150)
    for config in list_changed_configs():
        cached = load_data(config, synthetic_folder, CPU.torch_device)
        seed = config.seed if config.split == "val" else None
        arguments = (config.dataset, config.classes, config.normalization, seed, synthetic_folder, CPU.torch_device)
        fresh = sampling.build_data.__wrapped__(*arguments)
        assert equal_data(cached, fresh) and (cached is data) == equal_data(fresh, data), config
        cached = sample_batches(config, 999, 0, 150)
        fresh = sampling.draw_crops.__wrapped__(config.seed, config.batch_size, config.last_batch, config.augment, 999, 0, 150)
        assert torch.equal(cached, fresh) and (cached is batches) == torch.equal(fresh, batches), config


def equal_data(one: Data, other: Data) -> bool:
    tensors = ((data.train.pixels, data.test.pixels, data.mean, data.std) for data in (one, other))
    return all(torch.equal(*pair) for pair in zip(*tensors, strict=True))


@pytest.mark.parametrize("name", ["draw_crops", "build_data"])
def test_a_new_field_of_config_cannot_be_left_out_of_a_cache(name: str):
    """What a cached function uses must be an argument, so part of the cache's key: it sees no Config and has no defaults."""
    parameters = inspect.signature(getattr(sampling, name)).parameters.values()
    assert all(parameter.annotation is not Config and parameter.default is parameter.empty for parameter in parameters)


# Crops and flips ------------------------------------------------------------------------------------------------------


def test_crops_and_flips_are_distributed_like_torchvisions():
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = np.arange(1, 33)[:, None], np.arange(1, 33), 77
    one = as_data(image[None])
    theirs = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
    torch.manual_seed(0)
    outcomes = {theirs(torch.from_numpy(image).permute(2, 0, 1)).numpy().tobytes() for _ in range(3000)}
    assert len(outcomes) == 9 * 9 * 2
    counts = dict.fromkeys(outcomes, 0)
    for crops in sample_batches(Config(batch_size=128), 1, 0, 64):
        for view in (gather_batch(one.train, one, crops)[0] * 255).round().to(torch.uint8):
            counts[view.contiguous().numpy().tobytes()] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 0.001


@pytest.mark.parametrize(("side", "std"), [(32, [0.3, 0.2, 0.7]), (28, [1.0])], ids=["CIFAR-10", "MNIST"])
def test_a_batch_is_its_images_normalized_padded_cropped_and_flipped(side: int, std: list[float]):
    """To the bit: the padding is zero after the normalization."""
    images = random_images(20, side, len(std))
    some = replace(as_data(images, np.random.default_rng(1).random(images.shape[1:])), std=torch.tensor(std))
    crops = sample_batches(Config(batch_size=64), 20, 0, 1)[0]
    views, labels = gather_batch(some.train, some, crops)
    assert views.is_contiguous(memory_format=torch.channels_last) and torch.equal(labels, crops[0].long() % 10)
    normalized = (torch.from_numpy(images) / 255 - unpad(some, some.mean)) / some.std
    padded = F.pad(normalized.permute(0, 3, 1, 2), (4, 4, 4, 4))
    for view, (image, top, left, flipped) in zip(views, crops.T.tolist(), strict=True):
        crop = padded[image, :, top : top + side, left : left + side]
        assert torch.equal(view, crop.flip(2) if flipped else crop)


def test_images_without_augmentation_and_in_testing_are_unchanged():
    images, mean_HWC = random_images(64), np.random.default_rng(1).random((32, 32, 3))
    some = as_data(images, mean_HWC)
    assert torch.equal(unpad(some, some.train.pixels), torch.from_numpy(images))
    expected = torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.from_numpy(mean_HWC).float().permute(2, 0, 1)
    views, labels = gather_batch(some.test, some, center_crops(10, 40, CPU.torch_device))
    assert torch.equal(views, expected[10:40]) and torch.equal(labels, torch.arange(10, 40) % 10)
    crops = sample_batches(Config(batch_size=32, augment=False), 64, 0, 1)[0]
    assert torch.equal(gather_batch(some.train, some, crops)[0], expected[crops[0]])


# Normalization and validation split -----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["full", "val"])
def test_the_mean_is_that_of_the_training_images_alone(synthetic_folder: Path, split: str):
    loaded = load_data(replace(QUICK, split=split), synthetic_folder, CPU.torch_device)
    (images, labels, _, _), _ = read_dataset("synthetic", synthetic_folder)
    kept = ~validation_mask(labels, QUICK.seed) if split == "val" else slice(None)
    np.testing.assert_allclose(unpad(loaded, loaded.mean)[0], (images[kept] / 255).mean(0), atol=1e-6)
    assert loaded.mean.view(40, 40, 3)[:4].abs().max() == 0
    sizes = len(loaded.train), 0 if loaded.validation is None else len(loaded.validation), len(loaded.test)
    assert sizes == ((1_800, 200, 200) if split == "val" else (2_000, 0, 200))


@pytest.mark.parametrize("normalization", ["channel-mean", "channel-mean-std"])
def test_normalization_by_channel(synthetic_folder: Path, normalization: str):
    loaded = load_data(replace(QUICK, normalization=normalization), synthetic_folder, CPU.torch_device)
    views = gather_batch(loaded.train, loaded, center_crops(0, len(loaded.train), CPU.torch_device))[0]
    torch.testing.assert_close(views.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    expected = torch.ones(3) if normalization.endswith("std") else views.std((0, 2, 3))
    torch.testing.assert_close(views.std((0, 2, 3)), expected, atol=1e-4, rtol=0)
    assert torch.equal(loaded.std, torch.ones(3)) == (normalization == "channel-mean")


def test_constant_images_cannot_be_divided_by_their_standard_deviation():
    with pytest.raises(UserError, match="constant channel"):
        sampling.normalization_statistics(np.full((5, 32, 32, 3), 200, dtype=np.uint8), "channel-mean-std")


def test_the_validation_split_is_stratified_and_depends_on_the_seed():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))
    mask = validation_mask(labels, 0)
    assert np.array_equal(np.bincount(labels[mask]), np.full(10, 50))
    assert np.array_equal(mask, validation_mask(labels, 0)) and not np.array_equal(mask, validation_mask(labels, 1))
