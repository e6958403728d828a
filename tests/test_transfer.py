"""The transfer experiment on generated images in place of CIFAR-10: its folders of pictures, and what it trains on them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from analysis.plot_transfer import draw
from analysis.questions.transfer import find_runs, format_gain, format_paired, format_section
from analysis.records import load_records
from experiments import transfer
from reproduce import record, sampling
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.sampling import Data
from tests.fake_records import SESSION, write_run

DATA_FLAGS = ["--data", "unused", "--work", "sets", "--out", "records", "--seeds", "1"]


@pytest.fixture
def place(tmp_path: Path, synthetic: Data, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, in which the experiment is small, and generated images are CIFAR-10."""
    monkeypatch.chdir(tmp_path)
    load_records = sampling.load_data
    monkeypatch.setattr(
        sampling, "load_data", lambda config, *where: synthetic if config.dataset == "cifar10" else load_records(config, *where)
    )
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
    images = synthetic.unpad(synthetic.train.pixels)
    for folder in ("second-2-1", "second-5-1"):
        for path in Path("sets", folder, "train", "horse").iterdir():
            with Image.open(path) as image:
                seen = np.asarray(image)
            assert (images.numpy()[synthetic.train.labels == 7] == seen).all((1, 2, 3)).sum() == 1
    few, more = ({path.read_bytes() for path in Path("sets", f"second-{n}-1", "train").rglob("*.ppm")} for n in (2, 5))
    assert few < more, "the fewer pictures are among the more"
    file = hashlib.sha256(Path("sets/first-seed1.safetensors").read_bytes()).hexdigest()
    ended = [record.read_config(folder) for folder in record.list_run_folders(Path("records"))]
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


def test_what_was_broken_off_is_made_anew_and_lost_weights_are_told(place: Path):
    (place / "sets/.first.unfinished/train/airplane").mkdir(parents=True)
    assert transfer.main([*DATA_FLAGS, "--only-before"]) == 0
    Path("sets/first-seed1.safetensors").unlink()
    next(Path("records").glob("*/seed1/checkpoint.pt")).unlink()
    with pytest.raises(UserError, match=r"has ended and holds no checkpoint\.pt, so that nothing can begin with it"):
        transfer.main(DATA_FLAGS)


# What came of it --------------------------------------------------------------------------------------------------------

FOUND = {("scratch", 50): 70.0, ("all", 50): 62.0, ("last-stage", 50): 60.0, ("head", 50): 58.0,
         ("scratch", 500): 50.0, ("all", 500): 45.0, ("last-stage", 500): 46.0, ("head", 500): 47.0}  # fmt: skip
"""Test errors by way and images per class."""


def write_found(records: Path, errors: dict[tuple[str, int], float], seeds: int = 3) -> pd.DataFrame:
    """What records.load finds of such runs, whose seeds spread by 0.1."""
    for (way, per_class), error in errors.items():
        for seed in range(seeds):
            recipe = Config(
                depth=transfer.DEPTH,
                precision=transfer.PRECISION,
                iterations=transfer.LENGTH_AFTER,
                dataset="pictures",
                classes=transfer.SECOND,
                pictures=f"{per_class:03}{seed}" * 16,
                lr=transfer.WAYS[way],
                seed=seed,
            )
            begun: dict[str, Any] = {} if way == "scratch" else {"trainable": way, "initial": f"{seed:064}"}
            config = replace(recipe, **begun)
            folder = write_run(records, config, error + 0.1 * (seed - 1))
            session = SESSION | {"data": SESSION["data"] | {"name": "pictures", "images": 5 * per_class}}
            (folder / "environment.json").write_text(json.dumps([session]))
    return load_records(records)[0]


def test_gains_are_paired_by_seed(tmp_path: Path):
    runs = find_runs(write_found(tmp_path, FOUND))
    assert format_gain(runs, "all", 50) == "+8.00 (+8.00 to +8.00)", "the seeds of both differ by the same amounts"
    assert format_paired(runs, (1, "head", 500), (-1, "all", 500)) == "+2.00 (+2.00 to +2.00)"
    assert format_gain(runs[runs["seed"] < 2], "all", 50) == "+8.00", "no interval from two seeds"
    for change in ({"lr": 0.05}, {"batch_size": 64}, {"iterations": 300}, {"precision": "fp32"}, {"status": "unfinished"}):
        assert format_gain(find_runs(runs.assign(**change)), "all", 50) == ""


def test_the_section_and_the_figure_show_every_cell(tmp_path: Path):
    runs = write_found(tmp_path, FOUND)
    section = format_section(runs, pd.DataFrame())
    assert "| 50 | all, pretrained | 61.90 | 62.00 | 62.10 | 62.00 ± 0.10 (n=3) | +8.00 (+8.00 to +8.00) |" in section
    panels = draw(runs, runs).axes
    bars = [round(cast(Rectangle, bar).get_height(), 2) for axes in panels for bar in axes.patches]
    assert bars == list(FOUND.values())
    assert [np.size(dots.get_ydata()) for axes in panels for dots in axes.lines] == [3] * 8
    with pytest.raises(UserError, match="experiments/transfer.py"):
        draw(runs[:0], runs)
