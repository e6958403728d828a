"""Trained networks: weights.py, evaluate.py, predict.py, export.py, model cards and hubconf.py."""

import json
import math
import re
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torchvision import datasets

import hubconf
from reproduce import checkpoints, cli, evaluate, evaluation, export, model_card, predict, record, run, train, weights
from reproduce.config import Config
from reproduce.dataset import DATASETS
from reproduce.errors import UserError
from reproduce.model import build_network
from reproduce.model_card import format_model_card, sha256_of_file
from reproduce.sampling import load_data
from tests.conftest import CPU, QUICK, QUICK_FLAGS, unpad

FLAGS = f"{QUICK_FLAGS} --out".split()
CIFAR10 = DATASETS["cifar10"]
PUBLISHED = [path.stem for path in sorted(hubconf.WEIGHTS.glob("*.safetensors"))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, synthetic_folder: Path) -> Path:
    """A working folder with the synthetic dataset and a finished run with mean and std normalization."""
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


def export_weights(source: Path, tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    assert export.main([str(source), "--output", str(path)]) == 0
    return path


def random_images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


# Evaluation -----------------------------------------------------------------------------------------------------------


def test_the_evaluations_of_several_networks_agree_with_the_record(folder: Path, tmp_path: Path, capsys: Any):
    sources = [str(folder), str(export_weights(folder, tmp_path))]
    capsys.readouterr()
    assert evaluate.main([*sources, "--device", "cpu"]) == 0
    error = json.loads((folder / record.RESULT).read_text())["test_error"]
    for source, printed in zip(sources, capsys.readouterr().out.split(f"\n\n{sources[1]}: "), strict=True):
        assert f"test error {error:.2f}% ({round(2 * error)} of 200 images)\nrecorded test error: {error:.2f}%" in printed, (
            source
        )
        matrix = printed.split("same order)\n")[1].split("\n\n")[0].splitlines()
        counts = np.array([list(map(int, re.findall(r" (\d+)", line))) for line in matrix])
        assert counts.shape == (10, 10) and counts.sum() == 200 and 200 - np.trace(counts) == round(2 * error)
        per_class = [float(value) for value in re.findall(r"([\d.]+)%\s+\d+\n", printed.split("\nclass")[1])]
        assert per_class == pytest.approx(list(100 * (1 - np.diagonal(counts) / counts.sum(1))), abs=0.01)
    with pytest.raises(UserError):
        evaluate.main([*sources, "nothing", "--device", "cpu"])
    assert capsys.readouterr().out == "", "all are read before the first is evaluated"


@pytest.mark.parametrize(("split", "column"), [("full", "test_error"), ("val", "held_out_error")])
def test_the_best_checkpoint_can_be_used_like_a_run(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, split: str, column: str
):
    monkeypatch.setattr(train, "is_best_evaluation", lambda config, rows: len(rows) == 2)
    assert run.main([*FLAGS, "runs", "--split", split, "--eval-every", "4", "--keep-best"]) == 0
    (folder,) = Path("runs").glob("*/seed0")
    best = json.loads((folder / record.METRICS).read_text().splitlines()[1])
    trained = weights.load_network(folder / checkpoints.BEST)
    assert trained.result["iterations"] == best["iteration"] == 8 and trained.result["chosen_by"] == column
    assert all(trained.result[name] == best[name] for name in ("test_error", "train_error", column))
    path = export_weights(folder / checkpoints.BEST, tmp_path)
    card = path.with_suffix(".md").read_text()
    assert f"test error **{best['test_error']:.2f}%**" in card and "at iteration 8, chosen by its" in card
    assert evaluate.main([str(path), "--device", "cpu"]) == 0
    assert f"{path}: test error {best['test_error']:.2f}%" in capsys.readouterr().out


def test_calibration_error():
    labels = torch.where(torch.arange(100) < 50, 0, 1)
    assert evaluate.calibration_error(torch.tensor([[0.9, 0.1]]).repeat(100, 1), labels) == pytest.approx(40, abs=1e-4)
    two_bins = torch.tensor([[0.9, 0.1], [0.6, 0.4]])  # right at 0.9, wrong at 0.6
    assert evaluate.calibration_error(two_bins, torch.tensor([0, 1])) == pytest.approx((10 + 60) / 2, abs=1e-4)


# Prediction -----------------------------------------------------------------------------------------------------------


def test_the_center_of_an_image_is_classified(folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any):
    path = tmp_path / "wide\udcff.png"  # a name that stdout cannot encode
    pixels = np.zeros((64, 200, 3), dtype=np.uint8)
    pixels[:, 68:132] = 200  # the center
    Image.fromarray(pixels).save(path)
    image = predict.load_input(path, CIFAR10)
    assert image.shape == (1, 3, 32, 32) and image.mean() == pytest.approx(200 / 255, abs=0.01)
    assert cli.run_cli(predict.main, [str(folder), str(path), str(path)]) == 0
    printed = capsys.readouterr().out
    shares = [float(value) for value in re.findall(r"([\d.]+)%", printed)]
    assert len(shares) == 6 and shares[:3] == sorted(shares[:3], reverse=True) and 3 * shares[0] > 30 and sum(shares[:3]) <= 100


def test_predictions_agree_with_the_evaluation(folder: Path, tmp_path: Path):
    trained = weights.load_network(folder)
    data = load_data(trained.config, Path("data/synthetic"), CPU.torch_device)
    probabilities, _ = evaluate.predict_all(trained, trained.normalize(data), CPU)
    Image.fromarray(unpad(data, data.test.pixels)[7].numpy()).save(tmp_path / "seven.png")
    with torch.inference_mode():
        predicted = trained.classifier(predict.load_input(tmp_path / "seven.png", CIFAR10)).softmax(1)[0]
    assert torch.allclose(predicted, probabilities[7], atol=1e-5)


def test_unreadable_images_are_skipped(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "below").mkdir()
    Image.new("RGB", (40, 50)).save(tmp_path / "below" / "good.png")
    (tmp_path / "bad.jpg").write_text("no image")
    (tmp_path / "notes.txt").write_text("not read")
    assert cli.run_cli(predict.main, [str(folder), str(tmp_path), "nowhere.png"]) == 1
    out, err = capsys.readouterr()
    assert "good.png" in out and "bad.jpg" not in out
    assert [path in line for path, line in zip(("bad.jpg", "nowhere.png"), err.splitlines(), strict=True)] == [True, True]
    (tmp_path / "empty" / "folder.png").mkdir(parents=True)
    assert cli.run_cli(predict.main, [str(folder), str(tmp_path / "below"), str(tmp_path / "empty")]) == 2


# Export ---------------------------------------------------------------------------------------------------------------


def test_an_exported_onnx_file_computes_the_same_logits(folder: Path, tmp_path: Path):
    """Relative to the largest logit: after full training, logits are near 40, where fp32 rounding exceeds 1e-5."""
    pytest.importorskip("onnxruntime")
    classifier = weights.load_network(folder).classifier
    with torch.no_grad():
        classifier.network.get_parameter("linear.weight").mul_(200 / classifier(random_images(64)).abs().max())
    export.write_onnx(tmp_path / "net.onnx", classifier)
    assert (tmp_path / "net.onnx").stat().st_size > 77_850 * 4


def test_differing_logits_are_refused():
    original = torch.tensor([[40.0, -3.0, 39.9999], [1.0, 2.0, -20.0]])
    export.check_logits(original + 1.4e-5, original)
    for wrong in (original + 4e-3, original * torch.nan):
        with pytest.raises(UserError, match="nothing written"):
            export.check_logits(wrong, original)


def test_an_export_is_written_next_to_its_source_with_a_model_card(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / folder.parent.name / folder.name)
    for _ in range(2):
        assert export.main([str(copy)]) == 0, "it overwrites its own model card"
    card = (copy / "residual8.md").read_text()
    result = json.loads((folder / record.RESULT).read_text())
    assert f"test error **{result['test_error']:.2f}%**" in card and f"{result['parameters']:,} parameters" in card
    assert "normalization=channel-mean-std (paper: pixel-mean)" in card and "24 iterations" in card
    assert str(folder.relative_to("runs")) in card
    exported = copy / "residual8.safetensors"
    assert export.main([str(exported), "--output", str(tmp_path / "again.safetensors")]) == 0
    assert (tmp_path / "again.md").read_text() == card
    with pytest.raises(UserError, match=f"would overwrite its source {exported}: choose another --output"):
        export.main([str(exported)])


def test_equal_networks_give_identical_files(folder: Path, tmp_path: Path):
    trained = weights.load_network(folder)
    for number in range(10):
        weights.save_network(tmp_path / str(number), trained)
    (content,) = {(tmp_path / str(number)).read_bytes() for number in range(10)}
    assert safetensors.torch.load(content).keys() == trained.classifier.state_dict().keys()


# The dataset of a run -------------------------------------------------------------------------------------------------


def test_a_run_remembers_its_data_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    folder = folder.absolute()
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(folder), "--device", "cpu"]) == 0
    assert "of 200 images" in capsys.readouterr().out and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="was trained on synthetic images: --data must be its folder, got mnist"):
        evaluate.main([str(folder), "--device", "cpu", "--data", "mnist"])
    with pytest.raises(UserError, match="--data must be its folder, got elsewhere"):
        evaluate.main([str(folder), "--device", "cpu", "--data", "elsewhere"])


