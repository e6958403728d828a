"""The data set, the mean, the split, and batches as a pure function of (seed, iteration)."""

import gzip
import hashlib
import io
import lzma
import os
import pickle
import socket
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision import transforms
from torchvision.datasets import CIFAR10

from reproduce import run, sampling
from reproduce.config import Config
from reproduce.dataset import DATASETS
from reproduce.errors import UserError
from reproduce.sampling import (
    Data,
    Images,
    center_crops,
    gather_batch,
    load_data,
    sample_batches,
    sample_batches_cached,
    to_device,
    validation_mask,
)
from tests.conftest import CPU, QUICK, REAL_DATA


def as_data(images_NHWC: np.ndarray, mean_HWC: np.ndarray | None = None) -> Data:
    """A Data of these uint8 images alone, the m-th with label m % 10."""
    images = to_device(images_NHWC, np.arange(len(images_NHWC)) % 10, CPU.torch_device)
    mean = np.zeros((32, 32, 3)) if mean_HWC is None else mean_HWC
    return Data(
        images, None, images, torch.from_numpy(sampling.pad_images(mean[None]).reshape(-1, 3)).float(), torch.ones(3), ""
    )


def random_images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


# Order ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [100, 128, 1000])
def test_every_permutation_holds_each_image_once(count: int):
    stream = sample_batches(Config(batch_size=32), count, 0, 3 * count)[:, 0].flatten()
    for start in range(0, len(stream) - count, count):
        assert torch.equal(stream[start : start + count].sort().values.long(), torch.arange(count))
    assert not torch.equal(stream[:count], stream[count : 2 * count])
    assert not torch.equal(stream[:count], torch.arange(count))


def test_dropping_the_last_batch_gives_whole_batches_of_each_permutation():
    stream = sample_batches(Config(batch_size=32, last_batch="drop"), 100, 0, 30)[:, 0].reshape(10, 96)
    assert all(len(permutation.unique()) == 96 for permutation in stream)


def test_batches_larger_than_the_set_are_refused_before_training(
    workplace: Path, synthetic_folder: Path, capsys: pytest.CaptureFixture[str]
):
    flags = "--depth 8 --iterations 2 --last-batch drop --data synthetic --device cpu --batch-size".split()
    assert run.main([*flags, "2001"]) == 2
    sentence = "batch-size must be at most 2000, the training images, where the last batch is dropped, not 2001"
    assert capsys.readouterr().err == f"error: {sentence}\n"
    assert not (workplace / "runs").exists()
    dropping = Config(batch_size=1801, last_batch="drop", split="val", dataset="synthetic")
    with pytest.raises(UserError, match="at most 1800"):
        load_data(dropping, synthetic_folder, CPU.torch_device)
    assert len(load_data(replace(dropping, batch_size=1800), synthetic_folder, CPU.torch_device).train) == 1800
    assert len(load_data(replace(dropping, last_batch="stream"), synthetic_folder, CPU.torch_device).train) == 1800


def test_a_plan_depends_on_seed_and_iteration_alone():
    config = Config(batch_size=48)
    whole = sample_batches(config, 1000, 0, 60)
    pieces = [sample_batches(config, 1000, start, stop) for start, stop in ((0, 1), (1, 20), (20, 41), (41, 60))]
    assert torch.equal(torch.cat(pieces), whole)
    assert not torch.equal(sample_batches(replace(config, seed=1), 1000, 0, 60)[:, 0], whole[:, 0])
    assert not torch.equal(sample_batches(replace(config, seed=1), 1000, 0, 60)[:, 1:], whole[:, 1:])


@pytest.mark.parametrize("batch_size", [31, 128])
def test_crops_and_flips_are_drawn_anew_for_each_iteration(batch_size: int):
    for iteration, row in enumerate(sample_batches(Config(batch_size=batch_size, seed=3), 1000, 7, 12), start=7):
        generator = sampling.random_generator(3, sampling.AUGMENTATION, iteration)
        assert np.array_equal(row[1:3], generator.integers(0, 9, (2, batch_size)))
        assert np.array_equal(row[3], generator.integers(0, 2, batch_size))


