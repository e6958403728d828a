"""Image folders: their layout, the key of a run, reading, and a run from training to prediction."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from experiments import sweep
from reproduce import checkpoints, cli, evaluate, export, image_folder, predict, record, run
from reproduce.dataset import generate_stripes
from reproduce.errors import UserError
from reproduce.image_folder import describe_image_folder, read_image_folder
from reproduce.randomness import random_generator
from reproduce.sampling import load_data
from tests.conftest import CPU, unpad

FLAGS = "--depth 8 --batch-size 8 --iterations 12 --device cpu --data photos".split()
CLASSES = ("cat", "dog", "owl")


def write_images(folder: Path, names: Sequence[str], train: int = 6, test: int = 3):
    """Write `train` and `test` images per class, 40 x 50 pixels, of the synthetic dataset's stripes."""
    for part, count in (("train", train), ("test", test)):
        images, labels = generate_stripes(random_generator(0, 4), 10 * count)
        for label, name in enumerate(names):
            (folder / part / name).mkdir(parents=True)
            for number, image in enumerate(images[labels == label % 10]):
                Image.fromarray(image).resize((40, 50)).save(folder / part / name / f"{number}.png")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "photos"
    write_images(folder, CLASSES)
    return folder


@pytest.fixture
def photos(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of an image folder with three classes, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original, "photos")
    describe_image_folder.cache_clear()
    yield Path("photos")
    describe_image_folder.cache_clear()