# Model cards ------------------------------------------------------------------------------------------------------------


def test_the_published_cards_are_up_to_date():
    for path in hubconf.WEIGHTS.glob("*.safetensors"):
        card = format_model_card(*model_card.read_weights_header(path), sha256_of_file(path))
        assert card.encode() == path.with_suffix(".md").read_bytes()


def test_a_flipped_bit_is_found_by_the_sha256_in_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for suffix in (".safetensors", ".md"):
        shutil.copy(hubconf.WEIGHTS / f"residual20{suffix}", tmp_path)
    path = tmp_path / "residual20.safetensors"
    monkeypatch.setattr(hubconf, "WEIGHTS", tmp_path)
    hubconf.resnet20_cifar10(pretrained=True)
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not have the SHA-256"):
        hubconf.resnet20_cifar10(pretrained=True)
    path.with_suffix(".md").unlink()
    weights.load_network(path)


# Sources that cannot be loaded -------------------------------------------------------------------------------------------


def test_unusable_sources_are_user_errors(folder: Path, tmp_path: Path):
    def assert_refused(path: Path, message: str):
        with pytest.raises(UserError, match=f"^[^\n]*{message}[^\n]*$"):
            weights.load_network(path)

    for message, content in (
        ("layer1.0.conv1.weight is missing", {"state_dict": {"weight": torch.zeros(2)}}),
        ("got epoch, model", {"epoch": 3, "model": 7}),
        ("GLOBAL fractions.Fraction", {"state_dict": {}, "acc": Fraction(1, 2)}),
    ):
        torch.save(content, tmp_path / "b.th")
        assert_refused(tmp_path / "b.th", message)
    assert_refused(folder / checkpoints.NEWEST, "checkpoint for resuming: name its run folder")
    copy = shutil.copytree(folder, tmp_path / folder.parent.name / folder.name)
    state = torch.load(folder / checkpoints.NEWEST, weights_only=True)
    state["rows"][-1]["iteration"] -= 1
    torch.save(state, copy / checkpoints.NEWEST)
    assert_refused(copy, "not from the run's last iteration")