def test_nets_that_train_on_the_same_batches_share_their_plan():
    config = Config(depth=20, batch_size=16)
    one = sample_batches_cached(config, 100, 0, 5)
    assert torch.equal(one, sample_batches(config, 100, 0, 5))
    assert (
        sample_batches_cached(replace(config, depth=56, residual=False, precision="bf16", optimizer="adam"), 100, 0, 5) is one
    )
    others: list[dict[str, Any]] = [{"seed": 1}, {"augment": False}, {"last_batch": "drop"}, {"batch_size": 32}]
    for change in others:
        other = replace(config, **change)
        assert torch.equal(sample_batches_cached(other, 100, 0, 5), sample_batches(other, 100, 0, 5))
        assert not torch.equal(sample_batches_cached(other, 100, 20, 25), sample_batches_cached(config, 100, 20, 25))
    assert torch.equal(sample_batches_cached(config, 90, 0, 5), sample_batches(config, 90, 0, 5))
    assert torch.equal(sample_batches_cached(config, 100, 5, 10), sample_batches(config, 100, 5, 10))


def test_a_plan_is_what_it_always_was():
    digest = hashlib.sha256(sample_batches(Config(), 50_000, 389, 393).long().numpy().tobytes()).hexdigest()
    assert digest[:16] == GOLDEN_PLAN, (
        "batches are no longer the ones that the records were made with: if numpy changed its generators, pin numpy; "
        "if the change is wanted, raise config.SCHEMA and put the new digest here"
    )


GOLDEN_PLAN = "879c33caed949499"


# Crops and flips ------------------------------------------------------------------------------------------------------


def test_each_image_of_a_batch_has_its_own_crop_and_flip():
    rows = sample_batches(Config(), 50_000, 0, 20)
    for row in rows:
        assert len(torch.unique(row[1:].T, dim=0)) > 60  # of 128 draws from 162 possibilities, 88 differ on average


def test_crops_and_flips_are_distributed_as_torchvisions():
    position = np.zeros((32, 32, 3), dtype=np.uint8)
    position[..., 0], position[..., 1], position[..., 2] = np.arange(1, 33)[:, None], np.arange(1, 33), 77
    one = as_data(position[None])
    theirs = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
    torch.manual_seed(0)
    picture = torch.from_numpy(position).permute(2, 0, 1)
    outcomes = {theirs(picture).numpy().tobytes() for _ in range(3000)}
    assert len(outcomes) == 9 * 9 * 2
    rows = sample_batches(Config(batch_size=128), 1, 0, 64)
    counts = dict.fromkeys(outcomes, 0)
    for row in rows:
        views, _ = gather_batch(one.train, one, row)
        for view in (views * 255).round().to(torch.uint8):
            counts[view.contiguous().numpy().tobytes()] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 0.001


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_a_batch_is_its_images_scaled_padded_cropped_and_mirrored(kind: torch.dtype):
    """To the bit, and with the same memory layout whatever integers describe it."""
    images, generator = random_images(20), np.random.default_rng(1)
    some = replace(as_data(images, generator.random((32, 32, 3))), std=torch.tensor([0.3, 0.2, 0.7]))
    rows = sample_batches(Config(batch_size=64), 20, 0, 1)[0]
    views, labels = gather_batch(some.train, some, rows.to(kind))
    assert views.is_contiguous(memory_format=torch.channels_last) and labels.dtype == torch.int64
    scaled = (torch.from_numpy(images) / 255 - some.unpad(some.mean)) / some.std
    padded = torch.nn.functional.pad(scaled.permute(0, 3, 1, 2), (4, 4, 4, 4))
    for view, (image, top, left, mirrored) in zip(views, rows.T.tolist(), strict=True):
        crop = padded[image, :, top : top + 32, left : left + 32]
        assert torch.equal(view, crop.flip(2) if mirrored else crop)


def test_images_are_kept_as_they_are():
    images = random_images(3)
    some = as_data(images)
    kept = some.train
    assert torch.equal(some.unpad(kept.positions), torch.from_numpy(images))
    assert kept.positions.shape == (3 * 1600, 4) and kept.positions.sum() == images.sum(dtype=np.int64)


def test_padding_equals_the_mean():
    mean_HWC = np.random.default_rng(0).random((32, 32, 3))
    one = as_data(np.full((1, 32, 32, 3), 200, dtype=np.uint8), mean_HWC)
    rows = torch.tensor([[0], [0], [8], [0]])  # the top 4 lines and the right 4 columns are padding
    view = gather_batch(one.train, one, rows)[0][0]
    assert not view[:, :4].any() and not view[:, :, -4:].any()
    expected = 200 / 255 - torch.from_numpy(mean_HWC).float().permute(2, 0, 1)
    torch.testing.assert_close(view[:, 4:, :-4], expected[:, :28, 4:])


