"""transfer.py on generated images: its image folders, its runs, and their section and figure."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from analysis.plot_transfer import draw
from analysis.questions.transfer import find_runs, format_paired, format_section
from analysis.records import load_records
from experiments import transfer
from reproduce import record
from reproduce.config import Config
from reproduce.dataset import read_dataset
from reproduce.errors import UserError
from tests.fake_records import SESSION, write_run

FLAGS = ["--data", "unused", "--work", "folders", "--out", "records", "--seeds", "1"]


@pytest.fixture
def images(workplace: Path, synthetic_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """A small experiment on generated images in place of CIFAR-10, which are returned."""
    arrays, fingerprint = read_dataset("synthetic", synthetic_folder)
    monkeypatch.setattr(transfer, "read_dataset", lambda *_: (arrays, fingerprint))
    monkeypatch.setattr(transfer, "IMAGES_PER_CLASS", (2, 5))
    monkeypatch.setattr(transfer, "RECIPE", ["--depth", "8", "--batch-size", "8", "--device", "cpu"])
    monkeypatch.setattr(transfer, "PRETRAINING_ITERATIONS", 3)
    monkeypatch.setattr(transfer, "ITERATIONS", 2)
    return arrays


def test_the_image_folders_and_the_runs(images: list[np.ndarray], capsys: pytest.CaptureFixture[str]):
    assert transfer.main(FLAGS) == 0
    train, train_labels, _, test_labels = images
    for part, labels in (("train", train_labels), ("test", test_labels)):
        for label, name in enumerate(transfer.PRETRAINING_CLASSES.split("/")):
            assert len(list(Path("folders/first", part, name).iterdir())) == (labels == label).sum()
    for count in (2, 5):
        for label, name in enumerate(transfer.NEW_CLASSES.split("/"), start=5):
            assert len(list(Path(f"folders/second-{count}-1/train", name).iterdir())) == count
            assert len(list(Path(f"folders/second-{count}-1/test", name).iterdir())) == (test_labels == label).sum()
    for path in Path("folders/second-5-1/train/horse").iterdir():
        with Image.open(path) as image:
            assert (train[train_labels == 7] == np.asarray(image)).all((1, 2, 3)).sum() == 1
    few, more = ({path.read_bytes() for path in Path(f"folders/second-{n}-1/train").rglob("*.ppm")} for n in (2, 5))
    assert few < more

    configs = [record.read_record(folder).config for folder in record.list_run_folders(Path("records"))]
    pretraining, *others = sorted(configs, key=lambda config: config.classes)
    weights = hashlib.sha256(Path("folders/first-seed1.safetensors").read_bytes()).hexdigest()
    assert (pretraining.classes, pretraining.initial, pretraining.iterations) == (transfer.PRETRAINING_CLASSES, "", 3)
    assert {(config.classes, config.iterations, config.seed) for config in others} == {(transfer.NEW_CLASSES, 2, 1)}
    assert len({config.pictures for config in others}) == 2
    ways = sorted((config.trainable, config.lr, config.initial == weights) for config in others)
    assert ways == sorted(2 * [("all", 0.01, True), ("all", 0.1, False), ("head", 0.1, True), ("last-stage", 0.01, True)])

    before = sorted(Path("records").rglob("*"))
    assert transfer.main(FLAGS) == 0
    assert sorted(Path("records").rglob("*")) == before
    Path("folders/first-seed1.safetensors").unlink()
    next(Path("records").glob(f"*{pretraining.key}/seed1/checkpoint.pt")).unlink()
    with pytest.raises(UserError, match=r"there is no .*checkpoint\.pt"):
        transfer.main(FLAGS)


def test_image_folders_are_complete_if_two_commands_write_them(images: list[np.ndarray]):
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda seed: transfer.write_image_folders(Path("folders"), "unused", [seed]), (0, 1, 2, 3)))
    _, train_labels, _, test_labels = images
    for part, labels in (("train", train_labels), ("test", test_labels)):
        assert len(list(Path("folders/first", part).rglob("*.ppm"))) == (labels < 5).sum()
    assert len(list(Path("folders/second-5-3/train").rglob("*.ppm"))) == 5 * 5


def test_a_stopped_run_stops_the_experiment(images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch):
    Path("folders/.first.unfinished/train/airplane").mkdir(parents=True)  # left by a killed process
    monkeypatch.setattr("reproduce.run.main", lambda line: 75)
    assert transfer.main(FLAGS) == 75 and not Path("folders/first-seed1.safetensors").exists()


# Results -----------------------------------------------------------------------------------------------------------------

FOUND = {("scratch", 50): 70.0, ("all", 50): 62.0, ("last-stage", 50): 60.0, ("head", 50): 58.0,
         ("scratch", 500): 50.0, ("all", 500): 45.0, ("last-stage", 500): 46.0, ("head", 500): 47.0}  # fmt: skip
"""Test errors by way and images per class."""


def write_found(records: Path, errors: dict[tuple[str, int], float], seeds: int = 3) -> pd.DataFrame:
    """Write such runs, whose errors differ by 0.1 between seeds, and return them as a data frame."""
    for (way, per_class), error in errors.items():
        for seed in range(seeds):
            pretrained: dict[str, Any] = {} if way == "scratch" else {"trainable": way, "initial": f"{seed:064}"}
            config = Config(
                depth=transfer.DEPTH,
                precision=transfer.PRECISION,
                iterations=transfer.ITERATIONS,
                dataset="pictures",
                classes=transfer.NEW_CLASSES,
                pictures=f"{per_class:03}{seed}" * 16,
                lr=transfer.METHODS[way],
                seed=seed,
                **pretrained,
            )
            folder = write_run(records, config, error + 0.1 * (seed - 1))
            session = SESSION | {"data": SESSION["data"] | {"name": "pictures", "images": 5 * per_class}}
            (folder / "environment.json").write_text(json.dumps([session]))
    return load_records(records)[0]


def test_gains_are_paired_by_seed(tmp_path: Path):
    runs = find_runs(write_found(tmp_path, FOUND))
    assert format_paired(runs, "scratch", "all", 50) == "+8.00 (+8.00 to +8.00)", "the seeds of both differ by the same amounts"
    assert format_paired(runs, "head", "all", 500) == "+2.00 (+2.00 to +2.00)"
    assert format_paired(runs[runs["seed"] < 2], "scratch", "all", 50) == "+8.00", "no interval from two seeds"
    again = runs[runs["method"] == "all"].assign(initial="f" * 64, test_error=lambda rows: rows["test_error"] + 2)
    assert format_paired(pd.concat([runs, again]), "scratch", "all", 50) == "+7.00 (+7.00 to +7.00)", "two runs of each seed"
    for change in ({"lr": 0.05}, {"batch_size": 64}, {"iterations": 300}, {"precision": "fp32"}, {"status": "unfinished"}):
        assert format_paired(find_runs(runs.assign(**change)), "scratch", "all", 50) == ""


def test_the_section_leaves_out_comparisons_that_have_no_runs_yet(tmp_path: Path):
    section = format_section(write_found(tmp_path, {("scratch", 50): 70.0, ("all", 50): 62.0}), pd.DataFrame())
    assert "is +8.00 (+8.00 to +8.00) points with 50 images per class. A ResNet-20 is pretrained" in section


def test_the_section_and_the_figure_show_every_configuration(tmp_path: Path):
    runs = write_found(tmp_path, FOUND)
    section = format_section(runs, pd.DataFrame())
    assert "| 50 | all, pretrained | 0.01 | 61.90 | 62.00 | 62.10 | 62.00 ± 0.10 (n=3) | +8.00 (+8.00 to +8.00) |" in section
    panels = draw(runs, runs).axes
    bars = [round(cast(Rectangle, bar).get_height(), 2) for axes in panels for bar in axes.patches]
    assert bars == list(FOUND.values())
    assert [np.size(dots.get_ydata()) for axes in panels for dots in axes.lines] == [3] * 8
    with pytest.raises(UserError, match="experiments/transfer.py"):
        draw(runs[:0], runs)
