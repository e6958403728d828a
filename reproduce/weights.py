"""Load trained networks from run folders, weights files and other checkpoints; save weights files.

Shapes: N images in a batch, K classes.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from reproduce import record
from reproduce.config import Config
from reproduce.dataset import find_data_folder
from reproduce.errors import UserError
from reproduce.model import build_network, find_classifier
from reproduce.model_card import check_sha256
from reproduce.sampling import PADDING, Data, load_data
from reproduce.schema import Finished

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalization of akamaster/pytorch_resnet_cifar10, per channel."""


class Classifier(nn.Module):
    """A network with its normalization."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor):
        """mean: float32, 3 x 32 x 32, of pixels in [0, 1]. std: float32, 3 x 1 x 1."""
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the logits, N x K, of images in [0, 1]."""
        return self.network((images_NCHW - self.mean) / self.std)


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, on the CPU and in evaluation mode.

    result: as in result.json; for other repositories' checkpoints at most the best test error. source: its path.
    """

    classifier: Classifier
    config: Config
    result: dict[str, Any]
    source: str

    def normalize(self, data: Data) -> Data:
        """Return the same images with this network's normalization."""
        padded = nn.functional.pad(self.classifier.mean, (PADDING,) * 4).permute(1, 2, 0).flatten(0, 1)
        device = data.mean.device
        return replace(data, mean=padded.to(device), std=self.classifier.std.flatten().to(device))


def load_network(path: Path, data: str) -> TrainedNetwork:
    """Load a run folder, its best.pt, a weights file, or a checkpoint of akamaster/pytorch_resnet_cifar10.

    data: the value of --data; a run folder's normalization is computed from the dataset, the files contain theirs.

    Raises:
        UserError: the path is none of these or is damaged, the run has not finished, or its dataset is missing.
    """
    if path.is_dir():
        return load_run(path, data)
    if not path.is_file():
        raise UserError(f"there is no run folder or weights file {path}")
    if path.suffix == ".safetensors":
        return load_weights_file(path)
    if not (path.parent / record.CONFIG).is_file():
        return load_akamaster_checkpoint(path)
    if path.name == record.BEST:
        return load_run(path.parent, data, record.BEST)
    raise UserError(f"{path} is a file in a run folder: name the folder {path.parent} instead")


# Run folders ------------------------------------------------------------------------------------------------------------


def load_run(folder: Path, data: str, name: str = record.NEWEST) -> TrainedNetwork:
    """Load the network of a finished run or, with the name best.pt, of the best evaluation so far.

    Raises:
        UserError: the run has not finished, a file is missing or damaged, or the dataset is missing.
    """
    config, result, path = record.read_config(folder), record.read_result(folder), folder / name
    if config is None:
        raise UserError(f"{folder} is not a run folder: it contains no {record.CONFIG}")
    if name == record.NEWEST and not isinstance(result, Finished):
        raise UserError(f"the run in {folder} has not finished")
    if not path.exists():
        raise UserError(f"{folder} contains no {name}: checkpoints are not committed; train the run, or use a file in weights/")
    images = load_data(config, find_data_folder(config.dataset, data), torch.device("cpu"))
    checkpoint = record.read_checkpoint(path, record.checkpoint_identity(config, images.fingerprint))
    described = summarize_best(config, checkpoint) if name == record.BEST else to_builtins(result)
    if name == record.NEWEST and checkpoint["history"]["iteration"] != config.iterations:
        raise UserError(f"{path} is not from the run's last iteration: remove {record.RESULT} and resume the run")
    if config.initial:  # normalized like the pretrained network
        images = replace(images, mean=checkpoint["mean"], std=checkpoint["std"])
    mean, std = images.unpad(images.mean)[0].permute(2, 0, 1).contiguous(), images.std.view(-1, 1, 1)
    return build_classifier(config, checkpoint["network"], mean, std, described, folder if name == record.NEWEST else path)


