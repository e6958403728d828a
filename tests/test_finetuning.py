"""Fine-tuning (--initial, --trainable): which weights are loaded, which are frozen, and files that do not fit."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from reproduce import checkpoints, cli, evaluate, export, record, run, weights
from reproduce.config import Config, format_flags
from reproduce.errors import UserError
from reproduce.evaluation import measure_error, update_population_statistics
from reproduce.model import build_network, conv3x3
from reproduce.sampling import Data, load_data
from reproduce.step import Training
from tests.conftest import CPU, assert_equal, interrupt
from tests.outcome import read_outcome
from tests.test_image_folder import write_images

BEFORE = "--depth 8 --batch-size 8 --iterations 16 --device cpu --data before --lr 0.05".split()
AFTER = "--depth 8 --batch-size 8 --iterations 12 --device cpu --data after --initial net.safetensors".split()
TRAINED = {
    "all": ("conv", "bn", "blocks", "linear"),
    "last-stage": ("blocks.2", "linear"),
    "head": ("linear",),
}
"""Prefixes of the trainable parameters, for a network with one block per stage."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with two image folders, and weights trained on the first."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_images(Path("before"), ["apple", "bread", "cheese"])
        write_images(Path("after"), ["cat", "dog", "emu", "fox"])
        assert run.main(BEFORE) == 0
        (folder,) = Path("runs").glob("*/seed0")
        assert export.main([str(folder), "--output", "net.safetensors"]) == 0
    return home


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with links to the content of `home`, except its runs."""
    for name in ("before", "after", "net.safetensors"):
        (tmp_path / name).symlink_to(home / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_network(path: str) -> dict[str, Tensor]:
    return {name.removeprefix("network."): tensor for name, tensor in load_file(path).items() if name.startswith("network.")}


def load_initial(path: Path, config: Config, folder: str) -> tuple[nn.Module, Data]:
    """Return the initial network of a run, and its data."""
    network = build_network(config)
    return network, weights.load_initial_weights(path, network, config, load_data(config, Path(folder), CPU.torch_device))


# Loading and freezing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", TRAINED)
def test_only_trainable_layers_change(place: Path, trainable: str):
    """Weights and BN statistics."""
    assert run.main([*AFTER, "--trainable", trainable]) == 0
    (folder,) = Path("runs").glob("*/seed0")
    after, before = torch.load(folder / checkpoints.NEWEST)["network"], read_network("net.safetensors")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in after if name.startswith(TRAINED[trainable])}
    config = record.read_config(folder)
    assert config is not None and config.trainable == trainable


def test_a_best_checkpoint_can_be_fine_tuned(place: Path):
    assert run.main([*BEFORE, "--keep-best"]) == 0
    (best,) = Path("runs").glob("*/seed0/best.pt")
    config = run.parse([*AFTER[:-1], str(best)])[0]
    network, _ = load_initial(best, config, "after")
    assert torch.equal(network.get_parameter("conv.weight"), torch.load(best)["network"]["conv.weight"])


def test_frozen_bn_uses_its_running_statistics(place: Path):
    config, options = run.parse([*AFTER, "--trainable", "head"])
    assert options.initial is not None
    network, data = load_initial(options.initial, config, "after")
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items() if "running" in name}
    training = Training(config, data, CPU, False, network)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def features(network: Any) -> Tensor:
        return network.blocks(torch.relu(network.bn(network.conv(images))))

    pretrained, before = weights.load_network(options.initial).classifier.network, features(training.network)
    assert torch.allclose(before, features(pretrained.eval()), atol=1e-4)
    assert not torch.allclose(before, features(pretrained.train()), atol=0.1)
    measure_error(training.network, data.test, data, CPU, config)
    update_population_statistics(training.network, data, CPU, config)
    assert torch.equal(features(training.network), before)
    assert_equal({name: tensor for name, tensor in training.network.state_dict().items() if "running" in name}, initial)


def test_the_head_is_loaded_only_for_the_same_classes(place: Path):
    shutil.copytree("before", "renamed")
    for part in ("train", "test"):
        Path("renamed", part, "apple").rename(Path("renamed", part, "pear"))
    pretrained = read_network("net.safetensors")
    for folder, is_same in (("before", True), ("after", False), ("renamed", False)):
        config = run.parse([*AFTER, "--data", folder, "--seed", "3"])[0]
        network, _ = load_initial(Path("net.safetensors"), config, folder)
        random = build_network(config).state_dict()
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, (random if name.startswith("linear") and not is_same else pretrained)[name])


def test_a_torchvision_state_dict_leaves_the_normalization(place: Path):
    network = models.resnet18(num_classes=4)
    network.conv1 = conv3x3(3, 64)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in network.state_dict().items()}}, "theirs.pth")
    flags = "--family resnet18 --device cpu --normalization channel-mean-std --initial theirs.pth --data".split()
    for folder, is_same in (("after", True), ("before", False)):
        config, _ = run.parse([*flags, folder])
        with pytest.warns(UserWarning, match="no class names and no normalization"):
            loaded, data = load_initial(Path("theirs.pth"), config, folder)
        assert data.std.tolist() != [1, 1, 1]
        bias, weight = "fc.bias", "layer4.1.conv2.weight"
        assert torch.equal(loaded.get_parameter(bias), network.get_parameter(bias) if is_same else torch.zeros(3))
        assert torch.equal(loaded.get_parameter(weight), network.get_parameter(weight))
        training = Training(replace(config, trainable="last-stage"), data, CPU, capture=False)
        trainable = {name.split(".")[0] for name, parameter in training.network.named_parameters() if parameter.requires_grad}
        assert trainable == {"layer4", "fc"}
        assert {name.split(".")[0] for name, module in training.network.named_modules() if module.training} == {"layer4", "fc"}


def test_a_fine_tuned_network_keeps_the_pretrained_normalization(place: Path, capsys: pytest.CaptureFixture[str]):
    assert run.main(AFTER) == 0
    (folder,) = Path("runs").glob("*/seed0")
    assert torch.equal(weights.load_network(folder).classifier.mean, load_file("net.safetensors")["mean"])
    capsys.readouterr()
    assert evaluate.main([str(folder), "--device", "cpu"]) == 0
    measured, recorded = capsys.readouterr().out.splitlines()[:2]
    assert recorded.split()[-1] in measured
    assert cli.run_cli(run.main, [*AFTER, "--normalization", "channel-mean"]) == 2


# Identity and resuming --------------------------------------------------------------------------------------------------


def test_a_run_is_identified_by_the_content_of_the_initial_file(place: Path):
    config, options = run.parse([*AFTER, "--trainable", "head"])
    assert run.parse(format_flags(config, options)) == (config, options)
    assert format_flags(config)[-4:] == ["--data", "DIR", "--initial", "FILE"]
    shutil.copy("net.safetensors", "copy.safetensors")
    flags = [*AFTER[:-1], "copy.safetensors", "--trainable", "head"]
    assert run.parse(flags)[0] == config
    Path("copy.safetensors").write_bytes(Path("net.safetensors").read_bytes() + b" ")
    other = run.parse(flags)[0]
    assert other.key != config.key and replace(other, initial=config.initial) == config
    (place / "private").mkdir()
    shutil.copy("net.safetensors", "private")
    assert run.main([*AFTER[:-1], "private/net.safetensors"]) == 0
    (sessions,) = Path("runs").glob("*/seed0/environment.json")
    assert "--initial net.safetensors" in sessions.read_text() and "private" not in sessions.read_text()


def test_a_config_of_fine_tuning_needs_its_images_and_its_weights(place: Path, capsys: pytest.CaptureFixture[str]):
    config, _ = run.parse(AFTER)
    Path("config.json").write_text(json.dumps(record.describe_config(config)))
    for flags, missing in (([], "--initial FILE"), (["--initial", "net.safetensors"], "--data DIR")):
        assert cli.run_cli(run.main, ["--config", "config.json", *flags]) == 2
        assert re.fullmatch(f"error: config.json describes .*: add {missing}\n", capsys.readouterr().err)
    assert run.parse(["--config", "config.json", "--initial", "net.safetensors", "--data", "after"])[0] == config
    with pytest.raises(UserError, match="--data must be an image folder .*, got before.*typo$"):
        run.parse(["--config", "config.json", "--initial", "net.safetensors", "--data", "before-typo"])


def test_a_config_of_mnist_needs_mnist(workplace: Path):
    config = Config(family="lenet", dataset="mnist")
    Path("config.json").write_text(json.dumps(record.describe_config(config)))
    for flags in ([], ["--data", "folder/MNIST"]):
        assert run.parse(["--config", "config.json", *flags])[0] == config
    with pytest.raises(UserError, match="--data must be mnist or a folder named MNIST, as in config.json, got folder$"):
        run.parse(["--config", "config.json", "--data", "folder"])


@pytest.mark.parametrize(("trainable", "flags"), [("head", []), ("last-stage", ["--optimizer", "adamw"])])
def test_a_stopped_run_resumes_to_the_bit(place: Path, monkeypatch: pytest.MonkeyPatch, trainable: str, flags: list[str]):
    line = [*AFTER, "--trainable", trainable, *flags]
    assert run.main([*line, "--out", "unbroken"]) == 0
    interrupt(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run.main([*line, "--out", "stopped", "--checkpoint-every", "5"]) == 75
    assert run.main([*line, "--out", "stopped"]) == 0
    folder = run.parse(line)[0].folder
    assert_equal(read_outcome(Path("stopped") / folder), read_outcome(Path("unbroken") / folder))


# Files that do not fit --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*only the shapes are checked")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--block bn-after-add", "net.safetensors was trained with --block original, got --block bn-after-add"),
        ("--no-residual", "net.safetensors was trained with --residual, got --no-residual"),
        ("--family resnet18", "net.safetensors was trained with --family 6n+2, got --family resnet18"),
        ("--initial missing.pth", "--initial missing.pth is not a weights file"),
        (
            "--family resnet18 --initial stem.pth",
            "stem.pth does not fit resnet18: Error(s) in loading state_dict for ResNet: size",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_a_user_error(place: Path, capsys: pytest.CaptureFixture[str], flags: str, message: str):
    """The first two networks have the same tensors as this one; stem.pth is torchvision's network for ImageNet."""
    torch.save(models.resnet18().state_dict(), "stem.pth")
    network = [] if "family" in flags else ["--depth", "8"]
    line = ["--iterations", "2", "--device", "cpu", "--data", "after", "--initial", "net.safetensors", *network, *flags.split()]
    assert cli.run_cli(run.main, line) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"error: {message}") and captured.err.count("\n") == 1
    assert not Path("runs").exists()