def test_flags_for_other_repositories_are_refused_for_our_networks(folder: Path, tmp_path: Path):
    for source in (folder, folder / checkpoints.NEWEST, export_weights(folder, tmp_path)):
        with pytest.raises(UserError, match=f"--no-residual, --mean and --std are for .* other repositories, got {source}"):
            export.main([str(source), "--no-residual"])


def test_impossible_values_are_refused(folder: Path, tmp_path: Path):
    path = tmp_path / "net.safetensors"
    for name, value in (("network.bn.running_var", -1.0), ("network.bn.bias", math.inf), ("mean", math.nan), ("std", 0.0)):
        trained = weights.load_network(folder)
        trained.classifier.state_dict()[name].view(-1)[0] = value
        weights.save_network(path, trained)
        with pytest.raises(UserError, match=f"net.safetensors is damaged: {name}"):
            weights.load_network(path)


# Other repositories, torch.hub, TensorBoard ---------------------------------------------------------------------------


def their_name(name: str) -> str:
    """Invert `weights.translate_name` for a network of 14 layers, following their source code."""
    parts = name.split(".")
    if parts[0] == "blocks":
        return ".".join([f"module.layer{int(parts[1]) // 2 + 1}", str(int(parts[1]) % 2), *parts[2:]])
    return ".".join(["module", {"conv": "conv1", "bn": "bn1"}.get(parts[0], parts[0]), *parts[1:]])


