"""The header of a weights file, and the model card next to it. Imports no torch."""

import hashlib
import re
from pathlib import Path
from typing import Any, TypedDict

import msgspec
from safetensors import SafetensorError, safe_open

from reproduce.config import Config, format_recipe
from reproduce.errors import UserError
from reproduce.record import parse_config
from reproduce.schema import Count, Percent, decode_json


class NetworkResult(TypedDict, total=False):
    """The printed fields of a weights file's result; other repositories' checkpoints have at most best_test_error."""

    test_error: Percent
    best_test_error: Percent
    train_error: Percent
    parameters: Count
    iterations: Count


def sha256_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_sha256(card: Path) -> str | None:
    """Return the SHA-256 of the weights file that a model card describes; None if there is no model card."""
    match = re.search("SHA-256 `(.*)`", card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    return None if match is None else match[1]


def check_sha256(path: Path):
    """Compare a weights file with the model card next to it, if there is one; raise UserError if they differ."""
    card = path.with_suffix(".md")
    if read_sha256(card) not in (None, sha256_of_file(path)):
        raise UserError(f"{path} does not have the SHA-256 in {card}: restore both files")


def read_weights_header(path: Path) -> tuple[Config, dict[str, Any]]:
    """Return config and result from the header of a weights file of export.py.

    Raises:
        UserError: the file is not a weights file.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        config, result = (decode_json(metadata[name].encode(), dict[str, Any]) for name in ("config", "result"))
        msgspec.convert(result, NetworkResult)
        return parse_config(config), result
    except (SafetensorError, KeyError, ValueError, msgspec.ValidationError) as error:
        raise UserError(f"{path} is not a weights file of this repository ({error})") from None


def format_model_card(config: Config, result: dict[str, Any], sha256: str) -> str:
    """Return the model card of a weights file in Markdown."""
    classes = config.dataset_info.class_names
    split = "nine tenths of the training images" if config.split == "val" else "all training images"
    errors = "validation error" if config.split == "val" else "test error, so optimistically biased"
    selection = f", chosen by its {errors}" if "chosen_by" in result else ""
    variants = {config.block: config.block != "original", "warm-up": config.warmup != "none"}
    named = ", ".join(name for name, applies in variants.items() if applies)
    return f"""\
# {config.net}{f" ({named})" if named else ""}, seed {config.seed}

Trained with this repository; record `{config.folder}`. The paper is He et al. 2015 (arXiv:1512.03385), section 4.2.

- **Hyperparameters**: {format_recipe(config)}; {config.iterations:,} iterations.
  See also "Deviations from the paper" in RESULTS.md.
- **Data**: {config.dataset_info.title}, {split}; {len(classes)} classes: {", ".join(classes)}.
- **Result**: test error **{result["test_error"]:.2f}%** (single crop, whole test set), training error
  {result["train_error"]:.2f}%, at iteration {result["iterations"]:,}{selection}. {result["parameters"]:,} parameters.
  One run; other seeds differ.
- **File**: SHA-256 `{sha256}`, checked on loading.
- **Use**: `python reproduce/predict.py FILE IMAGE`. Takes images in [0, 1]; the normalization is included.
- **Limits**: assigns every image to one of its classes. `python reproduce/evaluate.py FILE` measures its calibration error.
"""
