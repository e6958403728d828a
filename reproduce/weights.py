"""Load trained networks from run folders, weights files and other repositories' checkpoints; save weights files.

Shapes: N images in a batch, K classes.
"""

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins
from safetensors.torch import load_file, save
from torch import Tensor, nn

from reproduce import checkpoints, record
from reproduce.config import SCHEMA, Config
from reproduce.dataset import detect_dataset, find_data_folder
from reproduce.errors import UserError
from reproduce.model import build_network, count_parameters, find_head
from reproduce.model_card import check_sha256, read_weights_header
from reproduce.sampling import PADDING, Data, load_data
from reproduce.schema import Finished

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalization of akamaster/pytorch_resnet_cifar10, per channel."""
ARCHITECTURE = ("family", "depth", "residual", "shortcut", "block")
"""The fields of a configuration that determine what a network computes, given its tensors."""


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

    result: as in result.json; for other repositories' checkpoints at most the best test error. source: its path. data_folder:
    the folder of the dataset that it was trained on, if known.
    """

    classifier: Classifier
    config: Config
    result: dict[str, Any]
    source: Path
    data_folder: Path | None = None

    def normalize(self, data: Data) -> Data:
        """Return the same images with this network's normalization."""
        padded = nn.functional.pad(self.classifier.mean, (PADDING,) * 4).permute(1, 2, 0).flatten(0, 1)
        device = data.mean.device
        return replace(data, mean=padded.to(device), std=self.classifier.std.flatten().to(device))

    def load_data(self, data: str | None, device: torch.device) -> Data:
        """Load the dataset of --data or, by default, the one that the network was trained on, with its normalization.

        Raises:
            UserError: --data is another dataset, or the dataset is missing.
        """
        info, name = self.config.dataset_info, self.config.dataset
        accepted = (name,) if name == "synthetic" else (name, "cifar10")  # "cifar10" is any folder without a known layout
        if data is not None and detect_dataset(data) not in accepted:
            raise UserError(f"{self.source} was trained on {info.title}: --data must be its folder, got {data}")
        if data is not None:
            folder = find_data_folder(name, data)
        elif self.data_folder is not None and self.data_folder.is_dir():
            folder = self.data_folder
        elif name == "pictures":
            raise UserError(f"the image folder of {self.source} is {self.data_folder or 'unknown'}: add --data DIR")
        else:
            folder = find_data_folder(name, info.default_data)
        config = replace(self.config, split="full", last_batch="stream", normalization="none")  # only test images are used
        return self.normalize(load_data(config, folder, device))


def load_network(path: Path) -> TrainedNetwork:
    """Load a finished run's folder, its best.pt, a weights file, or a checkpoint of another repository.

    Raises:
        UserError: the path is none of these or is damaged, or the run has not finished.
    """
    if not path.exists():
        raise UserError(f"there is no run folder or weights file {path}")
    if path.suffix == ".safetensors":
        return load_weights_file(path)
    if path.name == checkpoints.BEST and (path.parent / record.CONFIG).is_file():
        return load_run_checkpoint(path)
    if path.name in (checkpoints.NEWEST, checkpoints.PREVIOUS) and (path.parent / record.CONFIG).is_file():
        raise UserError(f"{path} is a checkpoint for resuming: name its run folder, once the run has finished, or its best.pt")
    return load_run(path) if path.is_dir() else load_foreign_checkpoint(path)


def build_classifier(config: Config, tensors: dict[str, Tensor], path: Path) -> Classifier:
    """Build a classifier with the tensors of its state_dict.

    Raises:
        UserError: they do not fit the network, or contain NaN, infinity, a negative variance or a std of 0.
    """
    channels, side = config.dataset_info.channels, config.dataset_info.side
    classifier = Classifier(build_network(config), torch.zeros(channels, side, side), torch.ones(channels, 1, 1))
    load_tensors(classifier, tensors, path, config)
    return classifier.eval()


def load_tensors(network: nn.Module, tensors: dict[str, Tensor], path: Path, config: Config):
    """Load a state_dict read from `path` into `network`; raises like `build_classifier`."""
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {config.net}: {' '.join(str(error).split())[:200]}") from None
    for name, tensor in network.state_dict().items():
        is_negative = ("running_var" in name and (tensor < 0).any()) or (name == "std" and (tensor <= 0).any())
        if is_negative or not tensor.isfinite().all():
            raise UserError(f"{path} is damaged: {name} contains NaN, infinity, a negative variance or a std of 0")


