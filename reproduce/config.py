"""Configuration (`Config`) and run options (`RunOptions`). Does not import torch, so that --help is fast."""

import hashlib
import importlib.util
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

import msgspec
import tyro

from reproduce.dataset import DATASETS, DatasetInfo, DatasetName, detect_dataset
from reproduce.errors import UserError
from reproduce.schema import decode_json

SCHEMA = 1
"""Version of the configuration format; part of every key."""

PAPER_ITERATIONS = 64_000
PAPER_TEST_ERROR = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.61, 1202: 7.93}
"""Test error of the paper's residual networks in percent (Table 6; for 110 layers the mean of five runs)."""

Shortcut = Literal["A", "B", "C"]
Block = Literal["original", "bn-after-add", "relu-before-add", "relu-only-preactivation", "full-preactivation"]
Optimizer = Literal["sgd", "adam", "adamw"]
Warmup = Literal["auto", "none", "error", "iterations"]
Split = Literal["full", "val"]
Precision = Literal["fp32", "tf32", "bf16"]
Normalization = Literal["pixel-mean", "channel-mean", "channel-mean-std", "none"]
LastBatch = Literal["stream", "drop"]
Family = Literal["6n+2", "resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "lenet"]
Schedule = Literal["steps", "onecycle", "cosine", "constant"]
Trainable = Literal["all", "last-stage", "head"]
DeviceKind = Literal["npu", "cuda", "cpu"]
DeviceChoice = Literal["auto", DeviceKind]

DEFAULT_LR = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}

ALWAYS_RECORDED = frozenset(
    "depth residual shortcut block optimizer lr momentum weight_decay batch_size iterations warmup augment split precision "
    "normalization initialization last_layer decay bn_statistics bn_batch last_batch seed dataset".split()
)
"""The fields of the first published records, always part of the key and of config.json.

A newer field is left out of both while it has its default value. The default must therefore reproduce the behaviour from before
the field existed; otherwise the keys of older records change. Do not add to this list.
"""

FIELDS_FROM_OPTIONS = ("dataset", "classes", "pictures", "initial")
"""Fields of Config that follow from --data and --initial."""


@dataclass(frozen=True)
class NetworkFlags:
    """The network, by default ResNet-20 (section 4.2)."""

    depth: int = 20
    """Number of weighted layers, 6n+2; the paper trains 20, 32, 44, 56, 110 and 1202."""
    residual: bool = True
    """Residual network, or the plain network with the same layers."""
    shortcut: Shortcut = "A"
    """A: identity with zero-padded channels; B: projection where the shape changes; C: projection everywhere."""
    block: Block = "original"
    """Order of BN, ReLU and addition; the last four are from Identity Mappings (arXiv:1603.05027), Table 2."""
    family: Family = "6n+2"
    """Other networks: torchvision's, with a 3x3 stem and no max-pooling, or a small LeNet."""
    initialization: Literal["fan-in", "fan-out"] = "fan-in"
    """Mode of the He initialization of the convolutions."""
    last_layer: Literal["he", "uniform"] = "he"
    """Initialization of the linear layer: He with zero bias, or torch's default."""
    bn_batch: Literal["whole", "halves"] = "whole"
    """BN in training normalizes over the mini-batch, or over each half of it, as on the paper's two GPUs."""
    bn_statistics: Literal["moving", "population"] = "moving"
    """BN statistics for testing: moving averages, or averages over the training set computed before each evaluation."""


@dataclass(frozen=True)
class TrainingFlags:
    """How to train it, by default as in the paper."""

    optimizer: Optimizer = "sgd"
    """The paper uses SGD with momentum."""
    lr: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 0.1; adam, adamw: 0.001)")] = None
    """Initial learning rate."""
    momentum: float = 0.9
    """Momentum of SGD (not Nesterov), or beta1 of Adam."""
    weight_decay: float = 1e-4
    """As in torch: L2 penalty for sgd and adam, decoupled for adamw."""
    decay: Literal["all", "weights"] = "all"
    """Apply weight decay to all parameters, or only to the weights of convolutions and linear layers."""
    batch_size: int = 128
    """Images per iteration."""
    last_batch: LastBatch = "stream"
    """Incomplete last batch of an epoch: fill it from the next epoch (stream), or drop it."""
    iterations: int = PAPER_ITERATIONS
    """Number of training iterations."""
    schedule: Schedule = "steps"
    """steps divides lr by 10 after 1/2 and 3/4 of training; onecycle is OneCycleLR (maximum lr, constant momentum); cosine
    decays to 0."""
    warmup: Annotated[Warmup, tyro.conf.arg(help_behavior_hint="(default: error from depth 110, else none)")] = "auto"
    """Train at lr/10 until the training error falls below 80% (error), or for 400 iterations (iterations)."""
    trainable: Trainable = "all"
    """Layers to fine-tune after --initial: all, the last stage and the linear layer, or only the linear layer (head)."""
    precision: Precision = "fp32"
    """fp32 disables TF32 and HF32; bf16 is autocast."""
    seed: int = 0
    """Seed of the initialization, the order of the images, the augmentation and the validation split."""