def test_an_image_folder_is_read_in_order_and_upright(photos: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate clockwise
    with Image.open(photos / "train/dog/2.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(photos / "train/dog/2.png", exif=exif.tobytes())
    config = run.parse(FLAGS)[0]
    assert (config.dataset, config.dataset_info.class_names, len(config.pictures)) == ("pictures", CLASSES, 64)
    data = load_data(config, photos, CPU.torch_device)
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert data.test.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    for path, images, position in (("train/dog/2.png", data.train, 8), ("test/owl/0.png", data.test, 6)):
        seen = (predict.load_input(photos / path, config.dataset_info)[0] * 255).round().byte()
        assert torch.equal(unpad(data, images.pixels)[position].permute(2, 0, 1), seen)


@pytest.mark.parametrize(
    "edit",
    [
        lambda photos: (photos / "train/cat/0.png").rename(photos / "train/dog/00.png"),
        lambda photos: (photos / "test/cat/0.png").write_bytes((photos / "test/cat/1.png").read_bytes()),
        lambda photos: [(photos / part / "cat").rename(photos / part / "lynx") for part in ("train", "test")],
    ],
    ids=["moved to another class", "changed", "class renamed"],
)
def test_other_images_are_another_run(photos: Path, edit: Callable[[Path], Any]):
    before = run.parse(FLAGS)[0]
    assert before == run.parse(FLAGS)[0] and replace(before, seed=1).key == before.key
    edit(photos)
    describe_image_folder.cache_clear()
    assert run.parse(FLAGS)[0].key != before.key


def test_hidden_files_are_skipped(photos: Path):
    fields, before = describe_image_folder(photos), read_image_folder(photos, CLASSES, 32)
    for name in ("train/cat/._0.png", "train/cat/.thumbnails/1.png", "train/.ipynb_checkpoints/0.png"):
        (photos / name).parent.mkdir(exist_ok=True)
        shutil.copy(photos / "train/dog/0.png", photos / name)
    describe_image_folder.cache_clear()
    assert describe_image_folder(photos) == fields
    assert all(np.array_equal(*pair) for pair in zip(read_image_folder(photos, CLASSES, 32), before, strict=True))


def test_a_sweep_accepts_an_image_folder(photos: Path):
    configs = sweep.list_runs(sweep.parse(["degradation", "--data", "photos", "--seeds", "1"]))
    assert {(config.dataset, config.classes) for config in configs} == {("pictures", "cat/dog/owl")}


def test_a_run_from_training_to_prediction(photos: Path, capsys: pytest.CaptureFixture[str]):
    assert run.main(FLAGS) == 0
    (folder,) = Path("runs").glob("*/seed0")
    config, (session,) = record.read_config(folder), json.loads((folder / "environment.json").read_text())
    assert config is not None and config.classes == "cat/dog/owl"
    about = {"name": "pictures", "classes": list(CLASSES), "images": 18, "test_images": 9}
    assert {name: session["data"][name] for name in about} == about
    assert session["command"].endswith("--data DIR") and "photos" not in json.dumps(session)
    assert export.main([str(folder), "--output", "net.safetensors"]) == 0
    card = Path("net.md").read_text()
    assert "cat, dog, owl" in card and config.pictures not in card
    capsys.readouterr()
    assert predict.main(["net.safetensors", "photos/test/owl/0.png"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in CLASSES)
    errors = set()
    for source in ("net.safetensors", str(folder)):
        assert evaluate.main([source, "--data", "photos", "--device", "cpu"]) == 0
        errors.add(capsys.readouterr().out.split("test error ")[1].split("%")[0])
    assert errors == {f"{json.loads((folder / 'result.json').read_text())['test_error']:.2f}"}
    write_images(Path("elsewhere"), ("cat", "owl"), 1, 1)
    with pytest.raises(UserError, match="got cat, owl in .*elsewhere"):
        evaluate.main(["net.safetensors", "--data", "elsewhere", "--device", "cpu"])
    with pytest.raises(UserError, match="add --data DIR"):
        evaluate.main(["net.safetensors", "--device", "cpu"])


def test_more_than_ten_classes(photos: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(photos)
    write_images(photos, tuple(f"kind {number:02}" for number in range(12)), 2, 1)
    assert run.main([*FLAGS, "--lr", "0.01"]) == 0
    (folder,) = Path("runs").glob("*/seed0")
    assert torch.load(folder / checkpoints.NEWEST)["network"]["linear.bias"].shape == (12,)
    assert run.main([*FLAGS, "--lr", "0.01"]) == 0, "the finished record is valid"
    assert evaluate.main([str(folder), "--data", "photos", "--device", "cpu"]) == 0
    assert "kind 11" in capsys.readouterr().out


def test_the_file_types_are_torchvisions():
    assert image_folder.EXTENSIONS == IMG_EXTENSIONS


def test_only_files_are_read_as_images(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "pipe.png", tmp_path / "missing.png"):
        with pytest.raises(UserError, match="no such file"):
            image_folder.read_image(path, 32, 3)


# Broken folders -------------------------------------------------------------------------------------------------------


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated image": (
        lambda photos: (photos / "train/cat/3.png").write_bytes((photos / "train/cat/3.png").read_bytes()[:900]),
        "photos/train/cat/3.png cannot be read as an image (OSError)",
    ),
    "16 bits per channel": (
        lambda photos: Image.fromarray(np.zeros((40, 50), np.uint16)).save(photos / "test/owl/1.png"),
        "photos/test/owl/1.png has more than 8 bits per channel (mode I;16): convert it to 8 bits",
    ),
    "links to itself": (
        lambda photos: (photos / "train/cat/more").symlink_to("."),
        "photos/train/cat/more links to a folder whose images have been read: remove the link",
    ),
    "empty class": (
        lambda photos: [path.unlink() for path in (photos / "train/dog").iterdir()],
        "photos/train/dog contains no images",
    ),
    "class name not in UTF-8": (
        lambda photos: [(photos / part / "owl").rename(photos / part / "\udce9") for part in ("train", "test")],
        "photos has the class '\\udce9': rename it to printable UTF-8 without line breaks",
    ),
    "no test images": (
        lambda photos: shutil.rmtree(photos / "test/owl"),
        "photos needs every class in both train and test: owl is in only one",
    ),
    "no test folder": (
        lambda photos: shutil.rmtree(photos / "test"),
        "photos has no subfolder test: put the images into train/CLASS/ and test/CLASS/",
    ),
    "one class": (
        lambda photos: [shutil.rmtree(photos / part / name) for part in ("train", "test") for name in ("dog", "owl")],
        "photos/train must contain a subfolder for each of at least two classes, got 1",
    ),
    "file of another type": (
        lambda photos: (photos / "train/cat/0.png").rename(photos / "train/cat/0.heic"),
        "photos/train/cat/0.heic is not an image file (.jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp): convert or remove it",
    ),
    "too few for a validation split": (
        lambda photos: None,
        "--split val needs a class of at least 10 training images in photos",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_folder_is_refused_in_one_sentence_and_nothing_is_written(
    photos: Path, capsys: pytest.CaptureFixture[str], kind: str
):
    break_folder, sentence = BROKEN[kind]
    break_folder(photos)
    before = sorted(Path().rglob("*"))
    assert cli.run_cli(run.main, [*FLAGS, *(["--split", "val"] if "validation" in kind else [])]) == 2
    out, err = capsys.readouterr()
    assert (out, err.replace(f"{Path().resolve()}/", "")) == ("", f"error: {sentence}\n")
    assert sorted(Path().rglob("*")) == before