# Runs -------------------------------------------------------------------------------------------------------------------


def load_run(folder: Path) -> TrainedNetwork:
    """Load the network of a finished run; raises like `load_network`."""
    if not record.is_run_folder(folder):
        raise UserError(f"{folder} is not a run folder (NET-KEY/seedN)")
    result = record.read_record(folder).result
    if not isinstance(result, Finished):
        raise UserError(f"{folder}: the run {'diverged' if result else 'has not finished: repeat its run.py command first'}")
    trained = load_run_checkpoint(folder / checkpoints.NEWEST)
    if trained.result["iterations"] != result.iterations:
        raise UserError(f"{trained.source} is not from the run's last iteration: remove {record.RESULT} and resume the run")
    return replace(trained, result=to_builtins(result), source=folder)


def load_run_checkpoint(path: Path) -> TrainedNetwork:
    """Load the network of a checkpoint in a run folder; `result` has its last evaluation, and the error that selects best.pt.

    Raises:
        UserError: the checkpoint is missing, damaged, or of a version that did not store the normalization.
    """
    config = record.read_config(path.parent)
    if config is None or not path.exists():
        raise UserError(f"there is no {path}: checkpoints are not committed; train the run, or use a file in weights/")
    checkpoint = checkpoints.read_checkpoint(path, {"schema": SCHEMA, "config": config.describe()})
    try:
        mean, std, network, rows = (checkpoint[name] for name in ("mean", "std", "network", "rows"))
        data_folder = Path(checkpoint["data_folder"])
    except KeyError as error:
        raise UserError(f"{path} lacks {error}: it was written by an earlier version of this repository") from None
    side, inner = config.dataset_info.side, slice(PADDING, -PADDING)
    mean_HWC = mean.view(side + 2 * PADDING, side + 2 * PADDING, -1)[inner, inner]
    tensors = {f"network.{name}": tensor for name, tensor in network.items()}
    tensors |= {"mean": mean_HWC.permute(2, 0, 1), "std": std.view(-1, 1, 1)}
    classifier = build_classifier(config, tensors, path)
    result = {
        **{name: rows[-1][name] for name in ("test_error", "held_out_error", "train_error", "train_loss") if name in rows[-1]},
        "best_test_error": min(row["test_error"] for row in rows),
        "parameters": count_parameters(classifier),
        "iterations": rows[-1]["iteration"],
        "chosen_by": checkpoints.BEST_BY[config.split],
    }
    return TrainedNetwork(classifier, config, result, path, data_folder)


# Weights files ----------------------------------------------------------------------------------------------------------


def save_network(path: Path, trained: TrainedNetwork):
    """Write weights, normalization, config and result to a safetensors file, atomically."""
    tensors = {name: tensor.contiguous() for name, tensor in trained.classifier.state_dict().items()}
    metadata = {"config": record.describe_config(trained.config), "result": trained.result}
    content = save(tensors, {name: json.dumps(value) for name, value in metadata.items()})
    # safetensors writes the metadata in random order; sorted, the same network and result always have the same SHA-256.
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
    config, result = read_weights_header(path)
    return TrainedNetwork(build_classifier(config, load_file(path), path), config, result, path)


# Pretrained weights (--initial) -----------------------------------------------------------------------------------------


