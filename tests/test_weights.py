"""Trained networks looked at and used elsewhere: evaluate.py, predict.py, export.py, hubconf.py, foreign checkpoints."""

import io
import json
import re
import shutil
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision import datasets

import hubconf
from reproduce import cli, evaluate, evaluation, export, predict, record, run, train, weights
from reproduce.config import Config
from reproduce.dataset import DATASETS
from reproduce.errors import UserError
from reproduce.model import build_network, build_other_family
from reproduce.model_card import format_card, sha256_of_file
from reproduce.sampling import center_crops, load_data
from tests.conftest import CPU, QUICK

FLAGS = "--depth 8 --batch-size 8 --iterations 24 --data synthetic --device cpu --out".split()
SYNTHETIC = "synthetic"
CIFAR10 = DATASETS["cifar10"]
PUBLISHED = [path.stem for path in sorted(hubconf.WEIGHTS.glob("*.safetensors"))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, synthetic_folder: Path) -> Path:
    """A working folder with the generated data set and one finished run, whose normalisation also divides."""
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    (home / "data" / "synthetic").symlink_to(synthetic_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert run.main([*FLAGS, "runs", "--normalization", "channel-mean-std"]) == 0
    return home


@pytest.fixture
def folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return next(Path("runs").glob("*/seed0"))


def published(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    assert export.main([str(folder), "--format", "safetensors", "--output", str(path), "--data", SYNTHETIC]) == 0
    return path


# Evaluation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["run", "file"])
def test_the_test_error_is_the_recorded_one(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str):
    source = folder if kind == "run" else published(folder, tmp_path)
    capsys.readouterr()
    assert evaluate.main([str(source), "--data", SYNTHETIC, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    error = (record.read_result(folder) or {})["test_error"]
    assert f"test error {error:.2f}% ({round(2 * error)} of 200 images)" in said
    assert f"recorded with it: {error:.2f}%" in said
    rows = [
        list(map(int, re.findall(r" (\d+)", line))) for line in said.split("same order)\n")[1].split("\n\n")[0].splitlines()
    ]
    counts = np.array(rows)
    assert counts.shape == (10, 10) and counts.sum() == 200 and 200 - np.trace(counts) == round(2 * error)
    per_class = [float(value) for value in re.findall(r"([\d.]+)%\s+\d+\n", said.split("\nclass")[1])]
    assert per_class == pytest.approx(list(100 * (1 - np.diagonal(counts) / counts.sum(1))), abs=0.01)


@pytest.mark.parametrize(
    ("split", "column", "words"),
    [
        ("full", "test_error", "chosen by this very error: it flatters, and is not the run's result"),
        ("val", "held_out_error", "by the error on held-out images, {:.2f}%; it is not the run's result"),
    ],
)
def test_the_best_checkpoint_is_looked_at_and_used_as_a_run_is(
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    split: str,
    column: str,
    words: str,
):
    monkeypatch.setattr(train, "ends_best", lambda config, rows: rows[-1]["iteration"] == 8)  # which is the best, it tells
    assert run.main([*FLAGS, "runs", "--split", split, "--eval-every", "4", "--keep-best"]) == 0
    (folder,) = Path("runs").glob("*/seed0")
    _, best, *_ = record.read_metrics(folder)
    source = folder / record.BEST
    trained = weights.load_network(source, SYNTHETIC)
    assert {name: trained.result[name] for name in ("test_error", "train_error")} == {
        name: best[name] for name in ("test_error", "train_error")
    }
    assert trained.result["iterations"] == best["iteration"] == 8 and trained.result["chosen_by"] == column
    path = published(source, tmp_path)
    card = path.with_suffix(".md").read_text()
    assert f"Test error **{best['test_error']:.2f}%** at iteration {best['iteration']}, " in card
    assert words.format(best.get("held_out_error", 0)) in card
    capsys.readouterr()
    for each in (source, path):
        assert evaluate.main([str(each), "--data", SYNTHETIC, "--device", "cpu"]) == 0
        assert f"{each}: test error {best['test_error']:.2f}%" in capsys.readouterr().out
    Image.new("RGB", (40, 32), "teal").save(tmp_path / "one.png")
    assert predict.main([str(source), str(tmp_path / "one.png"), "--data", SYNTHETIC]) == 0
    with pytest.raises(UserError, match="is not the record of the run"):
        evaluate.main([str(source), "--data", SYNTHETIC, "--device", "cpu", "--record", str(folder)])
    source.write_bytes((folder / record.NEWEST).read_bytes()[:-99])
    with pytest.raises(UserError, match="best.pt is damaged"):
        weights.load_network(source, SYNTHETIC)
    source.unlink()
    with pytest.raises(UserError, match="no run folder and no weights file"):
        weights.load_network(source, SYNTHETIC)


def test_several_networks_are_evaluated_one_after_the_other(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sources = [str(folder), str(published(folder, tmp_path))]
    flags = ["--data", SYNTHETIC, "--device", "cpu"]
    capsys.readouterr()
    texts = []
    for source in sources:
        assert evaluate.main([source, *flags]) == 0
        texts.append(capsys.readouterr().out)
    assert evaluate.main([*sources, *flags]) == 0
    assert capsys.readouterr().out == "\n\n".join(texts)
    with pytest.raises(UserError, match="^--figures is for one source, not 2$"):
        evaluate.main([*sources, *flags, "--figures", str(tmp_path / "figures")])
    with pytest.raises(UserError, match="^name at least one run's folder or weights file, not none$"):
        evaluate.main([])
    with pytest.raises(UserError, match="no run folder and no weights file nothing"):
        evaluate.main([*sources, "nothing", *flags])
    assert capsys.readouterr().out == ""


def test_the_record_of_older_weights_gets_its_predictions(folder: Path, tmp_path: Path):
    source, made = published(folder, tmp_path), record.read_predictions(folder)
    own = tmp_path / "record"
    own.mkdir()
    for name in (record.CONFIG, record.RESULT):
        (own / name).write_text((folder / name).read_text())
    flags = [str(source), "--data", SYNTHETIC, "--device", "cpu", "--record", str(own)]
    assert evaluate.main(flags) == 0
    assert record.read_predictions(own) == made is not None
    with pytest.raises(UserError, match="is there already"):
        evaluate.main(flags)
    (own / record.PREDICTIONS).unlink()
    record.write_result(own, (record.read_result(own) or {}) | {"test_error": 99.0})
    with pytest.raises(UserError, match="nothing is written"):
        evaluate.main(flags)
    (own / record.RESULT).unlink()
    with pytest.raises(UserError, match="is not the record of the run"):
        evaluate.main(flags)
    assert not (own / record.PREDICTIONS).exists()


def test_calibration_error_of_known_cases():
    def error(confidence: float, right: int, images: int) -> float:
        probabilities = torch.full((images, 10), (1 - confidence) / 9)
        probabilities[:, 3] = confidence
        labels = torch.where(torch.arange(images) < right, 3, 5)
        return evaluate.calibration_error(probabilities, labels)

    assert error(0.75, 75, 100) == pytest.approx(0, abs=1e-4)
    assert error(0.9, 50, 100) == pytest.approx(40, abs=1e-4)
    assert error(1.0, 0, 10) == pytest.approx(100)
    mixed = torch.tensor([[0.9, 0.1], [0.6, 0.4]])  # two bins: right at 0.9, wrong at 0.6
    assert evaluate.calibration_error(mixed, torch.tensor([0, 1])) == pytest.approx((10 + 60) / 2, abs=1e-4)


def test_the_pictures_show_the_right_images_in_the_right_colours(folder: Path, tmp_path: Path):
    out = tmp_path / "figures"
    assert evaluate.main([str(folder), "--data", SYNTHETIC, "--device", "cpu", "--figures", str(out), "--worst"]) == 0
    for name in ("confusion.png", "images.png"):
        pixels = np.asarray(Image.open(out / name).convert("RGB"))
        assert pixels.std() > 10, "the picture is empty"
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.05, 0.95]])
    labels = torch.tensor([1, 0, 0, 0])
    assert evaluate.choose_images(probabilities, labels, worst=True) == [3, 0, 2]
    assert evaluate.choose_images(probabilities, labels, worst=False) == [0, 1, 2, 3]


# Prediction -----------------------------------------------------------------------------------------------------------


def test_a_picture_of_any_size_is_cut_to_its_centre(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "wide.png"
    pixels = np.zeros((64, 200, 3), dtype=np.uint8)
    pixels[:, 68:132] = 200  # all of the centre
    Image.fromarray(pixels).save(path)
    assert predict.load_input(path, CIFAR10).shape == (1, 3, 32, 32)
    assert predict.load_input(path, CIFAR10).mean() == pytest.approx(200 / 255, abs=0.01)
    weights_file = published(folder, tmp_path)
    capsys.readouterr()
    assert predict.main([str(weights_file), str(path), str(path)]) == 0
    said = capsys.readouterr().out
    assert "resized and centre-cropped to 32 x 32" in said and said.count("wide.png") == 2
    shares = [float(value) for value in re.findall(r"([\d.]+)%", said)]
    assert len(shares) == 6 and shares[:3] == sorted(shares[:3], reverse=True) and 3 * shares[0] > 30 and sum(shares[:3]) <= 100


def test_prediction_agrees_with_evaluation(folder: Path, tmp_path: Path):
    """A test image saved as a picture gets the very logits that it gets as data."""
    trained = weights.load_network(folder, SYNTHETIC)
    data = load_data(trained.config, Path("data/synthetic"), CPU.torch_device)
    probabilities, _ = evaluate.predict_all(trained, trained.normalise(data), CPU)
    image = data.unpad(data.test.positions)[7].numpy()
    Image.fromarray(image).save(tmp_path / "seven.png")
    with torch.inference_mode():
        seen = trained.classifier(predict.load_input(tmp_path / "seven.png", CIFAR10)).softmax(1)[0]
    assert torch.allclose(seen, probabilities[7], atol=1e-5)


def test_a_picture_is_seen_as_its_camera_was_held(tmp_path: Path):
    pixels = np.zeros((96, 64, 3), dtype=np.uint8)
    pixels[:48] = 250  # bright above
    Image.fromarray(pixels).save(tmp_path / "upright.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: turn it clockwise
    sideways = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    sideways.save(tmp_path / "sideways.png", exif=turned.tobytes())
    sideways.save(tmp_path / "damaged.png", exif=b"Exif\0\0no EXIF")
    upright = predict.load_input(tmp_path / "upright.png", CIFAR10)
    assert upright[0, 0, 0].min() > 0.9 and upright[0, 0, -1].max() == 0
    assert torch.equal(predict.load_input(tmp_path / "sideways.png", CIFAR10), upright)
    assert torch.equal(predict.load_input(tmp_path / "damaged.png", CIFAR10), upright.rot90(dims=(2, 3)))


def test_a_very_large_picture_is_taken_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # Pillow warns of more, and refuses twice as many
    assert predict.load_input(tmp_path / "large.png", CIFAR10).shape == (1, 3, 32, 32)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(UserError, match="large.png cannot be read as a picture"):
        predict.load_input(tmp_path / "large.png", CIFAR10)


@pytest.mark.parametrize(("encoding", "bar", "name"), [("ascii", "#", "b\\xe4r"), ("utf-8", "█", "bär")])
def test_a_prediction_is_printed_whatever_stdout_takes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, bar: str, name: str
):
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(tmp_path / "bär.png")
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, encoding, errors="strict", write_through=True))
    assert cli.run_cli(predict.main, [str(folder), str(tmp_path / "bär.png"), "--data", SYNTHETIC]) == 0
    said = output.getvalue().decode(encoding)
    assert f"{name}.png\n" in said and re.search(rf"%  {bar}+\n", said)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no picture"),
        (b"GIF89a but not really", "cannot be read as a picture"),
        (b"\x89PNG\r\n\x1a\n" + 20 * b"no", "cannot be read as a picture"),
    ],
)
def test_what_is_not_a_picture_is_refused(folder: Path, tmp_path: Path, content: bytes | None, sentence: str):
    path = tmp_path / "picture.gif"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        predict.main([str(folder), str(path), "--data", SYNTHETIC])


