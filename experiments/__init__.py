"""One module per question put to the paper, each a docstring and its list of configs, and the sweep that trains
them."""

from types import ModuleType

from experiments import ambiguity, block_design, bn_placement, deep, degradation, lenet, optimizer, precision, warmup, wide

EXPERIMENTS: dict[str, ModuleType] = {
    "degradation": degradation,
    "bn_placement": bn_placement,
    "block_design": block_design,
    "optimizer": optimizer,
    "deep": deep,
    "warmup": warmup,
    "ambiguity": ambiguity,
    "precision": precision,
    "wide": wide,
    "lenet": lenet,
}
"""What `python experiments/sweep.py NAME` trains. A module here imports nothing but reproduce.config: it has CONFIGS,
and maybe a GRID and what is `derived` from its results (see optimizer.py)."""