def load_initial_weights(path: Path, network: nn.Module, config: Config, data: Data) -> Data:
    """Load pretrained weights into `network`; return the data with their normalization.

    The last linear layer is loaded only if the class names match. A torchvision state_dict has no class names: its last linear
    layer is loaded if the number of classes matches, and the normalization is unchanged.

    Raises:
        UserError: the file cannot be read or does not fit the network.
    """
    head = find_head(network) + "."
    if config.family != "6n+2" and path.suffix != ".safetensors" and path.name != checkpoints.BEST:
        warnings.warn(f"{path} contains no class names and no normalization: only the shapes are checked", stacklevel=2)
        pretrained, _ = read_state_dict(path)
        has_same_classes = len(pretrained.get(head + "bias", ())) == len(config.dataset_info.class_names)
    else:
        trained = load_network(path)
        if config.normalization != Config.normalization:
            raise UserError(f"{path} includes its normalization: remove --normalization {config.normalization}")
        for name in ARCHITECTURE:
            if getattr(trained.config, name) != getattr(config, name):
                raise UserError(f"{path} was trained with {format_flag(trained.config, name)}, got {format_flag(config, name)}")
        pretrained, data = trained.classifier.network.state_dict(), trained.normalize(data)
        has_same_classes = trained.config.dataset_info.class_names == config.dataset_info.class_names
    if not has_same_classes:
        pretrained |= {name: tensor for name, tensor in network.state_dict().items() if name.startswith(head)}
    load_tensors(network, pretrained, path, config)
    return data


def format_flag(config: Config, name: str) -> str:
    value = getattr(config, name)
    return f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name} {value}"


# Other repositories -----------------------------------------------------------------------------------------------------


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by torch.save: a state_dict, or a dict with one under the key state_dict or net.

    Returns: the tensors, without DataParallel's prefix "module."; the whole dict.

    Raises:
        UserError: the file contains no state_dict, or cannot be read without executing code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file may contain anything
        reason = str(error).partition("Unsupported global: ")[2].partition(" was not")[0] or type(error).__name__
        raise UserError(f"{path} is not a weights file, or needs more than tensors and numbers to be read ({reason})") from None
    fields = content if isinstance(content, dict) else {}
    tensors = fields.get("state_dict", fields.get("net", fields))
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        found = ", ".join(map(str, fields)) or type(content).__name__
        raise UserError(f"{path} contains no state_dict, neither bare nor under the key state_dict or net, got {found[:100]}")
    return {str(name).removeprefix("module."): tensor.detach() for name, tensor in tensors.items()}, fields


def translate_name(name: str, blocks_per_stage: int) -> str:
    """Return the name of a parameter in this repository, given its name in akamaster/pytorch_resnet_cifar10.

    conv1, bn1 -> conv, bn; layer<s>.<i> -> blocks.<(s - 1) n + i>; the names inside a block, and linear, are the same.
    The prefix "compressible_" (later versions) is removed.
    """
    name = re.sub(r"^(conv|bn)1\.", r"\1.", name.replace("compressible_", ""))
    return re.sub(r"^layer(\d)\.(\d+)", lambda match: f"blocks.{(int(match[1]) - 1) * blocks_per_stage + int(match[2])}", name)


def load_foreign_checkpoint(
    path: Path, residual: bool = True, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> TrainedNetwork:
    """Load a 6n+2 network with the parameter names of akamaster/pytorch_resnet_cifar10, and warn about the assumptions.

    Raises:
        UserError: the file is not such a checkpoint.
    """
    theirs, fields = read_state_dict(path)
    blocks_per_stage = len(set(re.findall(r"^layer1\.(\d+)\.", "\n".join(theirs), re.MULTILINE)))
    if blocks_per_stage == 0:
        raise UserError(f"{path} is not a checkpoint of akamaster/pytorch_resnet_cifar10: layer1.0.conv1.weight is missing")
    shortcut = "B" if any(".shortcut." in name for name in theirs) else "A"
    config = Config(depth=6 * blocks_per_stage + 2, residual=residual, shortcut=shortcut)
    tensors = {f"network.{translate_name(name, blocks_per_stage)}": tensor for name, tensor in theirs.items()}
    tensors |= {"mean": torch.tensor(mean).view(3, 1, 1).expand(3, 32, 32), "std": torch.tensor(std).view(3, 1, 1)}
    classifier = build_classifier(config, tensors, path)
    warnings.warn(
        f"assuming that {path} is a {'residual' if residual else 'plain'} network with mean {', '.join(map(str, mean))} and "
        f"std {', '.join(map(str, std))}; otherwise convert it with export.py and --no-residual, --mean or --std",
        stacklevel=2,
    )
    accuracy = fields.get("best_prec1", fields.get("acc"))
    result = {"best_test_error": 100 - accuracy} if isinstance(accuracy, int | float) and 0 <= accuracy <= 100 else {}
    return TrainedNetwork(classifier, config, result, path)
