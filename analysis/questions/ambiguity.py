"""How much does each choice that the paper leaves open matter?"""

import pandas as pd

from analysis.markdown import format_net, format_table
from analysis.sample import choose_precision
from analysis.sections import format_gap
from experiments.ambiguity import ALTERNATIVES, DEFAULT
from experiments.deep import FIXED_WARMUP
from reproduce.config import Config

CHOICES = {
    "split": ("training images", "50,000", "45,000"),
    "channel_mean": ("mean subtracted", "per pixel", "per channel"),
    "channel_std": ("division by the standard deviation", "none", "per channel"),
    "initialization": ("He initialization", "fan-in", "fan-out"),
    "last_layer": ("initialization of the last layer", "that of the convolutions", "PyTorch's default"),
    "decay": ("weight decay", "on every parameter", "on weights only"),
    "bn_statistics": ("BN statistics at test time", "moving averages", "population"),
    "bn_batch": ("BN batch", "128", "two halves of 64"),
    "last_batch": ("last partial batch", "filled up", "dropped"),
    "shortcut_B": ("shortcuts", "A", "B"),
    "shortcut_C": ("shortcuts", "A", "C"),
    "warmup": ("warm-up of ResNet-110", "until the training error is below 80%", "400 iterations"),
}
"""What is open, our choice, and the alternative."""
CONFIGS = ALTERNATIVES | {"warmup": FIXED_WARMUP}


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return the table of open choices. Unlike other sections it includes runs on 45,000 images."""
    rows, missing = [], []
    for name, (what, ours, alternative) in CHOICES.items():
        config = CONFIGS[name]
        default = Config(depth=config.depth)
        precision = choose_precision(runs, [config, default])
        gap = format_gap(runs[runs["precision"] == precision], config, default)
        if gap:
            rows.append([what, ours, alternative, format_net(default), f"{gap}, {precision}"])
        else:
            missing.append(f"{what}: {alternative} instead of {ours}")
    table = format_table(["open in the paper", "our choice", "alternative", "network", "test error, alternative - ours"], rows)
    not_run = (
        f"Alternatives not run yet: {'; '.join(missing)} (`python experiments/sweep.py ambiguity --precision "
        f"{choose_precision(runs, [DEFAULT])}`; for the warm-up, `deep`). "
        "The paper specifies some of these choices, such as shortcut A; other code often differs."
    )
    parts = [
        "## How much do implementation choices matter?",
        table if rows else "",
        not_run if missing else "",
    ]
    return "\n\n".join(filter(None, parts))
