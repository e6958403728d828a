"""What is trained (`Config`), and where and how (`RunOptions`). Free of torch, so that the command line answers at once."""

import hashlib
import importlib.util
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from reproduce.dataset import DATASETS, DatasetInfo, DatasetName, detect_dataset
from reproduce.errors import UserError

SCHEMA = 1
"""Version of the meaning of Config's fields; part of every key."""

PAPER_ITERATIONS = 64_000
PAPER_TEST_ERROR = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.61, 1202: 7.93}
"""Test error in percent of the paper's residual nets (Table 6; for 110 the mean of five runs)."""

Shortcut = Literal["A", "B", "C"]
Block = Literal["original", "bn-after-add", "relu-before-add", "relu-only-preactivation", "full-preactivation"]
Optimizer = Literal["sgd", "adam", "adamw"]
Warmup = Literal["auto", "none", "error", "iterations"]
Precision = Literal["fp32", "tf32", "bf16"]
Family = Literal["6n+2", "resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "lenet"]
Schedule = Literal["steps", "onecycle", "cosine", "constant"]
Trainable = Literal["all", "last-stage", "head"]
DEFAULT_LR = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}

ALWAYS_RECORDED = frozenset(
    "depth residual shortcut block optimizer lr momentum weight_decay batch_size iterations warmup augment split precision "
    "normalization initialization last_layer decay bn_statistics bn_batch last_batch seed dataset".split()
)
"""The fields of the first published records. One added since has a default that changes nothing, and is left out of the key
and of what is recorded while it is at that default, so that no older record's key moves and all of them can be read."""


FIELDS_FROM_OPTIONS = ("dataset", "classes", "pictures", "initial")
"""The fields of a Config that follow from what --data and --initial name."""