@dataclass(frozen=True)
class DataFlags:
    """What to train on, by default as in the paper."""

    augment: bool = True
    """Random crops of the image padded by 4 pixels, and random horizontal flips."""
    split: Split = "full"
    """Train on all training images (full), or use a tenth of each class as a validation split (val)."""
    normalization: Normalization = "pixel-mean"
    """Subtract the mean of each pixel (the paper) or channel; channel-mean-std also divides by the channel's std."""


@dataclass(frozen=True)
class Config(DataFlags, TrainingFlags, NetworkFlags):  # fields follow the reverse order of the bases: the network's first
    """A network, its hyperparameters and a seed; the defaults are the paper's (section 4.2).

    Raises:
        UserError: a value is out of range, or two values contradict each other.
    """

    dataset: DatasetName = "cifar10"
    """Set by `--data`."""
    classes: str = ""
    """Class names of an image folder, separated by "/"; empty for the other datasets."""
    pictures: str = ""
    """SHA-256 of all file names and contents of an image folder."""
    initial: str = ""
    """SHA-256 of the file given by `--initial`."""

    def __post_init__(self):
        try:
            self.__dict__.update(msgspec.convert(vars(self), field_types(type(self))))  # an integer becomes a float
        except msgspec.ValidationError as error:
            raise UserError(str(error)) from None
        # Resolve these defaults, so that a configuration that gives them explicitly equals one that omits them.
        if self.lr is None:
            object.__setattr__(self, "lr", DEFAULT_LR[self.optimizer])
        if self.warmup == "auto":
            object.__setattr__(self, "warmup", "error" if self.depth >= 110 and self.schedule == "steps" else "none")
        assert self.lr is not None
        require(self.depth >= 8 and self.depth % 6 == 2, "depth must be 6n+2 (8, 14, 20, ...)", self.depth)
        if not self.residual and (self.block != "original" or self.shortcut != "A"):
            raise UserError("a plain network has no shortcuts: remove --block and --shortcut, or add --residual")
        if self.family != "6n+2" and (self.depth, self.residual, self.block, self.shortcut) != (20, True, "original", "A"):
            raise UserError(f"--family {self.family} cannot be combined with --depth, --residual, --block or --shortcut")
        if self.family == "lenet" and (self.bn_statistics, self.bn_batch) != ("moving", "whole"):
            raise UserError("lenet has no BN: remove --bn-statistics and --bn-batch")
        if self.family == "lenet" and self.trainable == "last-stage":
            raise UserError("lenet has no stages: set --trainable to all or head")
        require(0 < self.lr < math.inf, "lr must be positive and finite", self.lr)
        require(0 <= self.momentum < 1, "momentum must be at least 0 and below 1", self.momentum)
        require(0 <= self.weight_decay < math.inf, "weight-decay must be at least 0 and finite", self.weight_decay)
        require(self.batch_size >= 1, "batch-size must be at least 1", self.batch_size)
        require(
            self.bn_batch == "whole" or self.batch_size % 2 == 0,
            "batch-size must be even for bn-batch halves",
            self.batch_size,
        )
        require(1 <= self.iterations < 2**31, "iterations must be at least 1 and below 2^31", self.iterations)
        require(self.schedule == "steps" or self.warmup == "none", "warmup must be none unless schedule is steps", self.warmup)
        require(0 <= self.seed < 2**63, "seed must be at least 0 and below 2^63", self.seed)

    @property
    def net(self) -> str:
        """The name of the network, such as residual44, plain20 or resnet18."""
        return f"{'residual' if self.residual else 'plain'}{self.depth}" if self.family == "6n+2" else self.family

    @property
    def dataset_info(self) -> DatasetInfo:
        info = DATASETS[self.dataset]
        return replace(info, class_names=tuple(self.classes.split("/"))) if self.classes else info

    def describe(self) -> dict[str, Any]:
        """Return the fields as recorded in config.json (see ALWAYS_RECORDED)."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if name in ALWAYS_RECORDED or value != default}

    @property
    def key(self) -> str:
        """Eight hexadecimal digits that identify everything but the seed."""
        recipe = {"schema": SCHEMA} | {name: value for name, value in self.describe().items() if name != "seed"}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def folder(self) -> Path:
        """The run folder below --out, such as residual44-29f33bb5/seed0."""
        return Path(f"{self.net}-{self.key}") / f"seed{self.seed}"


@dataclass(frozen=True)
class RunOptions:
    """Where and how to train; not part of a run's identity."""

    device: DeviceChoice = "auto"
    """auto uses the first available device of npu, cuda, cpu."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic|mnist")] = "data"
    """Folder of CIFAR-10 or a folder named MNIST (downloaded if missing), or an image folder (train/CLASS, test/CLASS)."""
    initial: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: random weights)")] = None
    """Pretrained weights: from export.py, a best.pt or a state_dict. For other classes, the linear layer is reinitialized."""
    out: Path = Path("runs")
    """Folder for the run folders <net>-<key>/seed<k>."""
    time_limit: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="(default: no limit)")] = None
    """Stop with a checkpoint and exit status 75 after this time; the same command resumes."""
    eval_every: int = 1000
    """Iterations between evaluations on the test set; the last iteration is always evaluated."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints."""
    capture: bool = True
    """Capture the training step as a device graph (cuda, npu)."""
    deterministic: bool = False
    """Use deterministic kernels only."""
    keep_best: bool = False
    """Also keep the checkpoint with the lowest validation error (or test error, optimistically biased) as best.pt.
    Set it in the first session: earlier checkpoints are not kept."""
    tensorboard: bool = False
    """Also write the metrics as TensorBoard logs into the run folder."""

    def __post_init__(self):
        require(
            self.time_limit is None or 0 < self.time_limit < math.inf, "time-limit must be positive and finite", self.time_limit
        )
        require(self.eval_every >= 1, "eval-every must be at least 1", self.eval_every)
        require(self.checkpoint_every >= 1, "checkpoint-every must be at least 1", self.checkpoint_every)
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise UserError("--tensorboard needs TensorBoard: pip install tensorboard")