def test_a_batch_has_the_labels_of_its_images():
    ten = as_data(np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), dtype=np.uint8))
    for row in sample_batches(Config(batch_size=16), 10, 0, 5):
        views, labels = gather_batch(ten.train, ten, row)
        assert torch.equal(views.amax((1, 2, 3)).mul(255).round().long(), labels)


def test_without_augmentation_and_in_testing_images_are_untouched():
    images = random_images(64)
    mean_HWC = np.random.default_rng(1).random((32, 32, 3))
    some = as_data(images, mean_HWC)
    expected = torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.from_numpy(mean_HWC).float().permute(2, 0, 1)
    views, labels = gather_batch(some.test, some, center_crops(10, 40, CPU.torch_device))
    assert torch.equal(views, expected[10:40])
    assert torch.equal(labels, torch.arange(10, 40) % 10)
    row = sample_batches(Config(batch_size=32, augment=False), 64, 0, 1)[0]
    assert torch.equal(gather_batch(some.train, some, row)[0], expected[row[0]])


# Mean and split -------------------------------------------------------------------------------------------------------


def test_the_mean_is_that_of_the_training_images_alone(synthetic_folder: Path):
    train, test = (sampling.Synthetic(synthetic_folder, train=train).data for train in (True, False))
    loaded = load_data(QUICK, synthetic_folder, CPU.torch_device)
    middle = loaded.mean.view(40, 40, 3)[4:-4, 4:-4]
    np.testing.assert_allclose(middle, (train / 255).mean(0), atol=1e-6)
    assert not np.allclose(middle, (np.concatenate([train, test]) / 255).mean(0), atol=1e-6)
    assert loaded.mean.view(40, 40, 3)[:4].abs().max() == 0


def test_the_mean_of_a_split_leaves_the_held_out_images_out(synthetic_folder: Path):
    config = replace(QUICK, split="val")
    loaded = load_data(config, synthetic_folder, CPU.torch_device)
    train = sampling.Synthetic(synthetic_folder, train=True)
    kept = ~validation_mask(np.array(train.targets), config.seed)
    np.testing.assert_allclose(loaded.mean.view(40, 40, 3)[4:-4, 4:-4], (train.data[kept] / 255).mean(0), atol=1e-6)
    assert loaded.validation is not None and len(loaded.train) == 1_800 and len(loaded.validation) == 200


@pytest.mark.parametrize("normalization", ["channel-mean", "channel-mean-std"])
def test_normalization_by_channel(synthetic_folder: Path, normalization: str):
    loaded = load_data(replace(QUICK, normalization=normalization), synthetic_folder, CPU.torch_device)
    views = gather_batch(loaded.train, loaded, center_crops(0, len(loaded.train), CPU.torch_device))[0]
    torch.testing.assert_close(views.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    expected = torch.ones(3) if normalization.endswith("std") else views.std((0, 2, 3))
    torch.testing.assert_close(views.std((0, 2, 3)), expected, atol=1e-4, rtol=0)
    assert torch.equal(loaded.std, torch.ones(3)) == (normalization == "channel-mean")


def test_the_split_is_stratified_disjoint_and_the_seeds():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))
    mask = validation_mask(labels, 0)
    assert np.array_equal(np.bincount(labels[mask]), np.full(10, 50))
    assert np.array_equal(mask, validation_mask(labels, 0))
    assert not np.array_equal(mask, validation_mask(labels, 1))


# The set itself -------------------------------------------------------------------------------------------------------


def test_the_real_set(cifar10_folder: Path):
    loaded = load_data(Config(split="val"), cifar10_folder, CPU.torch_device)
    assert loaded.validation is not None
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (45_000, 5_000, 10_000)
    for part, count in ((loaded.train, 4_500), (loaded.validation, 500), (loaded.test, 1_000)):
        assert torch.equal(part.labels.bincount(), torch.full((10,), count))
    # Known means of the 50k training images by channel; those of the 45k differ in the fourth digit.
    means = loaded.mean.view(40, 40, 3)[4:-4, 4:-4].mean((0, 1))
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]), atol=1e-3, rtol=0)


def test_the_synthetic_set_is_made_once_and_has_ten_classes(tmp_path: Path):
    first = load_data(QUICK, tmp_path / "set", CPU.torch_device)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    again = load_data(QUICK, tmp_path / "set", CPU.torch_device)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    assert first.fingerprint == again.fingerprint == sampling.SYNTHETIC_FINGERPRINT, (
        "the generated set is no longer the one that records were made with: if numpy changed its generators, pin numpy; "
        "if the change is wanted, put the new fingerprint into data.py"
    )
    assert torch.equal(first.train.labels.bincount(), torch.full((10,), 1_000))
    assert first.test.labels.bincount().min() == 200


