"""Trained networks, to be looked at and used: read from a run's folder, a published file, or another repository's checkpoint.

Shapes: N images in a batch, K classes.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from reproduce import record
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.model import build_network, classifier_name
from reproduce.model_card import check_sha256
from reproduce.sampling import PADDING, Data, find_data_folder, load_data

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""How akamaster/pytorch_resnet_cifar10 scales its images, by channel."""


class Classifier(nn.Module):
    """A trained network with its normalisation: takes images as they come."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor):
        """mean: float32, 3 x 32 x 32, of pixels in [0, 1]; std: float32, 3 x 1 x 1."""
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, N x K, of images in [0, 1], N x 3 x 32 x 32."""
        return self.network((images_NCHW - self.mean) / self.std)


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, on the CPU and in evaluation mode.

    result: what the run's result.json says, or of another repository's network the best test error at most.
    source: what it was read from, for people.
    """

    classifier: Classifier
    config: Config
    result: dict[str, Any]
    source: str

    def normalise(self, data: Data) -> Data:
        """The same images under the scale that the network was trained with."""
        padded = nn.functional.pad(self.classifier.mean, (PADDING,) * 4).permute(1, 2, 0).flatten(0, 1)
        device = data.mean.device
        return replace(data, mean=padded.to(device), std=self.classifier.std.flatten().to(device))


def load_network(path: Path, data: str) -> TrainedNetwork:
    """The trained network of a run's folder, of the best.pt in one, of a file by `save_network`, or of a checkpoint of
    akamaster/pytorch_resnet_cifar10.

    data: as for `--data`, where the training images of a run's folder are, for their mean; the files know their own.

    Raises:
        UserError: it is none of them or damaged, the run has not finished, or its data set is missing.
    """
    if path.is_dir():
        return load_run(path, data)
    if not path.is_file():
        raise UserError(f"there is no run folder and no weights file {path}")
    if path.name == record.BEST and (path.parent / record.CONFIG).is_file():
        return load_run(path.parent, data, record.BEST)
    if path.suffix != ".safetensors" and (path.parent / record.CONFIG).is_file():
        raise UserError(f"{path} is a file of a run: name the run's folder instead, {path.parent}")
    return load_weights_file(path) if path.suffix == ".safetensors" else load_akamaster(path)


def load_run(folder: Path, data: str, name: str = record.NEWEST) -> TrainedNetwork:
    """The network of a run's last iteration or, of an unfinished one too, of its best evaluation (name best.pt)."""
    config, result, path = record.read_config(folder), record.read_result(folder), folder / name
    if config is None:
        raise UserError(f"{folder} is not a run's folder: it holds no {record.CONFIG}")
    if name == record.NEWEST and (result is None or result["status"] != "finished"):
        raise UserError(f"{folder} is of a run that has not finished: train it to its end")
    images = load_data(config, find_data_folder(config, data), torch.device("cpu"))
    if not path.exists():
        raise UserError(f"{folder} holds no {name}: weights are not part of the committed records")
    checkpoint = record.read_checkpoint(path, record.checkpoint_identity(config, images.fingerprint))
    if isinstance(checkpoint, str):
        raise UserError(f"{path} {checkpoint}")
    try:
        reached = checkpoint["history"]["iteration"]
        if name == record.NEWEST and reached != config.iterations:
            remedy = f"set {record.RESULT} aside, and the run's own command goes on from there"
            raise UserError(
                f"{path} is of iteration {reached} of {config.iterations}, and no longer what the run ended with: {remedy}"
            )
        if name == record.BEST:
            result = describe_best(config, checkpoint)
        if config.initial:  # its scale is the file's
            images = replace(images, mean=checkpoint["mean"], std=checkpoint["std"])
        mean, std = images.unpad(images.mean)[0].permute(2, 0, 1), images.std.view(-1, 1, 1)
        network = checkpoint["network"]
    except (KeyError, IndexError, RuntimeError, TypeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__})") from None
    assert result is not None
    return build_classifier(config, network, mean.contiguous(), std, result, str(folder if name == record.NEWEST else path))


