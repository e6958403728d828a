"""The model card beside a weights file: what it says, and whether the file is the one that it describes. Free of torch."""

import hashlib
import re
from dataclasses import fields
from pathlib import Path
from string import Template
from typing import Any

from reproduce.config import PAPER_ITERATIONS, Config
from reproduce.errors import UserError

IN_EVERY_CARD = "trained by this repository. Record: `"
CHOICES = {
    None: "The best of all evaluations, {best_test_error:.2f}%, would be a choice made on the test set.",
    "test_error": "It is the best of all evaluations, chosen by this very error: it flatters, and is not the run's result.",
    "held_out_error": "It is the best of all evaluations by the error on held-out images, {held_out_error:.2f}%; it is not the "
    "run's result.",
}
"""What a card says of the best evaluation, by what the checkpoint was chosen by."""
UNMENTIONED = ("depth", "residual", "seed", "classes", "pictures")
"""The fields of a config that a card does not list as changed: it has other words for them, or none."""


def sha256_of_file(path: Path) -> str:
    """A file's SHA-256, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_sha256(path: Path):
    """Refuses a weights file with another SHA-256 than the one in the card beside it, where there is one.

    Raises:
        UserError: it is another file, or damaged.
    """
    card = path.with_suffix(".md")
    told = re.search("SHA-256 `([0-9a-f]{64})`", card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    if told is not None and told[1] != sha256_of_file(path):
        raise UserError(f"{path} is damaged or is not the file of its card: its SHA-256 is not the one in {card}; restore both")


def format_card(config: Config, result: dict[str, Any], sha256: str) -> str:
    """The model card of a weights file, from card.md: recipe, data, result, use, limits, and the file's SHA-256."""
    ordinary = Config(depth=config.depth)
    changed = [
        f"{field.name} {getattr(config, field.name)}"
        for field in fields(Config)
        if getattr(config, field.name) != getattr(ordinary, field.name) and field.name not in UNMENTIONED
    ]
    full = config.iterations == PAPER_ITERATIONS and config.dataset == "cifar10"
    remark = "" if full else "\n  **Not a run of the paper's length on the paper's data: not comparable with the paper.**"
    return Template(Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")).substitute(
        net=config.net,
        seed=config.seed,
        what=f"{config.net.rstrip('0123456789')} net of {config.depth} layers" if config.family == "6n+2" else config.net,
        side=config.dataset_info.side,
        where="as in" if config.family == "6n+2" else "beyond",
        schedule="divided by 10 after 1/2 and 3/4 of" if config.schedule == "steps" else f"({config.schedule}) over",
        pictures="handwritten digits, white on black" if config.dataset == "mnist" else "small photographs",
        record=config.folder,
        optimizer=config.optimizer,
        lr=f"{config.lr:g}",
        iterations=f"{config.iterations:,}",
        batch_size=config.batch_size,
        weight_decay=f"{config.weight_decay:g}",
        precision=config.precision,
        changes="Changed from the paper's: " + ", ".join(changed) if changed else "Nothing changed from the paper's",
        classes="ten" if len(config.dataset_info.class_names) == 10 else len(config.dataset_info.class_names),
        data=config.dataset_info.title + (f" ({', '.join(config.dataset_info.class_names)})" if config.classes else ""),
        images="nine tenths of the training images" if config.split == "val" else "all training images",
        moment=f"iteration {result['iterations']}" if "chosen_by" in result else "the last iteration",
        best=CHOICES[result.get("chosen_by")].format(**result),
        parameters=f"{result['parameters']:,}",
        remark=remark,
        sha256=sha256,
        **{name: f"{result[name]:.2f}" for name in ("test_error", "train_error")},
    )


def write_card(output: Path) -> Path:
    """Where the card of a weights file goes: beside it.

    Raises:
        UserError: something else is there.
    """
    card = output.with_suffix(".md")
    if card.exists() and IN_EVERY_CARD not in card.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"the model card would replace {card}, which is not one: choose another --output")
    return card
