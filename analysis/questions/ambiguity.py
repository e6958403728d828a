"""How much hangs on each choice that the paper leaves open?"""

import pandas as pd

from analysis.markdown import format_runs, format_table
from analysis.questions.precision import format_effect
from analysis.records import PRECISIONS
from analysis.sample import format_difference
from experiments.ambiguity import ALTERNATIVES
from experiments.deep import FIXED_WARMUP
from reproduce.config import Config

LEDGER = {
    "split": ("training images", "50,000", "45,000"),
    "channel_mean": ("mean subtracted", "per pixel", "per channel"),
    "channel_std": ("std divided by", "none", "per channel"),
    "initialization": ("He initialisation", "fan-in", "fan-out"),
    "last_layer": ("last layer", "as convolutions", "torch's default"),
    "decay": ("weight decay", "every parameter", "weights only"),
    "bn_statistics": ("BN tests with", "moving", "population"),
    "bn_batch": ("BN trains on", "mini-batch of 128", "halves of 64"),
    "last_batch": ("last partial batch", "filled up", "dropped"),
    "shortcut_B": ("shortcuts", "A: no parameters", "B: projections where the shape changes"),
    "shortcut_C": ("shortcuts", "A: no parameters", "C: projections everywhere"),
    "warmup": ("warm-up of 110", "training error", "400 iterations"),
}
"""What is open, our choice, the alternative."""
CONFIGS = ALTERNATIVES | {"warmup": FIXED_WARMUP}


def format_section(runs: pd.DataFrame, link: str) -> str:
    """The ledger compares our own runs: here, and only here, the 45,000 images of --split val count."""
    return f"""## The ambiguity ledger

What the paper leaves open, what we chose, and what the alternative does to the test error of ResNet-56 (of ResNet-110 for the
warm-up): the difference alternative - ours.

{write_ledger(runs, link)}"""


def measure_effects(runs: pd.DataFrame) -> dict[str, str]:
    """The effect of every alternative of the ledger and of the lower precisions, as alternative - ours."""
    effects = {name: format_difference(runs, config, Config(depth=config.depth)) for name, config in CONFIGS.items()}
    effects |= {precision: format_effect(runs, precision, Config()) for precision in PRECISIONS[1:]}
    return {f"effect_{name}": "not measured" if effect == "-" else effect for name, effect in effects.items()}


def write_ledger(runs: pd.DataFrame, link: str) -> str:
    effects = measure_effects(runs)
    rows = [[*choice, effects[f"effect_{name}"]] for name, choice in LEDGER.items()]
    behind = format_runs(runs, [CONFIGS[name] for name in LEDGER], link)
    return format_table(["open in the paper", "ours", "alternative", "effect"], rows) + "\n\n" + behind