def describe_best(config: Config, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What stands for the result of a best evaluation's checkpoint: its last row, and by what that was chosen."""
    *_, row = checkpoint["rows"]
    return {
        **{name: row[name] for name in ("test_error", "held_out_error", "train_error", "train_loss") if name in row},
        "best_test_error": min(row["test_error"] for row in checkpoint["rows"]),
        "parameters": sum(parameter.numel() for parameter in build_network(config).parameters()),
        "iterations": row["iteration"],
        "chosen_by": record.BEST_BY[config.split],
    }


def build_classifier(
    config: Config, tensors: dict[str, Tensor], mean: Tensor, std: Tensor, result: dict[str, Any], source: str
) -> TrainedNetwork:
    network = build_network(config)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{source} does not fit a {config.net}: {' '.join(str(error).split())[:200]}") from None
    channels, side = config.dataset_info.channels, config.dataset_info.side
    if mean.shape != (channels, side, side) or std.shape != (channels, 1, 1):
        shapes = f"{list(mean.shape)} and {list(std.shape)}, not {[channels, side, side]} and {[channels, 1, 1]}"
        raise UserError(f"{source} scales images by a mean and a std of {shapes}")
    classifier = Classifier(network, mean.float(), std.float()).eval()
    broken = [name for name, tensor in classifier.state_dict().items() if not tensor.isfinite().all()]
    if broken or not bool((std > 0).all()):
        raise UserError(f"{source} is damaged: {broken[0] if broken else 'std'} holds numbers that no trained network has")
    return TrainedNetwork(classifier, config, result, source)


# To train on from ------------------------------------------------------------------------------------------------------


def load_initial_weights(path: Path, network: nn.Module, config: Config, data: Data) -> Data:
    """Gives a config's network the weights of a file to begin with; returns the data under the scale that those know.

    The last linear layer is the file's where the classes are the same, else it stays as the config's seed has drawn it. A
    state_dict, of a net of torchvision's, knows neither classes nor scale: only their number counts, and the scale is the
    config's.

    Raises:
        UserError: the file is not to be read or does not fit the network; the sentence names the first tensor that does not.
    """
    own, head = network.state_dict(), classifier_name(network) + "."
    theirs = read_state_dict(path) if config.family != "6n+2" and path.suffix != ".safetensors" else None
    if theirs is None:
        trained = load_network(path, "")
        if config.normalization != Config.normalization:
            raise UserError(f"{path} brings its own normalisation: leave out --normalization {config.normalization}")
        theirs, data = trained.classifier.network.state_dict(), trained.normalise(data)
        is_known = trained.config.dataset_info.class_names == config.dataset_info.class_names
    else:
        is_known = len(theirs.get(head + "bias", ())) == len(config.dataset_info.class_names)
    for name, tensor in own.items():
        if name.startswith(head) and not is_known:
            theirs[name] = tensor
        if name not in theirs or theirs[name].shape != tensor.shape:
            there = list(theirs[name].shape) if name in theirs else "missing"
            raise UserError(f"{path} does not fit a {config.net}: {name} is {there} there, and {list(tensor.shape)} here")
    surplus = [name for name in theirs if name not in own]
    if surplus:
        raise UserError(f"{path} does not fit a {config.net}, which has no {surplus[0]}")
    network.load_state_dict(theirs)
    return data


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that torch.save has made of a network's state_dict, maybe as "state_dict" among others.

    Raises:
        UserError: it is none.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = content.get("state_dict", content)
        return {name.removeprefix("module."): tensor.detach() for name, tensor in tensors.items()}
    except Exception as error:  # whatever a foreign file may hold
        raise UserError(f"{path} is no file of weights: it holds no state_dict ({type(error).__name__})") from None


# Published files --------------------------------------------------------------------------------------------------------


def save_network(path: Path, trained: TrainedNetwork):
    """Writes weights, normalisation, config and result as one safetensors file, whole or not at all."""
    tensors = {name: tensor.contiguous() for name, tensor in trained.classifier.state_dict().items()}
    described = {"config": record.describe_config(trained.config), "result": trained.result}
    content = save(tensors, {name: json.dumps(value) for name, value in described.items()})
    # safetensors puts what is described in any order: the same net would have another SHA-256 every time.
    start, length = 8, int.from_bytes(content[:8], "little")
    header = json.loads(content[start : start + length])
    header["__metadata__"] = {name: header["__metadata__"][name] for name in described}
    ordered = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    record.write_atomically(path, content[:start] + ordered + content[start + length :])


def load_weights_file(path: Path) -> TrainedNetwork:
    """A file by `save_network`, and the one of its card where that is beside it."""
    check_sha256(path)
    config, result = record.read_weights_header(path)
    try:
        tensors = load_file(path)
        mean, std = tensors.pop("mean"), tensors.pop("std")
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path} is not a weights file of this repository ({type(error).__name__}: {error})") from None
    errors = ("test_error", "train_error", "best_test_error")
    if not isinstance(result, dict) or not all(isinstance(result.get(name, 0.0), int | float) for name in errors):
        raise UserError(f"{path} is not a weights file of this repository: its result does not read as one")
    network = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
    return build_classifier(config, network, mean, std, result, str(path))


# Checkpoints of akamaster/pytorch_resnet_cifar10 ------------------------------------------------------------------------


def rename(name: str, blocks_per_stage: int) -> str:
    """A parameter's name here for one of theirs.

    conv1, bn1 -> conv, bn; layer<s>.<i> -> blocks.<(s - 1) n + i>, with the same conv1, bn1, conv2, bn2 inside; linear stays.
    Each may stand behind "module." (DataParallel) and "compressible_" (later versions).
    """
    first, *rest = name.replace("module.", "").replace("compressible_", "").split(".")
    if first.startswith("layer"):
        position, *rest = rest
        return ".".join(["blocks", str((int(first[5:]) - 1) * blocks_per_stage + int(position)), *rest])
    return ".".join([{"conv1": "conv", "bn1": "bn"}.get(first, first), *rest])


def load_akamaster(path: Path) -> TrainedNetwork:
    """A checkpoint that holds "state_dict" and "best_prec1", option-A shortcuts with zero channels on both sides as here."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        theirs = checkpoint["state_dict"]
        blocks_per_stage = len({name.split("layer1.")[1].split(".")[0] for name in theirs if "layer1." in name})
        tensors = {rename(name, blocks_per_stage): tensor for name, tensor in theirs.items()}
        tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        result = {"best_test_error": 100 - float(checkpoint["best_prec1"])} if "best_prec1" in checkpoint else {}
        config = Config(depth=6 * blocks_per_stage + 2)
    except Exception as error:  # whatever a foreign file may hold
        raise UserError(
            f"{path} is neither a run's folder, nor a .safetensors file of this repository, nor a checkpoint of "
            f"akamaster/pytorch_resnet_cifar10 ({type(error).__name__})"
        ) from None
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return build_classifier(config, tensors, mean.expand(3, 32, 32).contiguous(), std, result, str(path))