WRAPPERS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "state_dict and best_prec1": lambda theirs: {"state_dict": theirs, "best_prec1": 91.25},
    "net and acc": lambda theirs: {"net": theirs, "acc": 91.25, "epoch": 200},
    "flat, without prefix": lambda theirs: {name.removeprefix("module."): tensor for name, tensor in theirs.items()},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_checkpoints_of_other_repositories(tmp_path: Path, wrapper: str):
    network = build_network(Config(depth=14, seed=5)).eval()
    theirs = {their_name(name): tensor for name, tensor in network.state_dict().items()}
    assert {"module.conv1.weight", "module.layer3.1.bn2.bias", "module.linear.bias"} <= theirs.keys()
    path, images = tmp_path / "theirs.th", random_images(4)
    torch.save(WRAPPERS[wrapper](theirs), path, _use_new_zipfile_serialization=wrapper != "net and acc")
    with pytest.warns(UserWarning, match="residual network with mean 0.485.*--no-residual"):
        trained = weights.load_network(path)
    assert trained.config.net == "residual14"
    assert trained.result == ({} if "flat" in wrapper else {"best_test_error": 8.75})
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        assert torch.allclose(trained.classifier(images), network((images - mean) / std), atol=1e-6)


def test_a_plain_checkpoint_is_converted_with_its_normalization(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    network = build_network(Config(depth=14, residual=False)).eval()
    torch.save({their_name(name): tensor for name, tensor in network.state_dict().items()}, tmp_path / "theirs.th")
    (tmp_path / "theirs.md").write_text(f"SHA-256 `{'0' * 64}`")  # the card of an earlier export to the same file
    flags = "--no-residual --mean 0.4914 0.4822 0.4465 --std 0.2023 0.1994 0.2010"
    with pytest.warns(UserWarning, match="plain network"):
        assert export.main([str(tmp_path / "theirs.th"), *flags.split()]) == 0
    trained = weights.load_network(tmp_path / "theirs.safetensors")
    assert trained.config.net == "plain14" and not (tmp_path / "theirs.md").exists()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]))
    data = trained.normalize(load_data(QUICK, home / "data" / "synthetic", CPU.torch_device))
    views, _ = next(evaluation.iterate_single_views(data.test, data, CPU))
    raw = unpad(data, data.test.pixels)[: len(views)].permute(0, 3, 1, 2).float() / 255
    assert torch.allclose(views, (raw - mean) / std, atol=1e-5)
    with torch.inference_mode():
        assert torch.allclose(trained.classifier(raw[:4]), network(views[:4]), atol=1e-5)


def format_entry_point(net: str) -> str:
    return f"{net.replace('residual', 'resnet').replace('-', '_')}_cifar10"


def test_hub_networks():
    network: Any = torch.hub.load(str(hubconf.WEIGHTS.parent), "resnet32_cifar10", source="local", verbose=False)
    network.load_state_dict(safetensors.torch.load_file(hubconf.WEIGHTS / "residual32.safetensors"))
    assert sum(parameter.numel() for parameter in network.parameters()) == 464_154
    assert network(random_images(2)).shape == (2, 10)
    entry_points = {name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}
    assert entry_points == {format_entry_point(net) for net in PUBLISHED}