@dataclass(frozen=True)
class Config:
    """One network and its recipe; the defaults are the paper's (section 4.2). Two equal configs are the same experiment.

    `lr` and `warmup` are resolved on construction, so a default written out is the same config as one left out.

    Raises:
        UserError: a value outside its range, or a combination without meaning.
    """

    depth: int = 20
    """Weighted layers, 6n+2 for some n >= 1: the paper trains 20, 32, 44, 56, 110 and 1202."""
    residual: bool = True
    """With shortcuts, or the plain net of the same layers."""
    shortcut: Shortcut = "A"
    """Where a stage begins: A identity with zero channels, B a projection; C projections everywhere."""
    block: Block = "original"
    """Order of BN, ReLU and the addition; the last four are of Identity Mappings (arXiv:1603.05027), Table 2."""
    optimizer: Optimizer = "sgd"
    """The paper's is SGD with momentum."""
    lr: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Learning rate before the milestones; by default 0.1 for sgd, 0.001 for adam and adamw."""
    momentum: float = 0.9
    """SGD's momentum (not Nesterov's), or Adam's beta1."""
    weight_decay: float = 1e-4
    """torch's weight_decay: L2 for sgd and adam, decoupled for adamw."""
    batch_size: int = 128
    """Images per iteration."""
    iterations: int = PAPER_ITERATIONS
    """Length of training; the learning rate falls tenfold after 1/2 and after 3/4 of it."""
    warmup: Warmup = "auto"
    """lr/10 at first: until the training error is below 80% (error), for 400 iterations (iterations), or never
    (none); auto is error from depth 110 on, as the paper has it, and none below."""
    augment: bool = True
    """Pad by 4 pixels, crop to the old size at random, mirror with probability 1/2."""
    split: Literal["full", "val"] = "full"
    """Train on all training images, or hold out a tenth (stratified, by the seed) and report its error as well."""
    precision: Precision = "fp32"
    """fp32 is true fp32: TF32 and HF32 off. bf16 is autocast."""
    normalization: Literal["pixel-mean", "channel-mean", "channel-mean-std", "none"] = "pixel-mean"
    """What is subtracted from the pixels / 255: the paper's per-pixel mean, or a mean per channel, then with or without
    division by the channel's standard deviation; or nothing."""
    initialization: Literal["fan-in", "fan-out"] = "fan-in"
    """He initialisation of the convolutions, by inputs or by outputs."""
    last_layer: Literal["he", "uniform"] = "he"
    """Initialisation of the linear layer: as the convolutions with zero bias, or torch's default."""
    decay: Literal["all", "weights"] = "all"
    """What the weight decay acts on: every parameter, or the weights of convolutions and of the linear layer."""
    bn_statistics: Literal["moving", "population"] = "moving"
    """What BN uses when testing: moving averages, or averages over the training set taken before each evaluation."""
    bn_batch: Literal["whole", "halves"] = "whole"
    """What BN normalises over in training: the mini-batch, or its halves apart, as on the paper's two GPUs."""
    last_batch: Literal["stream", "drop"] = "stream"
    """Where a permutation of the images does not fill its last batch: the next one goes on, or the rest is dropped."""
    seed: int = 0
    """The replicate: initialisation, order of the images, crops, flips, and the held-out images."""
    dataset: tyro.conf.Suppress[DatasetName] = "cifar10"
    """What `--data` names."""
    family: Family = "6n+2"
    """Another net than the paper's: torchvision's wide ones with a 3x3 stem and no max-pool, or LeNet."""
    schedule: Schedule = "steps"
    """The learning rate over the iterations: the paper's milestones, torch's OneCycleLR up to lr (the momentum stays), half
    a cosine from lr to 0, or lr throughout."""
    trainable: Trainable = "all"
    """What is trained of a net that begins with --initial: all of it, its last stage and linear layer, or its last linear
    layer (head). What is not keeps its weights, and its BN the statistics."""
    classes: tyro.conf.Suppress[str] = ""
    """The names of the classes of a folder of pictures, with / between; empty where the data set has its own."""
    pictures: tyro.conf.Suppress[str] = ""
    """SHA-256 of the names and bytes of all files in a folder of pictures."""
    initial: tyro.conf.Suppress[str] = ""
    """SHA-256 of the file that `--initial` names."""

    def __post_init__(self):
        check_types(self)
        if self.depth < 8 or (self.depth - 2) % 6:
            raise UserError(f"depth must be 6n+2 with n >= 1 (8, 14, 20, 26, 32, ...), and {self.depth} is not")
        if not self.residual and (self.block != "original" or self.shortcut != "A"):
            raise UserError("a plain net has no addition and no shortcut: leave out --block and --shortcut, or add --residual")
        if self.family != "6n+2" and (self.depth, self.residual, self.block, self.shortcut) != (20, True, "original", "A"):
            raise UserError(f"depth, residual, block and shortcut choose among the 6n+2 nets, not with --family {self.family}")
        if self.family == "lenet" and (self.bn_statistics, self.bn_batch) != ("moving", "whole"):
            raise UserError("lenet has no BN: leave out --bn-statistics and --bn-batch")
        if self.family == "lenet" and self.trainable == "last-stage":
            raise UserError("lenet has no stages: --trainable is all or head")
        if self.lr is None:
            object.__setattr__(self, "lr", DEFAULT_LR[self.optimizer])
        if self.warmup == "auto":
            object.__setattr__(self, "warmup", "error" if self.depth >= 110 and self.schedule == "steps" else "none")
        assert self.lr is not None
        require(0 < self.lr < math.inf, "lr must be a positive number", self.lr)
        require(0 <= self.momentum < 1, "momentum must be at least 0 and below 1", self.momentum)
        require(0 <= self.weight_decay < math.inf, "weight-decay must be a number of at least 0", self.weight_decay)
        require(self.batch_size >= 1, "batch-size must be at least 1", self.batch_size)
        require(self.bn_batch == "whole" or self.batch_size % 2 == 0, "batch-size must be even for halves", self.batch_size)
        require(self.iterations >= 1, "iterations must be at least 1", self.iterations)
        require(self.schedule == "steps" or self.warmup == "none", "warmup must be none unless schedule is steps", self.warmup)
        named = (bool(self.classes), bool(self.pictures))
        require(named == (self.dataset == "pictures",) * 2, "classes and pictures go with a folder of pictures", named)
        require(0 <= self.seed < 2**63, "seed must be at least 0 and below 2^63", self.seed)

    @property
    def net(self) -> str:
        """The network's name, e.g. residual44 or plain20; of another family its own."""
        return f"{'residual' if self.residual else 'plain'}{self.depth}" if self.family == "6n+2" else self.family

    @property
    def dataset_info(self) -> DatasetInfo:
        """What it is trained on."""
        found = DATASETS[self.dataset]
        return replace(found, class_names=tuple(self.classes.split("/"))) if self.classes else found

    def describe(self) -> dict[str, Any]:
        """The fields as they are recorded (see ALWAYS_RECORDED)."""
        every = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in every.items() if name in ALWAYS_RECORDED or value != default}

    @property
    def key(self) -> str:
        """Eight hexadecimal digits that name everything but the seed."""
        recipe = {"schema": SCHEMA} | {name: value for name, value in self.describe().items() if name != "seed"}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def folder(self) -> Path:
        """The run's folder below the output folder, e.g. residual44-3f9c2a1b/seed0."""
        return Path(f"{self.net}-{self.key}") / f"seed{self.seed}"


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run is computed; nothing here is part of its identity.

    Raises:
        UserError: a value outside its range.
    """

    device: Literal["auto", "npu", "cuda", "cpu"] = "auto"
    """auto takes the first that is usable of npu, cuda, cpu; any other is used or refused, never replaced."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic|mnist")] = "data"
    """Folder that holds, or shall receive, cifar-10-batches-py; or one of your own pictures, with train/CLASS and test/CLASS
    for each class; or the word synthetic for a generated set; or the word mnist for MNIST in ./data, or a folder MNIST
    wherever it is."""
    initial: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Weights to begin with instead of random ones: a file of export.py, whose normalisation is taken as well, or the
    state_dict of a wide net. For other classes than the file's, the last linear layer is drawn by the seed."""
    out: Path = Path("runs")
    """Folder that receives <net>-<key>/seed<k>."""
    time_limit: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Stop with a checkpoint and exit status 75 after so many seconds; the same command goes on from there."""
    eval_every: int = 1000
    """Iterations from one evaluation on the whole test set to the next; the last iteration always has one."""
    checkpoint_every: int = 1000
    """Iterations from one checkpoint to the next."""
    capture: bool = True
    """Capture the training step as a device graph where the device can (cuda, npu)."""
    deterministic: bool = False
    """Deterministic kernels only, where the device has a choice."""
    keep_best: bool = False
    """Keep the checkpoint of the best evaluation as well, as best.pt: by the held-out error with --split val, else by the
    test error, which flatters. It is never the run's result."""
    tensorboard: bool = False
    """Write the curves of metrics.jsonl for TensorBoard as well, into the run folder's tensorboard."""

    def __post_init__(self):
        check_types(self)
        require(self.time_limit is None or 0 < self.time_limit < math.inf, "time-limit must be positive", self.time_limit)
        require(self.eval_every >= 1, "eval-every must be at least 1", self.eval_every)
        require(self.checkpoint_every >= 1, "checkpoint-every must be at least 1", self.checkpoint_every)
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise UserError("--tensorboard needs TensorBoard, which is not installed: pip install tensorboard")
        require(self.data != "", "data must name a folder or be the word synthetic or mnist", repr(self.data))


