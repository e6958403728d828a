"""The model card next to a weights file. Imports no torch."""

import hashlib
import re
from pathlib import Path
from typing import Any

from reproduce.config import PAPER_ITERATIONS, Config, diff_from_paper
from reproduce.errors import UserError

MARK = "this repository. Record: `"
"""Occurs in every model card."""


def sha256_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_sha256(path: Path):
    """Compare a weights file with the SHA-256 in the model card next to it, if there is one.

    Raises:
        UserError: they differ.
    """
    card = path.with_suffix(".md")
    found = (
        re.search("SHA-256 `([0-9a-f]{64})`", card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    )
    if found is not None and found[1] != sha256_of_file(path):
        raise UserError(f"{path} does not have the SHA-256 in {card}: restore both files")


def format_model_card(config: Config, result: dict[str, Any], sha256: str) -> str:
    """Return the model card of a weights file in Markdown."""
    dataset = config.dataset_info
    network = f"{config.net.rstrip('0123456789')} network of {config.depth} layers" if config.family == "6n+2" else config.net
    schedule = "divided by 10 after 1/2 and 3/4 of" if config.schedule == "steps" else f"({config.schedule}) over"
    changes = [f"{name} {value}" for name, (value, _) in diff_from_paper(config).items()]
    classes = f"{len(dataset.class_names)} classes"
    class_names = f" ({', '.join(dataset.class_names)})" if config.classes else ""
    split = "nine tenths of the training images" if config.split == "val" else "all training images"
    is_comparable = config.iterations == PAPER_ITERATIONS and config.dataset == "cifar10"
    optimizer = f"SGD with momentum {config.momentum:g}" if config.optimizer == "sgd" else config.optimizer
    origin = " after section 4.2 of\nHe et al. 2015 (arXiv:1512.03385)," if config.family == "6n+2" else ""
    iteration = f"iteration {result['iterations']:,}" if "chosen_by" in result else "the last iteration"
    return f"""\
# {config.net}{"" if config.block == "original" else f" ({config.block})"}, seed {config.seed}

A {network} for {dataset.side} x {dataset.side} images in {classes},{origin} trained with {MARK}{config.folder}`.

- **Recipe**: {optimizer}, learning rate {config.lr:g} {schedule} {config.iterations:,} iterations,
  batch size {config.batch_size}, weight decay {config.weight_decay:g}, precision {config.precision}.
  Changes from the paper: {", ".join(changes) or "none"}. See also "Deviations from the paper" in RESULTS.md.
- **Data**: {dataset.title}{class_names}, {split}.
- **Result**: test error **{result["test_error"]:.2f}%** at {iteration} (single crop, whole test set),
  training error {result["train_error"]:.2f}%; {result["parameters"]:,} parameters.
  {format_selection(result)}{"" if is_comparable else " Not comparable with the paper: other data or length."}
- **File**: SHA-256 `{sha256}`, checked on loading.
- **Use**: `python reproduce/predict.py FILE IMAGE`, or `hubconf.py`. Takes images in [0, 1]; the normalization is included.
- **Limits**: assigns every image to one of its {classes}.
  `python reproduce/evaluate.py FILE` measures its calibration error. One seed; all runs are in analysis/tables/runs.csv.
"""


def format_selection(result: dict[str, Any]) -> str:
    """Return a sentence on how the weights were selected, and on the bias of the test error."""
    match result.get("chosen_by"):
        case "test_error":
            return "Selected as the lowest test error of all evaluations, so optimistically biased; not the run's result."
        case "held_out_error":
            error = f"{result['held_out_error']:.2f}%"
            return f"Selected as the lowest validation error of all evaluations ({error}); not the run's result."
        case _:
            best = f"{result['best_test_error']:.2f}%"
            return f"(The lowest of all evaluations, {best}, is selected on the test set, so optimistically biased.)"


def model_card_path(weights: Path) -> Path:
    """Return the path of the model card of a weights file.

    Raises:
        UserError: another file is there.
    """
    card = weights.with_suffix(".md")
    if card.exists() and MARK not in card.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"the model card would overwrite {card}: choose another --output")
    return card
