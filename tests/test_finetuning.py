"""Training on from a file of weights: what is taken, what is drawn, what stays as it is, and files that do not fit."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision import models

from reproduce import evaluate, export, image_folder, record, run, weights
from reproduce.config import Config, format_flags
from reproduce.errors import UserError
from reproduce.evaluation import measure_error, update_population_statistics
from reproduce.model import build_network, conv3x3
from reproduce.sampling import Data, load_data
from reproduce.step import Training
from tests.conftest import CPU, assert_equal
from tests.outcome import read_outcome
from tests.test_image_folder import write_pictures
from tests.test_resume import interrupt

BEFORE = "--depth 8 --batch-size 8 --iterations 16 --device cpu --data before --lr 0.05".split()
AFTER = "--depth 8 --batch-size 8 --iterations 12 --device cpu --data after --initial net.safetensors".split()
TRAINED = {
    "all": ("conv", "bn", "blocks", "linear"),
    "last-stage": ("blocks.2", "linear"),
    "head": ("linear",),
}
"""What each way trains of a net of one block a stage."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with two data sets of other classes, and weights that have learnt the first."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_pictures(Path("before"), ["apple", "bread", "cheese"])
        write_pictures(Path("after"), ["cat", "dog", "emu", "fox"])
        assert run.main(BEFORE) == 0
        (folder,) = Path("runs").glob("*/seed0")
        assert export.main([str(folder), "--format", "safetensors", "--output", "net.safetensors", "--data", "before"]) == 0
    return home


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with links to what is in `home`, apart from its runs."""
    for name in ("before", "after", "net.safetensors"):
        (tmp_path / name).symlink_to(home / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def network_of(path: str) -> dict[str, Tensor]:
    return {name.removeprefix("network."): tensor for name, tensor in load_file(path).items() if name.startswith("network.")}


def begin_with(path: Path, config: Config) -> tuple[dict[str, Tensor], Data]:
    """What a network of the config begins with, of pictures in the folder of that name, and its data."""
    network, folder = build_network(config), {3: "before", 4: "after"}[len(config.dataset_info.class_names)]
    folder = "renamed" if "pear" in config.classes else folder
    data = weights.load_initial_weights(path, network, config, load_data(config, Path(folder), CPU.torch_device))
    return network.state_dict(), data


@pytest.mark.parametrize("trainable", TRAINED)
def test_what_is_frozen_stays_to_the_bit_and_the_rest_learns(place: Path, trainable: str):
    """Weights, and the statistics of BN."""
    assert run.main([*AFTER, "--trainable", trainable]) == 0
    (folder,) = Path("runs").glob("*/seed0")
    after, before = torch.load(folder / record.NEWEST)["network"], network_of("net.safetensors")
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in after if name.startswith(TRAINED[trainable])}
    config = record.read_config(folder)
    assert config is not None and config.trainable == trainable and record.read_record(folder, config).result is not None


def test_bn_that_is_frozen_normalises_by_its_statistics_whatever_is_measured_in_between(place: Path):
    config, options = run.parse([*AFTER, "--trainable", "head"])
    assert options.initial is not None
    network = build_network(config)
    data = weights.load_initial_weights(options.initial, network, config, load_data(config, Path("after"), CPU.torch_device))
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    training = Training(config, data, CPU, False, network)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def features(network: Any) -> Tensor:
        return network.blocks(torch.relu(network.bn(network.conv(images))))

    theirs, before = weights.load_network(options.initial, "").classifier.network, features(training.network)
    assert torch.allclose(before, features(theirs.eval()), atol=1e-4)
    assert not torch.allclose(before, features(theirs.train()), atol=0.1)
    measure_error(training.network, data.test, data, CPU, config)
    update_population_statistics(training.network, data, CPU, config)
    assert torch.equal(features(training.network), before)
    assert_equal({name: tensor for name, tensor in training.network.state_dict().items() if "running" in name},
                 {name: tensor for name, tensor in initial.items() if "running" in name})  # fmt: skip


def test_the_head_is_the_files_for_the_same_classes_and_else_the_seeds(place: Path):
    path = Path("net.safetensors")
    for data, same in (("before", True), ("after", False)):
        config = run.parse([*AFTER[:-4], "--data", data, "--initial", "net.safetensors", "--seed", "3"])[0]
        tensors, _ = begin_with(path, config)
        drawn, taken = build_network(config).state_dict(), network_of("net.safetensors")
        for name, tensor in tensors.items():
            assert torch.equal(tensor, (drawn if name.startswith("linear") and not same else taken)[name])
    image_folder.describe_image_folder.cache_clear()
    shutil.copytree("before", "renamed", symlinks=False)
    for part in ("train", "test"):
        Path("renamed", part, "apple").rename(Path("renamed", part, "pear"))
    config = run.parse([*AFTER[:-4], "--data", "renamed", "--initial", "net.safetensors"])[0]
    tensors, _ = begin_with(path, config)
    assert torch.equal(tensors["linear.weight"], build_network(config).state_dict()["linear.weight"]), "as many, but others"


def test_pictures_are_scaled_as_those_that_the_file_has_learnt_from(place: Path, capsys: pytest.CaptureFixture[str]):
    assert run.main(AFTER) == 0
    (folder,) = Path("runs").glob("*/seed0")
    trained, mean = weights.load_network(folder, "after"), load_file("net.safetensors")["mean"]
    assert torch.equal(trained.classifier.mean, mean)
    config = record.read_config(folder)
    assert config is not None
    own = load_data(config, Path("after"), CPU.torch_device)
    assert not torch.equal(own.unpad(own.mean)[0].permute(2, 0, 1), mean)
    assert evaluate.main([str(folder), "--data", "after", "--device", "cpu"]) == 0
    result = record.read_result(folder)
    assert result is not None and f"test error {result['test_error']:.2f}%" in capsys.readouterr().out
    assert run.main([*AFTER, "--normalization", "channel-mean"]) == 2
    assert capsys.readouterr().err == (
        "error: net.safetensors brings its own normalisation: leave out --normalization channel-mean\n"
    )


def test_the_record_knows_the_file_by_its_content(place: Path):
    config, options = run.parse([*AFTER, "--trainable", "head"])
    assert run.parse(format_flags(config, options)) == (config, options)
    assert format_flags(config)[-4:] == ["--data", "DIR", "--initial", "FILE"]
    shutil.copy("net.safetensors", "copy.safetensors")
    flags = [*AFTER[:-1], "copy.safetensors", "--trainable", "head"]
    assert run.parse(flags)[0] == config, "its name does not matter"
    Path("copy.safetensors").write_bytes(Path("net.safetensors").read_bytes() + b" ")
    other = run.parse(flags)[0]
    assert other.key != config.key and replace(other, initial=config.initial) == config
    assert options.initial is not None
    with record.open_run_folder(config, Path("runs")) as folder:
        inside = replace(options, initial=Path("/somewhere/net.safetensors"))
        about: dict[str, Any] = {"device": "cpu", "device_name": "", "threads": 1, "platform": "", "versions": {}, "flags": {}}
        record.add_session(folder, config, inside, about | {"data": {"name": "pictures", "sha256": ""}})
        (session,) = record.read_sessions(folder)
        assert json.loads((folder / record.CONFIG).read_text())["initial"] == config.initial
    assert "--initial net.safetensors" in session["command"] and "somewhere" not in session["command"]


def test_a_run_does_not_go_on_with_another_file(place: Path, capsys: pytest.CaptureFixture[str]):
    """Not even where somebody has put it into the folder of the first."""
    assert run.main([*AFTER, "--time-limit", "0.001"]) == 75
    first = run.parse(AFTER)[0]
    tensors = load_file("net.safetensors")
    trained = weights.load_network(Path("net.safetensors"), "")
    trained.classifier.load_state_dict(tensors | {"network.conv.weight": tensors["network.conv.weight"] * 2})
    weights.save_network(Path("other.safetensors"), trained)
    flags = [*AFTER[:-1], "other.safetensors"]
    second = run.parse(flags)[0]
    shutil.copytree(Path("runs") / first.folder, Path("runs") / second.folder)
    capsys.readouterr()
    assert run.main(flags) == 2
    assert capsys.readouterr().err.endswith("describes another run (key, initial differing): choose another --out\n")


@pytest.mark.parametrize(("trainable", "flags"), [("head", []), ("last-stage", ["--optimizer", "adamw"])])
def test_a_stopped_run_goes_on_to_the_bit(place: Path, monkeypatch: pytest.MonkeyPatch, trainable: str, flags: list[str]):
    line = [*AFTER, "--trainable", trainable, *flags]
    assert run.main([*line, "--out", "unbroken"]) == 0
    interrupt(monkeypatch, 12, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run.main([*line, "--out", "stopped", "--checkpoint-every", "5", "--eval-every", "5"]) in (0, 75)
    interrupt(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run.main([*line, "--out", "again", "--checkpoint-every", "5"]) == 75
    assert run.main([*line, "--out", "again"]) == 0
    folder = run.parse(line)[0].folder
    assert_equal(read_outcome(Path("again") / folder), read_outcome(Path("unbroken") / folder))


# Files that do not fit --------------------------------------------------------------------------------------------------


def write_damaged(path: Path):
    path.write_bytes(Path("net.safetensors").read_bytes()[:-100])


WRONG: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "of another depth": (
        "--depth 14",
        lambda path: shutil.copy("net.safetensors", path),
        "wrong.safetensors does not fit a residual14: blocks.1.conv1.weight is [32, 16, 3, 3] there, and [16, 16, 3, 3] here",
    ),
    "without a tensor": (
        "--depth 8 --shortcut B",
        lambda path: shutil.copy("net.safetensors", path),
        "wrong.safetensors does not fit a residual8: blocks.1.shortcut.0.weight is missing there, and [32, 16, 1, 1] here",
    ),
    "with a tensor too many": (
        "--depth 8 --block full-preactivation",
        lambda path: shutil.copy("net.safetensors", path),
        "wrong.safetensors does not fit a residual8: blocks.1.bn1.weight is [32] there, and [16] here",
    ),
    "damaged": ("--depth 8", write_damaged, "wrong.safetensors is not a weights file of this repository (SafetensorError: "),
    "not of weights": (
        "--depth 8",
        lambda path: path.write_text("weights"),
        "wrong.safetensors is not a weights file of this repository (SafetensorError: ",
    ),
    "missing": ("--depth 8", lambda path: None, "--initial wrong.safetensors is not a file of weights: export.py makes one"),
    "of torchvision's own stem": (
        "--family resnet18",
        lambda path: torch.save(models.resnet18().state_dict(), path),
        "wrong.pth does not fit a resnet18: conv1.weight is [64, 3, 7, 7] there, and [64, 3, 3, 3] here",
    ),
    "of nothing to be read": (
        "--family resnet18",
        lambda path: torch.save([1, 2], path),
        "wrong.pth is no file of weights: it holds no state_dict (AttributeError)",
    ),
}


def test_a_checkpoint_of_a_run_is_no_file_to_begin_with(place: Path, capsys: pytest.CaptureFixture[str]):
    (folder := Path("runs") / Config().folder).mkdir(parents=True)
    record.write_json(folder / record.CONFIG, record.describe_config(Config()))
    shutil.copy("net.safetensors", folder / record.BEST)
    assert run.main(["--data", "after", "--initial", str(folder / record.BEST)]) == 2
    assert "best.pt is not a file of weights: export.py makes one" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_file_is_one_sentence_before_anything_is_made(place: Path, capsys: pytest.CaptureFixture[str], wrong: str):
    flags, make, sentence = WRONG[wrong]
    path = Path("wrong.pth" if "resnet18" in flags else "wrong.safetensors")
    make(path)
    assert run.main([*flags.split(), "--device", "cpu", "--data", "after", "--initial", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"error: {sentence}") and captured.err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_state_dict_of_torchvision_is_taken_with_the_scale_of_the_pictures(place: Path):
    network = models.resnet18(num_classes=4)
    network.conv1 = conv3x3(3, 64)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in network.state_dict().items()}}, "theirs.pth")
    flags = "--family resnet18 --device cpu --normalization channel-mean-std --initial theirs.pth --data".split()
    for data, same in (("after", True), ("before", False)):
        config, _ = run.parse([*flags, data])
        tensors, images = begin_with(Path("theirs.pth"), config)
        assert images.std.tolist() != [1, 1, 1]
        assert torch.equal(tensors["fc.bias"], network.fc.bias if same else torch.zeros(3))
        assert torch.equal(tensors["layer4.1.conv2.weight"], network.state_dict()["layer4.1.conv2.weight"])
    config = replace(config, trainable="last-stage")
    training = Training(config, images, CPU, capture=False)
    learning = {name.split(".")[0] for name, parameter in training.network.named_parameters() if parameter.requires_grad}
    assert learning == {"layer4", "fc"}
    assert {name.split(".")[0] for name, module in training.network.named_modules() if module.training} == {"layer4", "fc"}


def test_layers_are_frozen_only_where_a_file_fills_them():
    with pytest.raises(UserError, match="^--trainable head keeps layers as they begin: name the file they come from by --init"):
        run.parse(["--trainable", "head", "--data", "synthetic"])
    with pytest.raises(UserError, match="^lenet has no stages: --trainable is all or head$"):
        Config(family="lenet", dataset="mnist", trainable="last-stage")
    frozen = build_network(Config(family="lenet", dataset="mnist"))
    assert np.prod(list(frozen.parameters())[-1].shape) == 10
