"""Your own pictures: a folder in ImageFolder's layout as a data set, and what is wrong with one that is not."""

import glob
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from experiments import sweep
from reproduce import evaluate, export, image_folder, predict, record, run
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.sampling import generate_synthetic_images, load_data, random_generator
from tests.conftest import CPU

ROOT = Path(__file__).parents[1]
FLAGS = "--depth 8 --batch-size 8 --iterations 12 --device cpu --data photos".split()


def write_pictures(folder: Path, names: list[str], train: int = 6, test: int = 3):
    """So many pictures of each class, 40 x 50 pixels, of the generated set's stripes."""
    for part, count in (("train", train), ("test", test)):
        images, labels = generate_synthetic_images(random_generator(0, 4), 10 * count)
        for label, name in enumerate(names):
            (folder / part / name).mkdir(parents=True)
            for number, image in enumerate(images[labels == label % 10]):
                Image.fromarray(image).resize((40, 50)).save(folder / part / name / f"{number}.png")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "photos"
    write_pictures(folder, ["cat", "dog", "owl"])
    return folder


@pytest.fixture
def photos(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own with pictures of three classes, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original, "photos")
    image_folder.describe_image_folder.cache_clear()
    yield Path("photos")
    image_folder.describe_image_folder.cache_clear()


def test_pictures_become_a_data_set(photos: Path):
    """In the order of their classes and names, each as predict.py sees it, upright."""
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: turn it clockwise
    with Image.open(photos / "train/dog/2.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(photos / "train/dog/2.png", exif=turned.tobytes())
    (photos / "train/dog/.hidden").write_text("no picture")
    config = run.parse(FLAGS)[0]
    assert (config.dataset, config.classes) == ("pictures", "cat/dog/owl")
    assert config.dataset_info.class_names == ("cat", "dog", "owl") and len(config.pictures) == 64
    data = load_data(config, photos, CPU.torch_device)
    assert (
        data.train.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6 and data.test.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    )
    assert data.train.positions.dtype == torch.uint8
    for path, images, position in (("train/dog/2.png", data.train, 8), ("test/owl/0.png", data.test, 6)):
        seen = (predict.load_input(photos / path, config.dataset_info)[0] * 255).round().byte()
        assert torch.equal(data.unpad(images.positions)[position].permute(2, 0, 1), seen)


@pytest.mark.parametrize(
    "edit",
    [
        lambda photos: (photos / "train/cat/0.png").unlink(),
        lambda photos: (photos / "train/cat/0.png").rename(photos / "train/dog/00.png"),
        lambda photos: (photos / "test/cat/0.png").write_bytes((photos / "test/cat/1.png").read_bytes()),
        lambda photos: [(photos / part / "cat").rename(photos / part / "lynx") for part in ("train", "test")],
    ],
    ids=["one less", "another class", "another picture", "another name"],
)
def test_other_pictures_are_another_run(photos: Path, edit: Callable[[Path], Any]):
    before = run.parse(FLAGS)[0]
    assert before == run.parse(FLAGS)[0] and replace(before, seed=1).key == before.key
    edit(photos)
    image_folder.describe_image_folder.cache_clear()
    assert run.parse(FLAGS)[0].key != before.key


def test_what_is_hidden_is_no_picture(photos: Path):
    names = image_folder.describe_image_folder(photos)
    config = Config(dataset="pictures", classes=names["classes"], pictures=names["pictures"])
    before = image_folder.read_image_folder(config, photos)
    for name in ("train/cat/._0.png", "train/cat/.thumbnails/1.png", "train/.ipynb_checkpoints/0.png"):
        (photos / name).parent.mkdir(exist_ok=True)
        shutil.copy(photos / "train/dog/0.png", photos / name)
    image_folder.describe_image_folder.cache_clear()
    assert image_folder.describe_image_folder(photos) == names
    assert all(np.array_equal(*pair) for pair in zip(image_folder.read_image_folder(config, photos), before, strict=True))


def test_a_sweep_takes_a_folder_of_pictures(photos: Path):
    configs = sweep.list_runs(sweep.parse(["degradation", "--data", "photos", "--seeds", "1"]))
    assert {(config.dataset, config.classes) for config in configs} == {("pictures", "cat/dog/owl")}


def test_a_run_on_pictures_from_beginning_to_prediction(photos: Path, capsys: pytest.CaptureFixture[str]):
    assert run.main(FLAGS) == 0
    said = capsys.readouterr().out
    assert "; dataset pictures (the paper: cifar10)\n" in said and "own pictures in photos: 18 training, 9 test\n" in said
    (folder,) = Path("runs").glob("*/seed0")
    config, (session,) = record.read_config(folder), record.read_sessions(folder)
    assert config is not None and config.classes == "cat/dog/owl"
    about = {"name": "pictures", "classes": ["cat", "dog", "owl"], "images": 18, "test_images": 9}
    assert {name: session["data"][name] for name in about} == about
    assert session["command"].endswith("--data DIR") and "photos" not in json.dumps(session)
    assert record.read_record(folder, config).result is not None
    assert export.main([str(folder), "--format", "safetensors", "--output", "net.safetensors", "--data", "photos"]) == 0
    card = Path("net.md").read_text()
    assert "in 3 classes" in card and "own pictures (cat, dog, owl)" in card and config.pictures not in card
    capsys.readouterr()
    assert predict.main(["net.safetensors", "photos/test/owl/0.png"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in ("cat", "dog", "owl")) and said.count("%") == 3
    errors = []
    for source in ("net.safetensors", str(folder)):
        assert evaluate.main([source, "--data", "photos", "--device", "cpu", "--figures", "figures"]) == 0
        errors.append(capsys.readouterr().out.split("test error ")[1].split("%")[0])
    assert errors == [f"{(record.read_result(folder) or {})['test_error']:.2f}"] * 2
    Path("elsewhere").mkdir()
    write_pictures(Path("elsewhere"), ["cat", "owl"], 1, 1)
    with pytest.raises(UserError, match="elsewhere holds the classes cat, owl, and the network is of cat, dog, owl$"):
        evaluate.main(["net.safetensors", "--data", "elsewhere", "--device", "cpu"])
    with pytest.raises(UserError, match="data has no folder train: "):
        evaluate.main(["net.safetensors", "--device", "cpu"])


def test_the_commands_of_the_readme_go_from_photographs_to_predictions(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As printed there, but for the length of the training."""
    Path("weights").symlink_to(ROOT / "weights")
    shutil.rmtree(photos)
    write_pictures(photos, ["cat", "dog"], train=10, test=2)
    section = (ROOT / "README.md").read_text().split("## Your own pictures\n")[1].split("\n## ")[0]
    commands = re.findall(r"^python reproduce/(\w+)\.py (.*)$", section, re.MULTILINE)
    assert [name for name, _ in commands] == ["run", "evaluate", "export", "predict"]
    mains = {"run": run.main, "evaluate": evaluate.main, "export": export.main, "predict": predict.main}
    for name, flags in commands:
        quick = flags.replace("--iterations 200 --eval-every 50", "--iterations 4 --eval-every 2 --batch-size 8")
        arguments = [path for part in quick.split() for path in (sorted(glob.glob(part)) if "*" in part else [part])]
        assert mains[name](arguments) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert said.count("  cat ") == said.count("  dog ") >= 4 and "photos/test/dog/1.png" in said
    assert (
        "2 classes" in Path("photos.md").read_text()
        and "is the best of all evaluations by the error" in Path("photos.md").read_text()
    )


def test_more_classes_than_digits(photos: Path, capsys: pytest.CaptureFixture[str]):
    """A run of twelve classes leaves a whole record."""
    shutil.rmtree(photos)
    write_pictures(photos, [f"kind {number:02}" for number in range(12)], 2, 1)
    assert run.main([*FLAGS, "--lr", "0.01"]) == 0
    (folder,) = Path("runs").glob("*/seed0")
    config = record.read_config(folder)
    assert config is not None and record.read_record(folder, config).result is not None
    assert torch.load(folder / record.NEWEST)["network"]["linear.bias"].shape == (12,)
    assert run.main([*FLAGS, "--lr", "0.01"]) == 0 and "already ended" in capsys.readouterr().out
    assert evaluate.main([str(folder), "--data", "photos", "--device", "cpu"]) == 0
    assert "kind 11" in capsys.readouterr().out


def test_a_terminal_sees_pictures_being_read(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    config = run.parse(FLAGS)[0]
    image_folder.read_image_folder(config, photos)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    image_folder.read_image_folder(config, photos)
    assert "reading pictures" in (said := capsys.readouterr().err) and "27/27" in said


def test_what_counts_as_a_picture_is_what_torchvision_reads():
    assert image_folder.EXTENSIONS == IMG_EXTENSIONS


# Broken folders ---------------------------------------------------------------------------------------------------------


def keep(*names: str) -> Callable[[Path], Any]:
    """Leaves these classes alone in both parts."""

    def remove(photos: Path):
        for path in photos.glob("*/*"):
            if path.name not in names:
                shutil.rmtree(path)

    return remove


def empty(photos: Path):
    for path in (photos / "train/dog").iterdir():
        path.unlink()


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a picture that is none": (
        lambda photos: (photos / "test/owl/1.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more"),
        "photos/test/owl/1.png cannot be read as a picture (UnidentifiedImageError)",
    ),
    "a picture cut off": (
        lambda photos: (photos / "train/cat/3.png").write_bytes((photos / "train/cat/3.png").read_bytes()[:900]),
        "photos/train/cat/3.png cannot be read as a picture (OSError)",
    ),
    "an empty class": (empty, "photos/train/dog holds no pictures: every class needs at least one"),
    "a class to train on only": (
        lambda photos: shutil.rmtree(photos / "test/owl"),
        "photos/train/owl has no counterpart photos/test/owl: every class needs pictures to train on and to test with",
    ),
    "a class to test with only": (
        lambda photos: shutil.rmtree(photos / "train/owl"),
        "photos/test/owl has no counterpart photos/train/owl: every class needs pictures to train on and to test with",
    ),
    "no test set": (
        lambda photos: shutil.rmtree(photos / "test"),
        "photos has no folder test: pictures go into train/CLASS/ and test/CLASS/, for each class",
    ),
    "no class": (keep(), "photos/train holds no folder of a class: at least two are needed, each a folder with its pictures"),
    "one class": (
        keep("cat"),
        "photos/train holds only the class cat: at least two are needed, each a folder with its pictures",
    ),
    "files of another type": (
        lambda photos: (photos / "train/cat/0.png").rename(photos / "train/cat/0.heic"),
        "photos/train/cat/0.heic is of no type that is read as a picture (.jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp): "
        "convert or remove it",
    ),
    "too few to hold out": (
        lambda photos: None,
        "photos has no class of 10 pictures to hold out one of: leave out --split val",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_folder_is_one_sentence_before_anything_is_made(photos: Path, capsys: pytest.CaptureFixture[str], broken: str):
    damage, sentence = BROKEN[broken]
    damage(photos)
    before = sorted(Path().rglob("*"))
    assert run.main([*FLAGS, *(["--split", "val"] if broken == "too few to hold out" else [])]) == 2
    out, err = capsys.readouterr()
    assert (out, err.replace(f"{Path().resolve()}/", "")) == ("", f"error: {sentence}\n")
    assert sorted(Path().rglob("*")) == before


def test_a_config_of_pictures_is_made_from_a_folder():
    with pytest.raises(UserError, match="^classes and pictures go with a folder of pictures, not"):
        Config(classes="cat/dog")