# Export ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "extension"), export.EXTENSION.items())
def test_an_exported_network_gives_the_same_logits(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: Any, extension: str
):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    output = tmp_path / f"net{extension}"
    assert export.main([str(folder), "--format", format, "--output", str(output), "--data", SYNTHETIC]) == 0
    assert "on 200 test images within" in capsys.readouterr().out
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = weights.load_network(folder, SYNTHETIC).classifier(images)
        export.compare(export.run_exported(output, format, images), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"net{extension}", *(["net.md"] if format == "safetensors" else [])]
    )


@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_large_logits_are_compared_by_their_size(folder: Path, tmp_path: Path, format: Any):
    """Those of a net that was trained to its end are near 40, and fp32's rounding of them above 1e-5."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    trained = weights.load_network(folder, SYNTHETIC)
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trained.classifier.network.get_parameter("linear.weight").mul_(200 / trained.classifier(images).abs().max())
    assert export.export(trained, format, tmp_path / "net", images) <= 1e-6
    assert (tmp_path / "net").exists()


def test_what_is_not_the_original_is_refused():
    original = torch.tensor([[40.0, -3.0, 39.9999], [1.0, 2.0, -20.0]])
    assert export.compare(original + 1.4e-5, original) == pytest.approx(3.5e-7, rel=0.5)
    with pytest.raises(UserError, match="by 1.0e-04 of the largest logit: nothing is written"):
        export.compare(original + 4e-3, original)
    with pytest.raises(UserError, match="by 5.0e-06 of the largest logit and puts 1 of 2 images into other classes"):
        export.compare(original + torch.tensor([-2e-4, 0, 2e-4]), original)
    with pytest.raises(UserError, match="differs from the original by nan"):
        export.compare(original * torch.nan, original)


def test_a_network_that_changes_on_export_is_not_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    exported = export.run_exported
    monkeypatch.setattr(export, "run_exported", lambda *arguments: exported(*arguments) * (1 + 1e-3))
    with pytest.raises(UserError, match="differs from the original by 1.0e-03 of the largest logit: nothing is written"):
        export.main([str(folder), "--format", "safetensors", "--output", str(tmp_path / "n.safetensors"), "--data", SYNTHETIC])
    assert not list(tmp_path.iterdir())


def test_an_older_checkpoint_is_not_taken_for_the_end_of_a_run(folder: Path, tmp_path: Path):
    copy = Path(shutil.copytree(folder, tmp_path / folder))
    state = torch.load(copy / record.NEWEST, weights_only=True)
    state["history"]["iteration"] -= 1
    torch.save(state, copy / record.NEWEST)
    with pytest.raises(UserError, match=rf"is of iteration {state['history']['iteration']} of .*: set result.json aside"):
        weights.load_network(copy, SYNTHETIC)


@pytest.mark.parametrize(("warmup", "told"), [("error", "Nothing changed"), ("none", "Changed from the paper's: warmup none")])
def test_the_card_knows_the_warm_up_of_deep_nets(warmup: Any, told: str):
    result = {"parameters": 1, "best_test_error": 6.4, "test_error": 6.5, "train_error": 0.1}
    assert told in format_card(Config(depth=110, warmup=warmup), result, "0" * 64)


def test_the_card_tells_recipe_result_and_limits(folder: Path, tmp_path: Path):
    card = published(folder, tmp_path).with_suffix(".md").read_text()
    result = record.read_result(folder) or {}
    assert f"Test error **{result['test_error']:.2f}%**" in card and f"{result['parameters']:,} parameters" in card
    assert "normalization channel-mean-std" in card and "not comparable with the paper" in card and "a generated set" in card
    assert str(folder.relative_to("runs")) in card


@pytest.mark.parametrize("net", PUBLISHED)
def test_a_published_card_is_what_is_written_today(net: str):
    path = hubconf.WEIGHTS / f"{net}.safetensors"
    card = format_card(*record.read_weights_header(path), sha256_of_file(path))
    assert card.encode() == path.with_suffix(".md").read_bytes()


def test_a_flipped_bit_in_a_published_file_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for suffix in (".safetensors", ".md"):
        shutil.copy(hubconf.WEIGHTS / f"residual20{suffix}", tmp_path)
    path = tmp_path / "residual20.safetensors"
    monkeypatch.setattr(hubconf, "WEIGHTS", tmp_path)
    hubconf.resnet20_cifar10(pretrained=True)
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    sentence = f"{path} is damaged or is not the file of its card: its SHA-256 is not the one in"
    with pytest.raises(UserError, match=sentence):
        hubconf.resnet20_cifar10(pretrained=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "grey.png")
    for main, flags in ((predict.main, [str(path), str(tmp_path / "grey.png")]), (evaluate.main, [str(path)])):
        assert cli.run_cli(main, flags) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
    path.with_suffix(".md").unlink()  # nothing tells then
    weights.load_network(path, "")


def test_the_same_net_is_the_same_file_every_time(folder: Path, tmp_path: Path):
    trained = weights.load_network(folder, SYNTHETIC)
    for number in range(10):
        weights.save_network(tmp_path / str(number), trained)
    (content,) = {(tmp_path / str(number)).read_bytes() for number in range(10)}
    assert safetensors.torch.load(content).keys() == trained.classifier.state_dict().keys()


def test_a_card_replaces_a_card_and_nothing_else(folder: Path, tmp_path: Path):
    card = published(folder, tmp_path).with_suffix(".md")
    first = card.read_text()
    card.write_text(first + "and more")
    published(folder, tmp_path)
    assert card.read_text() == first
    (tmp_path / "net.safetensors").unlink()
    card.write_bytes(b"my notes \xff")
    with pytest.raises(UserError, match=f"the model card would replace {card}, which is not one"):
        published(folder, tmp_path)
    assert card.read_bytes() == b"my notes \xff" and list(tmp_path.iterdir()) == [card]
    assert export.main([str(folder), "--format", "torchscript", "--output", str(tmp_path / "net.pt"), "--data", SYNTHETIC]) == 0


# What cannot be read --------------------------------------------------------------------------------------------------


def test_sources_that_cannot_be_read_are_refused_in_one_sentence(folder: Path, tmp_path: Path):
    def complaint(path: Path) -> str:
        with pytest.raises(UserError) as error:
            weights.load_network(path, SYNTHETIC)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no run folder and no weights file" in complaint(tmp_path / "nothing")
    assert "holds no config.json" in complaint(tmp_path)
    for name, content in (("a.safetensors", b"no weights"), ("b.th", b"no weights"), ("c.th", None)):
        path = tmp_path / name
        torch.save({"state_dict": {"weight": torch.zeros(2)}}, path) if content is None else path.write_bytes(content)
        assert "not a weights file" in complaint(path) or "is neither" in complaint(path)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text((folder / "config.json").read_text())
    assert "has not finished" in complaint(unfinished)
    (unfinished / "result.json").write_text((folder / "result.json").read_text())
    assert "weights are not part of the committed records" in complaint(unfinished)
    (unfinished / "checkpoint.pt").write_bytes((folder / "checkpoint.pt").read_bytes()[:-100])
    assert "is damaged" in complaint(unfinished)


def test_a_file_of_a_run_is_not_the_run(folder: Path):
    for name in ("checkpoint.pt", "result.json"):
        with pytest.raises(UserError, match=f"{name} is a file of a run: name the run's folder instead, {folder}"):
            weights.load_network(folder / name, SYNTHETIC)


CONFIG = record.describe_config(Config(depth=8))
ODD_HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "a list": ({"config": []}, "config does not read as one of today's"),
    "null": ({"config": None}, "config does not read as one of today's"),
    "a list in it": ({"config": CONFIG | {"optimizer": ["sgd"]}}, "config does not read as one of today's"),
    "a list as result": ({"result": []}, "its result does not read as one"),
    "null as result": ({"result": None}, "its result does not read as one"),
    "an error in words": ({"result": {"test_error": "8.63"}}, "its result does not read as one"),
}


@pytest.mark.parametrize("odd", ODD_HEADERS)
def test_an_odd_header_is_one_sentence(tmp_path: Path, odd: str):
    changed, sentence = ODD_HEADERS[odd]
    described = {"config": CONFIG, "result": {}} | changed
    tensors = weights.Classifier(build_network(Config(depth=8)), torch.zeros(3, 32, 32), torch.ones(3, 1, 1)).state_dict()
    path = tmp_path / "odd.safetensors"
    save_file(tensors, path, {name: json.dumps(value) for name, value in described.items()})
    with pytest.raises(UserError, match=sentence):
        weights.load_network(path, "")


ODD_TENSORS: dict[str, tuple[str, Any, str]] = {
    "mean by channel": ("mean", torch.zeros(3), r"a mean and a std of \[3\] and \[3, 1, 1\], not \[3, 32, 32\]"),
    "std by pixel": ("std", torch.ones(3, 32, 32), r"of \[3, 32, 32\] and \[3, 32, 32\], not"),
    "std of zero": ("std", torch.zeros(3, 1, 1), "damaged: std holds numbers"),
    "nan": ("network.linear.bias", torch.full((10,), torch.nan), "damaged: network.linear.bias holds numbers"),
    "inf": ("network.bn.running_var", torch.full((16,), torch.inf), "damaged: network.bn.running_var holds numbers"),
}


@pytest.mark.parametrize("odd", ODD_TENSORS)
def test_odd_tensors_are_one_sentence(folder: Path, tmp_path: Path, odd: str):
    name, tensor, sentence = ODD_TENSORS[odd]
    path = published(folder, tmp_path)
    with safe_open(path, "numpy") as file:
        header = file.metadata()
    save_file(load_file(path) | {name: tensor}, path, header)
    path.with_suffix(".md").unlink()  # which knows another SHA-256
    with pytest.raises(UserError, match=sentence):
        weights.load_network(path, "")


def test_a_mean_in_another_precision_is_taken(folder: Path, tmp_path: Path):
    path = published(folder, tmp_path)
    with safe_open(path, "numpy") as file:
        header = file.metadata()
    tensors = load_file(path)
    save_file(tensors | {"mean": tensors["mean"].double()}, path, header)
    path.with_suffix(".md").unlink()
    assert weights.load_network(path, "").classifier(torch.rand(1, 3, 32, 32)).dtype == torch.float32


def test_the_worst_images_want_a_folder_for_figures():
    with pytest.raises(UserError, match="^--worst chooses the images that --figures draws: add --figures DIR$"):
        evaluate.main(["runs", "--worst"])


# Other repositories, and torch.hub --------------------------------------------------------------------------------------


def in_their_names(name: str) -> str:
    """The inverse of `weights.rename` for a net of 14 layers, written from their source."""
    parts = name.split(".")
    if parts[0] == "blocks":
        return ".".join([f"module.layer{int(parts[1]) // 2 + 1}", str(int(parts[1]) % 2), *parts[2:]])
    return ".".join(["module", {"conv": "conv1", "bn": "bn1"}.get(parts[0], parts[0]), *parts[1:]])


def test_a_foreign_checkpoint_is_the_same_network_under_its_own_normalisation(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    network = build_network(Config(depth=14, seed=5)).eval()
    theirs = {in_their_names(name): tensor for name, tensor in network.state_dict().items()}
    assert {"module.conv1.weight", "module.layer3.1.bn2.bias", "module.linear.bias"} <= theirs.keys()
    torch.save({"state_dict": theirs, "best_prec1": 91.25}, tmp_path / "theirs.th")
    trained = weights.load_network(tmp_path / "theirs.th", "")
    assert trained.config.net == "residual14" and trained.result == {"best_test_error": 8.75}
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        assert torch.allclose(trained.classifier(images), network((images - mean) / std), atol=1e-6)
    data = trained.normalise(load_data(QUICK, home / "data" / "synthetic", CPU.torch_device))
    views, _ = evaluation.iterate_single_views(data.test, data, CPU).__next__()
    raw = data.unpad(data.test.positions)[: len(views)].permute(0, 3, 1, 2).float() / 255
    assert torch.allclose(views, (raw - mean) / std, atol=1e-5)
    assert center_crops(0, 1, CPU.torch_device).shape == (4, 1)
    said = evaluate.describe(trained, torch.eye(10), torch.arange(10), [str(name) for name in range(10)])
    assert said.splitlines()[1] == "its best epoch, recorded with it: 8.75%"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"best_prec1": "the best"}, "ValueError"), ({"state_dict": {"module.layer1.0.conv1.weight": 3}}, "AttributeError")],
)
def test_an_odd_foreign_checkpoint_is_one_sentence(tmp_path: Path, changed: dict[str, Any], reason: str):
    theirs = {in_their_names(name): tensor for name, tensor in build_network(Config(depth=14)).state_dict().items()}
    torch.save({"state_dict": theirs, "best_prec1": 91.25} | changed, tmp_path / "theirs.th")
    with pytest.raises(UserError, match=rf"nor a checkpoint of akamaster/pytorch_resnet_cifar10 \({reason}\)"):
        weights.load_network(tmp_path / "theirs.th", "")


def test_hub_gives_every_network_and_its_published_weights(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    repository = Path(hubconf.__file__).parent
    network: Any = torch.hub.load(str(repository), "resnet32_cifar10", source="local", verbose=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == 464_154
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert all(callable(getattr(hubconf, f"resnet{depth}_cifar10")) for depth in (20, 32, 44, 56, 110, 1202))
    monkeypatch.setattr(hubconf, "WEIGHTS", tmp_path)
    with pytest.raises(UserError, match="no weights of residual8 are published yet"):
        hubconf.load(Config(depth=8), pretrained=True)
    published(folder, tmp_path).rename(tmp_path / "residual8.safetensors")
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        expected = weights.load_network(folder, SYNTHETIC).classifier(images)
        assert torch.equal(hubconf.load(Config(depth=8), pretrained=True)(images), expected)


def test_the_hubs_example_gives_the_published_weights(monkeypatch: pytest.MonkeyPatch):
    assert hubconf.__doc__ is not None
    monkeypatch.chdir(Path(hubconf.__file__).parent)
    example = [line for line in hubconf.__doc__.splitlines() if line.startswith("    ")]
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    names: dict[str, Any] = {"torch": torch, "images": images}
    exec(textwrap.dedent("\n".join(example)), names)
    expected = weights.load_network(hubconf.WEIGHTS / "residual20.safetensors", "").classifier(images)
    assert torch.equal(names["logits"], expected)


@pytest.mark.parametrize("net", PUBLISHED)
def test_a_published_network_answers_as_its_record_says(cifar10_folder: Path, net: str):
    entry_point = getattr(hubconf, f"{net.replace('residual', 'resnet').replace('-', '_')}_cifar10")
    assert f"pretrained=True for the weights of weights/{net}.md" in entry_point.__doc__
    images_NHWC = torch.from_numpy(datasets.CIFAR10(cifar10_folder, train=False).data[:1_000])
    with torch.inference_mode():
        answers = entry_point(pretrained=True)(images_NHWC.permute(0, 3, 1, 2) / 255).argmax(1)
    recorded = weights.load_network(hubconf.WEIGHTS / f"{net}.safetensors", "")
    folder = hubconf.WEIGHTS.parent / "experiments" / "records" / recorded.config.folder
    assert record.read_result(folder) == recorded.result
    there = [(record.RIGHT + record.WRONG).index(character) % 10 for character in record.read_predictions(folder) or ""]
    same = sum(one == other for one, other in zip(answers.tolist(), there[:1_000], strict=True))
    assert same >= 990, "in fp32 here, in the run's precision there"


def test_tensorboard_has_the_curves_of_the_metrics(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(home)
    assert run.main([*FLAGS, str(tmp_path), "--tensorboard", "--eval-every", "6"]) == 0
    folder = tmp_path / replace(QUICK).folder
    events = accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    rows = record.read_metrics(folder)
    for name in ("train_loss", "train_error", "test_error", "learning_rate"):
        points = [(event.step, event.value) for event in events.Scalars(name)]
        assert points == [(row["iteration"], pytest.approx(row[name])) for row in rows]


def test_tensorboard_that_is_not_there_is_told_at_once(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run.main([*FLAGS, "runs", "--tensorboard"]) == 2
    assert "needs TensorBoard, which is not installed" in capsys.readouterr().err
    assert not Path("runs").exists()


# Other families -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["safetensors", "torchscript"])
@pytest.mark.parametrize("family", ["lenet", "resnet18"])
def test_another_family_is_exported_and_sees_pictures_as_its_data_set_has_them(tmp_path: Path, family: Any, format: Any):
    config = Config(family=family, dataset="mnist" if family == "lenet" else "cifar10", schedule="cosine")
    channels, side = config.dataset_info.channels, config.dataset_info.side
    classifier = hubconf.load(config, pretrained=False).eval()
    classifier.mean, classifier.std = torch.full((channels, side, side), 0.5), torch.ones(channels, 1, 1)
    result = {"test_error": 3.0, "train_error": 2.0, "best_test_error": 2.9, "parameters": 13_242}
    trained = weights.TrainedNetwork(classifier, config, result, "")
    Image.fromarray(np.full((40, 50, 3), 200, dtype=np.uint8)).save(tmp_path / "grey.png")
    images = predict.load_input(tmp_path / "grey.png", config.dataset_info)
    assert images.shape == (1, channels, side, side) and float(images.mean()) == pytest.approx(200 / 255)
    path = tmp_path / f"net.{format}"
    assert export.export(trained, format, path, images.repeat(4, 1, 1, 1)) <= 1e-6
    if format == "safetensors":
        assert weights.load_network(path, "").config == config
        assert predict.main([str(path), str(tmp_path / "grey.png")]) == 0
        card = format_card(config, result, "0" * 64)
        assert f"A {family} for {side} x {side} images in ten classes, beyond section" in card and "(cosine) over" in card


def test_every_network_of_the_hub_has_as_many_parameters_as_it_says():
    with torch.device("meta"):
        for name in ("resnet34", "resnet50", "resnet101", "resnext50_32x4d"):
            entry = getattr(hubconf, f"{name}_cifar10")
            millions = sum(parameter.numel() for parameter in build_other_family(Config(family=name)).parameters()) / 1e6
            assert f"{millions:.1f}M parameters" in entry.__doc__