def format_flags(config: Config, options: RunOptions | None = None) -> list[str]:
    """The flags of run.py that give this config, and this machine or any; what is at its default is left out.

    machine: its data name the config's set, or a folder in which that has a folder of its own.
    """
    if options is None:
        options = RunOptions(data=config.dataset_info.given, initial=Path("FILE") if config.initial else None)
    elif config.dataset == "mnist" and detect_dataset(options.data) == "cifar10":
        options = replace(options, data=str(Path(options.data) / config.dataset_info.folder))
    assert detect_dataset(options.data) == config.dataset, "the data set is named by --data"
    assert bool(config.initial) == (options.initial is not None), "the file is named by --initial"
    ordinary = replace(config, lr=None, warmup="auto")  # both defaults depend on other fields
    flags = []
    for settings in (config, options):
        for each in fields(settings):
            value = getattr(settings, each.name)
            default = getattr(ordinary, each.name) if each.name in ("lr", "warmup") else each.default
            if value == default or (settings is config and each.name in FIELDS_FROM_OPTIONS):
                continue
            flag = each.name.replace("_", "-")
            if isinstance(value, bool):
                flags.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                flags += [f"--{flag}", str(value)]
    return flags


def format_recipe(config: Config) -> str:
    """What differs from the paper's recipe, field by field, in words."""
    ours, paper = asdict(config), asdict(Config(depth=config.depth)) | {"initial": "random"}
    ours["initial"] = config.initial[:8] or "random"
    changed = [
        f"{name.replace('_', '-')} {value} (the paper: {paper[name]})"
        for name, value in ours.items()
        if name not in ("residual", "seed", "classes", "pictures") and value != paper[name]
    ]
    return "the paper's" if not changed else f"not the paper's in {'; '.join(changed)}"


def require(condition: bool, rule: str, value: object):
    if not condition:
        raise UserError(f"{rule}, not {value}")


cached_type_hints = cache(get_type_hints)


def check_types(settings: Config | RunOptions):
    """Refuses what a caller in Python could pass and the command line could not (a depth of "20", a lr of True).

    Raises:
        UserError: a field is not of its declared type.
    """
    hints = cached_type_hints(type(settings))
    for field in fields(settings):
        allowed = get_args(hints[field.name]) or (hints[field.name],)
        value = getattr(settings, field.name)
        if get_origin(hints[field.name]) is Literal:
            require(value in allowed, f"{field.name} must be one of {', '.join(allowed)}", repr(value))
            continue
        if float in allowed and type(value) is int:
            object.__setattr__(settings, field.name, float(value))
        elif not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            require(False, f"{field.name} must be of type {allowed[0].__name__}", repr(value))