def summarize_best(config: Config, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the result of best.pt: its last evaluation, and the criterion by which it was selected."""
    *_, row = checkpoint["rows"]
    return {
        **{name: row[name] for name in ("test_error", "held_out_error", "train_error", "train_loss") if name in row},
        "best_test_error": min(row["test_error"] for row in checkpoint["rows"]),
        "parameters": sum(parameter.numel() for parameter in build_network(config).parameters()),
        "iterations": row["iteration"],
        "chosen_by": record.BEST_BY[config.split],
    }


def build_classifier(
    config: Config, tensors: dict[str, Tensor], mean: Tensor, std: Tensor, result: dict[str, Any], source: Path
) -> TrainedNetwork:
    network = build_network(config)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{source} does not fit {config.net}: {' '.join(str(error).split())[:200]}") from None
    return TrainedNetwork(Classifier(network, mean, std).eval(), config, result, str(source))


# Weights files ----------------------------------------------------------------------------------------------------------


def save_network(path: Path, trained: TrainedNetwork):
    """Write weights, normalization, config and result to a safetensors file, atomically."""
    tensors = {name: tensor.contiguous() for name, tensor in trained.classifier.state_dict().items()}
    metadata = {"config": record.describe_config(trained.config), "result": trained.result}
    content = save(tensors, {name: json.dumps(value) for name, value in metadata.items()})
    # safetensors writes the metadata in random order; sorted, the same network always has the same SHA-256.
    start, length = 8, int.from_bytes(content[:8], "little")
    header = json.loads(content[start : start + length])
    header["__metadata__"] = {name: header["__metadata__"][name] for name in metadata}
    ordered = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    record.write_atomically(path, content[:start] + ordered + content[start + length :])


def load_weights_file(path: Path) -> TrainedNetwork:
    """Load a file written by `save_network`, and compare its SHA-256 with the model card next to it.

    Raises:
        UserError: the file is not a weights file, or is damaged.
    """
    check_sha256(path)
    config, result = record.read_weights_header(path)
    try:
        tensors = load_file(path)
        mean, std = tensors.pop("mean"), tensors.pop("std")
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path} is not a weights file of this repository ({type(error).__name__}: {error})") from None
    network = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
    return build_classifier(config, network, mean, std, result, path)


# Pretrained weights (--initial) -----------------------------------------------------------------------------------------


def load_initial_weights(path: Path, network: nn.Module, config: Config, data: Data) -> Data:
    """Load pretrained weights into `network`; return the data with their normalization.

    The last linear layer is loaded only if the class names match. A torchvision state_dict has no class names: its last linear
    layer is loaded if the number of classes matches, and the normalization is unchanged.

    Raises:
        UserError: the file cannot be read or does not fit the network.
    """
    own, head = network.state_dict(), find_classifier(network) + "."
    if config.family != "6n+2" and path.suffix != ".safetensors":
        pretrained = read_state_dict(path)
        has_same_classes = len(pretrained.get(head + "bias", ())) == len(config.dataset_info.class_names)
    else:
        trained = load_network(path, "")
        if config.normalization != Config.normalization:
            raise UserError(f"{path} includes its normalization: remove --normalization {config.normalization}")
        pretrained, data = trained.classifier.network.state_dict(), trained.normalize(data)
        has_same_classes = trained.config.dataset_info.class_names == config.dataset_info.class_names
    if not has_same_classes:
        pretrained |= {name: tensor for name, tensor in own.items() if name.startswith(head)}
    for name in own | pretrained:
        here, there = (list(tensors[name].shape) if name in tensors else "missing" for tensors in (own, pretrained))
        if here != there:
            raise UserError(f"{path} does not fit {config.net}: {name} is {there} in the file, {here} in the network")
    network.load_state_dict(pretrained)
    return data


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state_dict written by torch.save, by itself or under the key "state_dict".

    Raises:
        UserError: the file contains none.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = content.get("state_dict", content)
        return {name.removeprefix("module."): tensor.detach() for name, tensor in tensors.items()}
    except Exception as error:  # a foreign file may contain anything
        raise UserError(f"{path} is not a weights file: it contains no state_dict ({type(error).__name__})") from None


# Checkpoints of akamaster/pytorch_resnet_cifar10 ------------------------------------------------------------------------


def translate_name(name: str, blocks_per_stage: int) -> str:
    """Return the name of a parameter in this repository, given its name in theirs.

    conv1, bn1 -> conv, bn; layer<s>.<i> -> blocks.<(s - 1) n + i>; the names inside a block, and linear, are the same.
    The prefixes "module." (DataParallel) and "compressible_" (later versions) are removed.
    """
    first, *rest = name.replace("module.", "").replace("compressible_", "").split(".")
    if first.startswith("layer"):
        position, *rest = rest
        return ".".join(["blocks", str((int(first[5:]) - 1) * blocks_per_stage + int(position)), *rest])
    return ".".join([{"conv1": "conv", "bn1": "bn"}.get(first, first), *rest])


def load_akamaster_checkpoint(path: Path) -> TrainedNetwork:
    """Load a checkpoint with "state_dict" and "best_prec1".

    Raises:
        UserError: the file is not such a checkpoint.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        theirs = checkpoint["state_dict"]
        blocks_per_stage = len({name.split("layer1.")[1].split(".")[0] for name in theirs if "layer1." in name})
        tensors = {translate_name(name, blocks_per_stage): tensor for name, tensor in theirs.items()}
        tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        result = {"best_test_error": 100 - float(checkpoint["best_prec1"])} if "best_prec1" in checkpoint else {}
        config = Config(depth=6 * blocks_per_stage + 2)
    except Exception as error:  # a foreign file may contain anything
        raise UserError(
            f"{path} is neither a run folder, nor a weights file of this repository, nor a checkpoint of "
            f"akamaster/pytorch_resnet_cifar10 ({type(error).__name__})"
        ) from None
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return build_classifier(config, tensors, mean.expand(3, 32, 32).contiguous(), std, result, path)