class Executes:
    """What makes a folder when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def in_arrays(images: np.ndarray, labels: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, train_images=images, train_labels=labels, test_images=images[:10], test_labels=labels[:10])
    return content.getvalue()


IMAGES, LABELS = np.zeros((50, 32, 32, 3), dtype=np.uint8), np.arange(50) % 10
BAD_SETS: dict[str, Callable[[bytes, Path], bytes]] = {
    "a pickle": lambda content, marker: pickle.dumps(Executes(marker)),
    "a pickle in an array": lambda content, marker: in_arrays(np.array([Executes(marker)] * 50), LABELS),
    "cut off": lambda content, marker: content[:-100],
    "empty": lambda content, marker: b"",
    "a flipped bit": lambda content, marker: content[:9000] + bytes([content[9000] ^ 1]) + content[9001:],
    "one array": lambda content, marker: content[content.index(b"\x93NUMPY") :],
    "another set": lambda content, marker: in_arrays(IMAGES, LABELS),
    "images of another shape": lambda content, marker: in_arrays(IMAGES[:, :16], LABELS),
    "labels of another kind": lambda content, marker: in_arrays(IMAGES, LABELS / 2),
    "labels of more classes": lambda content, marker: in_arrays(IMAGES, LABELS + 1),
    "fewer labels": lambda content, marker: in_arrays(IMAGES, LABELS[:40]),
}


@pytest.mark.parametrize("bad", BAD_SETS)
def test_a_bad_generated_set_is_made_anew_and_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str):
    write = sampling.write_synthetic
    monkeypatch.setattr(sampling, "write_synthetic", lambda folder: write(folder, train=50, test=10))
    first = load_data(QUICK, tmp_path, CPU.torch_device)
    monkeypatch.setattr(sampling, "SYNTHETIC_SIZES", (50, 10))
    monkeypatch.setattr(sampling, "SYNTHETIC_FINGERPRINT", first.fingerprint)
    (path,) = (tmp_path / CIFAR10.base_folder).iterdir()
    path.write_bytes(BAD_SETS[bad](path.read_bytes(), tmp_path / "executed"))
    (path.parent / "data_batch_1").write_bytes(pickle.dumps(Executes(tmp_path / "executed")))
    assert load_data(QUICK, tmp_path, CPU.torch_device).fingerprint == first.fingerprint
    assert not (tmp_path / "executed").exists()
    time = path.stat().st_mtime_ns
    load_data(QUICK, tmp_path, CPU.torch_device)
    assert path.stat().st_mtime_ns == time


def test_a_set_that_this_numpy_generates_otherwise_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = sampling.write_synthetic
    monkeypatch.setattr(sampling, "write_synthetic", lambda folder: write(folder, train=50, test=10))
    monkeypatch.setattr(sampling, "SYNTHETIC_SIZES", (50, 10))
    assert len(load_data(QUICK, tmp_path, CPU.torch_device).train) == 50


def test_the_generated_set_is_one_of_torchvisions(synthetic_folder: Path):
    images = sampling.Synthetic(synthetic_folder, train=False, transform=transforms.ToTensor())
    loaded = load_data(QUICK, synthetic_folder, CPU.torch_device)
    assert len(images) == len(loaded.test) == 200
    picture, label = images[7]
    assert torch.equal((255 * picture).round().byte(), loaded.unpad(loaded.test.positions)[7].permute(2, 0, 1))
    assert label == loaded.test.labels[7]


def write_archive(folder: Path):
    """An official-looking archive of tiny files."""
    source = folder / "source" / CIFAR10.base_folder
    source.mkdir(parents=True)
    rows = random_images(10).reshape(10, -1)
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]:
        (source / name).write_bytes(pickle.dumps({"data": rows, "labels": list(range(10))}))
    (source / CIFAR10.meta["filename"]).write_bytes(pickle.dumps({"label_names": DATASETS["cifar10"].class_names}))
    with tarfile.open(folder / CIFAR10.filename, "w:gz") as archive:
        archive.add(source, CIFAR10.base_folder)
    return source


def expect(source: Path, monkeypatch: pytest.MonkeyPatch):
    """Tells torchvision that these files and their archive, two folders above, are CIFAR-10, and forbids the network."""

    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest()

    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(source.parents[1] / CIFAR10.filename))
    for attribute in ("train_list", "test_list"):
        entries = [[name, md5(source / name)] for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, entries)
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(source / "batches.meta")})
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", forbid_network)


def test_an_archive_beside_is_unpacked_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expect(write_archive(tmp_path), monkeypatch)
    assert len(load_data(Config(), tmp_path, CPU.torch_device).train) == 50
    assert pickle.loads((tmp_path / CIFAR10.base_folder / "test_batch").read_bytes())["data"].shape == (10, 3072)


def forbid_network(*_: object):
    raise OSError("no network")


def test_a_missing_set_without_network_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", forbid_network)
    with pytest.raises(UserError) as caught:
        load_data(Config(), tmp_path / "deep" / "folder", CPU.torch_device)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", str(tmp_path / "deep" / "folder")):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def damage(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", [["data_batch_3"], ["batches.meta", "test_batch"], [CIFAR10.filename]])
def test_a_damaged_set_is_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: list[str]):
    expect(write_archive(tmp_path), monkeypatch)
    if damaged != [CIFAR10.filename]:
        load_data(Config(), tmp_path, CPU.torch_device)
        (tmp_path / CIFAR10.filename).unlink()
    paths = [next(tmp_path.glob(name) if name == CIFAR10.filename else tmp_path.glob(f"cifar*/{name}")) for name in damaged]
    for path in paths:
        damage(path)
    with pytest.raises(UserError) as caught:
        load_data(Config(), tmp_path, CPU.torch_device)
    message = str(caught.value)
    assert "\n" not in message and "and could not be downloaded" in message
    inside = message.partition("is damaged (")[2].partition(")")[0]
    assert sorted(inside.split(", ")) == sorted(map(str, paths))


def test_a_damaged_file_is_replaced_from_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expect(write_archive(tmp_path), monkeypatch)
    first = load_data(Config(), tmp_path, CPU.torch_device)
    damage(tmp_path / CIFAR10.base_folder / "data_batch_3")
    assert load_data(Config(), tmp_path, CPU.torch_device).fingerprint == first.fingerprint


def test_the_folder_of_the_files_themselves_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expect(write_archive(tmp_path), monkeypatch)
    load_data(Config(), tmp_path, CPU.torch_device)
    (tmp_path / CIFAR10.filename).unlink()
    inner = tmp_path / CIFAR10.base_folder
    before = sorted(tmp_path.rglob("*"))
    assert len(load_data(Config(), sampling.find_data_folder(Config(), str(inner)), CPU.torch_device).train) == 50
    monkeypatch.chdir(inner)
    assert len(load_data(Config(), sampling.find_data_folder(Config(), "."), CPU.torch_device).train) == 50
    assert sorted(tmp_path.rglob("*")) == before
    assert sampling.find_data_folder(Config(), "elsewhere/cifar-10-batches-py") == Path("elsewhere/cifar-10-batches-py")


def test_a_download_leaves_the_processs_timeout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    during = []

    def note(*_: object, **__: object):
        during.append(socket.getdefaulttimeout())
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", note)
    with pytest.raises(UserError):
        load_data(Config(), tmp_path, CPU.torch_device)
    assert during == [30] and socket.getdefaulttimeout() is None


def test_ctrl_c_during_a_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object, **__: object):
        raise KeyboardInterrupt

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_data(Config(), tmp_path / "deep" / "folder", CPU.torch_device)
    assert list(tmp_path.iterdir()) == []


def test_images_know_their_number():
    assert len(Images(torch.zeros(3200, 4, dtype=torch.uint8), torch.zeros(2))) == 2


# MNIST ----------------------------------------------------------------------------------------------------------------

REAL_MNIST = REAL_DATA.with_name("MNIST")
MNIST_CONFIG = Config(dataset="mnist", family="lenet", normalization="none")


def write_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Official-looking archives of 50 training and 10 test images, which torchvision takes for MNIST; network forbidden.

    Returns: images and labels of all 60.
    """
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (60, 28, 28), dtype=np.uint8), np.arange(60, dtype=np.uint8) % 10
    raw, resources = folder / "MNIST" / "raw", []
    raw.mkdir(parents=True)
    for name in sampling.MNIST_FILES:
        array = (images if "images" in name else labels)[slice(50) if "train" in name else slice(50, 60)]
        kind = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        monkeypatch.setitem(sampling.MNIST_FILES, name, hashlib.md5(kind + array.tobytes()).hexdigest())
        archive = gzip.compress(kind + array.tobytes(), mtime=0)
        (raw / f"{name}.gz").write_bytes(archive)
        resources.append((f"{name}.gz", hashlib.md5(archive).hexdigest()))
    monkeypatch.setattr(sampling.MNIST, "resources", resources)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", forbid_network)
    return images, labels


