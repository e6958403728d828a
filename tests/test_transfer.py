"""The transfer experiment on generated images in place of CIFAR-10: its folders of pictures, and what it trains on them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import transfer
from reproduce import data, record
from reproduce.data import Data

DATA_FLAGS = ["--data", "unused", "--work", "sets", "--out", "records", "--seeds", "1"]


@pytest.fixture
def place(tmp_path: Path, synthetic: Data, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, in which the experiment is small, and generated images are CIFAR-10."""
    monkeypatch.chdir(tmp_path)
    load = data.load
    monkeypatch.setattr(data, "load", lambda config, *where: synthetic if config.dataset == "cifar10" else load(config, *where))
    monkeypatch.setattr(transfer, "PICTURES", (2, 5))
    monkeypatch.setattr(transfer, "RECIPE", ["--depth", "8", "--batch-size", "8", "--device", "cpu"])
    monkeypatch.setattr(transfer, "LENGTH_BEFORE", 3)
    monkeypatch.setattr(transfer, "LENGTH_AFTER", 2)
    return tmp_path


def test_it_makes_its_sets_and_trains_each_way_from_what_was_learnt_before(
    place: Path, synthetic: Data, capsys: pytest.CaptureFixture[str]
):
    assert transfer.main(DATA_FLAGS) == 0
    counts = {
        folder.relative_to("sets").as_posix(): len(list(folder.glob("*.ppm")))
        for part in ("train", "test")
        for name in ("first", "second-2-1", "second-5-1")
        for folder in Path("sets", name, part).iterdir()
    }
    first, second = transfer.FIRST.split("/"), transfer.SECOND.split("/")
    trained = np.bincount(synthetic.train.labels, minlength=10)
    tested = np.bincount(synthetic.test.labels, minlength=10)
    expected = {f"first/{part}/{name}": int(count[i]) for i, name in enumerate(first)
                for part, count in (("train", trained), ("test", tested))}  # fmt: skip
    for pictures in (2, 5):
        expected |= {f"second-{pictures}-1/train/{name}": pictures for name in second}
        expected |= {f"second-{pictures}-1/test/{name}": int(tested[5 + i]) for i, name in enumerate(second)}
    assert counts == expected
    images = synthetic.unpad(synthetic.train.positions)
    for folder in ("second-2-1", "second-5-1"):
        for path in Path("sets", folder, "train", "horse").iterdir():
            with Image.open(path) as image:
                seen = np.asarray(image)
            assert (images.numpy()[synthetic.train.labels == 7] == seen).all((1, 2, 3)).sum() == 1
    few, more = ({path.read_bytes() for path in Path("sets", f"second-{n}-1", "train").rglob("*.ppm")} for n in (2, 5))
    assert few < more, "the fewer pictures are among the more"
    file = hashlib.sha256(Path("sets/first-seed1.safetensors").read_bytes()).hexdigest()
    ended = [record.read_config(folder) for folder in record.list_folders(Path("records"))]
    configs = [config for config in ended if config is not None and config.seed == 1]
    assert len(configs) == len(ended) == 9
    before, *after = sorted(configs, key=lambda config: config.classes)
    assert (before.classes, before.initial, before.iterations) == (transfer.FIRST, "", 3)
    assert all(config.classes == transfer.SECOND and config.iterations == 2 for config in after)
    assert len({config.pictures for config in after}) == 2
    ways = sorted((config.trainable, config.lr, config.initial == file) for config in after)
    each = [("all", 0.01, True), ("all", 0.1, False), ("head", 0.1, True), ("last-stage", 0.01, True)]
    assert ways == sorted(2 * each)
    capsys.readouterr()
    assert transfer.main(DATA_FLAGS) == 0
    assert capsys.readouterr().out.count("already ended, nothing to do") == 9


def test_a_run_that_stops_stops_all(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reproduce.run.run", lambda line: 75)
    assert transfer.main(DATA_FLAGS) == 75 and not Path("sets/first-seed1.safetensors").exists()