def test_the_example_in_hubconf(monkeypatch: pytest.MonkeyPatch):
    assert hubconf.__doc__ is not None
    monkeypatch.chdir(Path(hubconf.__file__).parent)
    example = [line for line in hubconf.__doc__.splitlines() if line.startswith("    ")]
    names: dict[str, Any] = {"torch": torch, "images": random_images(4)}
    exec(textwrap.dedent("\n".join(example)), names)
    expected = weights.load_network(hubconf.WEIGHTS / "residual20.safetensors").classifier(names["images"])
    assert torch.equal(names["logits"], expected)


def test_training_settings_do_not_matter_for_evaluation(folder: Path):
    trained = weights.load_network(folder)
    config = replace(trained.config, last_batch="drop", batch_size=5000)  # more than there are images
    data = replace(trained, config=config).load_data(None, CPU.torch_device)
    expected = load_data(trained.config, Path("data/synthetic"), CPU.torch_device)
    assert torch.equal(data.test.pixels, expected.test.pixels)
    torch.testing.assert_close(data.mean, expected.mean)


def test_a_network_in_an_unsupported_precision_is_evaluated_in_fp32(folder: Path, tmp_path: Path, capsys: Any):
    trained, path = weights.load_network(folder), tmp_path / "net.safetensors"
    weights.save_network(path, replace(trained, config=replace(trained.config, precision="tf32")))
    assert evaluate.main([str(path), "--data", "synthetic", "--device", "cpu"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()[:3]
    assert first == "evaluating in fp32, since this cpu device does not support tf32"
    assert third.split()[-1] in second, "the run was trained in fp32"


@pytest.mark.parametrize("net", PUBLISHED)
def test_published_networks_predict_as_recorded(cifar10_folder: Path, net: str):
    entry_point = getattr(hubconf, format_entry_point(net))
    assert f"weights/{net}.md" in entry_point.__doc__
    images_NHWC = torch.from_numpy(datasets.CIFAR10(cifar10_folder, train=False).data[:250])
    with torch.inference_mode():
        predicted = entry_point(pretrained=True)(images_NHWC.permute(0, 3, 1, 2) / 255).argmax(1)
    trained = weights.load_network(hubconf.WEIGHTS / f"{net}.safetensors")
    folder = hubconf.WEIGHTS.parent / "experiments" / "records" / trained.config.folder
    assert json.loads((folder / record.RESULT).read_text()) == trained.result
    recorded = [(record.RIGHT + record.WRONG).index(character) % 10 for character in record.read_predictions(folder) or ""]
    agreeing = sum(one == other for one, other in zip(predicted.tolist(), recorded[:250], strict=True))
    assert agreeing >= 247, "fp32 here, the run's precision there"


def test_a_lenet_classifies_gray_images_of_28_pixels(tmp_path: Path):
    config = Config(family="lenet", dataset="mnist")
    Image.new("RGB", (50, 40), (200, 200, 200)).save(tmp_path / "gray.png")
    images = predict.load_input(tmp_path / "gray.png", config.dataset_info)
    assert images.shape == (1, 1, 28, 28) and float(images.mean()) == pytest.approx(200 / 255)
    path = tmp_path / "net.safetensors"
    classifier = weights.Classifier(build_network(config), torch.full((1, 28, 28), 0.5), torch.ones(1, 1, 1))
    weights.save_network(path, weights.TrainedNetwork(classifier, config, {}, path))
    assert weights.load_network(path).config == config
    assert predict.main([str(path), str(tmp_path / "gray.png")]) == 0


def test_tensorboard_gets_the_metrics(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(home)
    assert run.main([*FLAGS, str(tmp_path), "--tensorboard", "--eval-every", "6"]) == 0
    folder = tmp_path / QUICK.folder
    events = accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    rows = [json.loads(line) for line in (folder / record.METRICS).read_text().splitlines()]
    for name in ("train_loss", "train_error", "test_error", "learning_rate"):
        points = [(event.step, event.value) for event in events.Scalars(name)]
        assert points == [(row["iteration"], pytest.approx(row[name])) for row in rows]


def test_a_missing_tensorboard_is_a_user_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="TensorBoard"):
        run.parse(["--tensorboard"])