def test_mnist_is_read_from_its_archives_and_gathered_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images, labels = write_mnist(tmp_path, monkeypatch)
    loaded = load_data(MNIST_CONFIG, tmp_path, CPU.torch_device)
    assert (len(loaded.train), len(loaded.test), loaded.side) == (50, 10, 28)
    row = sample_batches(replace(MNIST_CONFIG, augment=False, batch_size=20), 50, 0, 1)[0]
    views, found = gather_batch(loaded.train, loaded, row)
    assert torch.equal(views, torch.from_numpy(images[row[0]])[:, None] / 255)
    assert torch.equal(found, torch.from_numpy(labels[row[0]]).long())
    assert torch.equal(loaded.unpad(loaded.test.positions)[..., 0], torch.from_numpy(images[50:]))
    centred = load_data(replace(MNIST_CONFIG, normalization="pixel-mean"), tmp_path, CPU.torch_device)
    rows = sample_batches(replace(MNIST_CONFIG, batch_size=50), 50, 0, 4)
    for row in rows:
        views, _ = gather_batch(centred.train, centred, row)
        padded = np.pad(images[:50] / 255 - (images[:50] / 255).mean(0), ((0, 0), (4, 4), (4, 4)))
        for view, (image, top, left, mirrored) in zip(views[:, 0], row.T.tolist(), strict=True):
            crop = padded[image, top : top + 28, left : left + 28]
            np.testing.assert_allclose(view, crop[:, ::-1] if mirrored else crop, atol=1e-6)