def load_config(path: Path) -> Config:
    """Read a config.json.

    Raises:
        UserError: the file is not a config.json.
        OSError: it cannot be read.
    """
    try:
        content = decode_json(path.read_bytes(), dict[str, Any])
        return Config(**{name: value for name, value in content.items() if name not in ("schema", "key")})
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is not a config.json ({error})") from None


def format_flags(config: Config, options: RunOptions | None = None) -> list[str]:
    """Return the flags of run.py that give this configuration and these options; defaults are left out.

    options: `options.data` must name the configuration's dataset, or a folder that contains it. If None, the flags contain the
    placeholders DIR and FILE.
    """
    if options is None:
        options = RunOptions(data=config.dataset_info.default_data, initial=Path("FILE") if config.initial else None)
    elif config.dataset == "mnist" and detect_dataset(options.data) == "cifar10":
        options = replace(options, data=str(Path(options.data) / config.dataset_info.folder))
    automatic = replace(config, lr=None, warmup="auto")  # their defaults depend on other fields
    defaults = asdict(type(config)()) | {"lr": automatic.lr, "warmup": automatic.warmup} | asdict(RunOptions())
    values = {name: value for name, value in asdict(config).items() if name not in FIELDS_FROM_OPTIONS} | asdict(options)
    flags = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if value != defaults[name]:
            flags += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return flags


def diff_from_paper(config: Config) -> dict[str, tuple[Any, Any]]:
    """Return the hyperparameters that differ from the paper's, with our value and the paper's."""
    ours, paper = asdict(config), asdict(Config(depth=config.depth))
    ours["initial"], paper["initial"] = config.initial[:8] or "random", "random"
    names = [name for name in ours if name not in ("residual", "seed", "classes", "pictures")]
    return {name.replace("_", "-"): (ours[name], paper[name]) for name in names if ours[name] != paper[name]}


def format_recipe(config: Config) -> str:
    """Return the differences from the paper's hyperparameters, such as "the paper's except lr=0.05 (paper: 0.1)"."""
    changes = [
        f"{name}={ours} (paper: {'not stated' if name == 'precision' else paper})"
        for name, (ours, paper) in diff_from_paper(config).items()
    ]
    return f"the paper's except {', '.join(changes)}" if changes else "the paper's"


def require(condition: bool, rule: str, value: object):
    """Raise a UserError with the rule and the value unless the condition holds."""
    if not condition:
        raise UserError(f"{rule}, got {value}")


@cache
def field_types(config: type[Config]) -> Any:
    return TypedDict("field_types", get_type_hints(config))  # pyright: ignore