def test_a_damaged_mnist_is_mended_from_its_archives_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_mnist(tmp_path, monkeypatch)
    first, raw = load_data(MNIST_CONFIG, tmp_path, CPU.torch_device).fingerprint, tmp_path / "MNIST" / "raw"
    before = {path: path.read_bytes() for path in raw.iterdir()}
    damage(raw / "t10k-images-idx3-ubyte")
    assert load_data(MNIST_CONFIG, tmp_path, CPU.torch_device).fingerprint == first
    assert before == {path: path.read_bytes() for path in raw.iterdir()}
    damage(raw / "train-labels-idx1-ubyte")
    (raw / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(UserError) as caught:
        load_data(MNIST_CONFIG, tmp_path, CPU.torch_device)
    message = str(caught.value)
    assert message.startswith(f"MNIST in {tmp_path} is damaged ({raw / 'train-labels-idx1-ubyte'}) and could not be downloaded")
    assert "\n" not in message and "its folder MNIST into" in message and ": :" not in message
    damage(raw / "train-labels-idx1-ubyte")  # back again: an archive is not needed for good files
    damage(raw / "train-images-idx3-ubyte.gz")
    assert load_data(MNIST_CONFIG, tmp_path, CPU.torch_device).fingerprint == first


def test_a_missing_mnist_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", forbid_network)
    with pytest.raises(
        UserError, match="MNIST is not in .* and could not be downloaded .*train-images-idx3-ubyte.gz"
    ) as caught:
        load_data(MNIST_CONFIG, tmp_path / "deep" / "folder", CPU.torch_device)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("named", "folder"), [("mnist", "data"), ("data", "data"), ("a/MNIST", "a"), ("a", "a"), ("MNIST/", ".")]
)
def test_mnist_is_where_data_says(named: str, folder: str):
    assert sampling.find_data_folder(MNIST_CONFIG, named).absolute() == Path(folder).absolute()


def test_the_real_mnist(tmp_path: Path):
    if not REAL_MNIST.is_dir():
        pytest.skip("the real MNIST is not at hand")
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for name in sampling.MNIST_FILES:
        (tmp_path / "MNIST" / "raw" / name).write_bytes(lzma.decompress((REAL_MNIST / f"{name}.xz").read_bytes()))
    loaded = load_data(MNIST_CONFIG, tmp_path, CPU.torch_device)
    assert (len(loaded.train), len(loaded.test)) == (60_000, 10_000)
    assert loaded.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    pixels = loaded.unpad(loaded.train.positions).float() / 255
    assert (round(float(pixels.mean()), 4), round(float(pixels.std()), 4)) == (0.1307, 0.3081)
