"""Optimizer: does Adam train these nets as well as SGD does, and how much of the answer is its learning rate?

The paper trains with SGD (section 4.2) and says nothing of others. A blog reproduction found Adam at lr 1e-3, depth 32,
without augmentation, to stay at 85% training and 61% test accuracy, where SGD reached 100% and 87.5%.

Expected, test error in percent:

    SGD, residual 20 / 56 / 110    8.75 / 6.97 / 6.61     Table 6 (110: mean of 5)
    SGD, residual 20               8.23                   Tony-Y/pytorch_warmup, mean of 5
    AdamW, residual 20             9.06 (lr 0.01), 8.55 with a long warm-up, 8.43 at the best    the same
    SGD, AdamW, residual 110       6.06, and 8.59 at a decoupled decay of 5e-4, 6.26 at 0.25     XuezheMax/apollo
    residual 32, no augmentation   SGD 12.5, Adam 39      the blog, one run each

There is no published number of Adam for depths above 20 that differs from SGD's in nothing else, nor for plain nets.

Besides lr 1e-3, Adam and AdamW are trained at the lr of GRID with the lowest error on the 5k held-out images: residual
20, a quarter of the schedule, seed 0. Those cells (`derived`) exist once all of an optimizer's grid runs have ended;
an lr at the edge of the grid means that the grid is too short. SGD's weights shrink per iteration by
lr x decay / (1 - momentum) = 0.1 x 1e-4 / 0.1 = 1e-4 of themselves; AdamW's, which know no momentum in their decay, by
lr x decay. So its decay is 1e-4 / lr at every lr (0.1 at 1e-3), and torch's default of 0.01 is trained beside it at 1e-3.

Device-hours: 2.4 for residual 20 with Adam on two CPU cores; others not measured yet.

    python experiments/sweep.py optimizer
    python analysis/plot_optimizer.py
"""

import math
from collections.abc import Callable

from reproduce.config import PAPER_ITERATIONS, Config, Optimizer
from reproduce.schema import Result

TUNED: tuple[Optimizer, ...] = ("adam", "adamw")
NETS = ((20, True), (20, False), (56, True), (56, False), (110, True))
"""Depth, and whether residual."""
TORCH_DECAY = 0.01
"""torch's default for AdamW."""
GRID_LR = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def match_decay(optimizer: Optimizer, lr: float) -> float:
    """The weight decay that shrinks the weights as SGD's does: for adamw lr x decay is what it is there."""
    return float(f"{1e-4 / lr:.6g}") if optimizer == "adamw" else 1e-4


GRID = [
    Config(optimizer=optimizer, lr=lr, weight_decay=match_decay(optimizer, lr), split="val", iterations=PAPER_ITERATIONS // 4)
    for optimizer in TUNED
    for lr in GRID_LR
]
"""Trained with seed 0 only, before everything else."""

SGD = [Config(depth=depth, residual=residual) for depth, residual in NETS]
BLOG = [Config(depth=32, optimizer=optimizer, augment=False) for optimizer in ("sgd", "adam")]


def cells(optimizer: Optimizer, lr: float, weight_decay: float | None = None) -> list[Config]:
    """All nets in one setting; by default with the matching decay."""
    decay = match_decay(optimizer, lr) if weight_decay is None else weight_decay
    return [Config(depth=depth, residual=residual, optimizer=optimizer, lr=lr, weight_decay=decay) for depth, residual in NETS]


CONFIGS = [*SGD, *cells("adam", 1e-3), *cells("adamw", 1e-3), *cells("adamw", 1e-3, TORCH_DECAY), *BLOG]


def choose_lr(optimizer: Optimizer, result_of: Callable[[Config], Result | None]) -> float | None:
    """The grid's lr with the lowest held-out error (the smaller lr of two equals), a diverged run counting as the
    worst.

    result_of: gives the content of a grid run's result.json, or None.

    Returns: None while one of the optimizer's grid runs has not ended, or when all of them diverged.
    """
    results = {config.lr: result_of(config) for config in GRID if config.optimizer == optimizer}
    errors = {lr: getattr(result, "held_out_error", math.inf) for lr, result in results.items() if result is not None}
    if len(errors) < len(results) or min(errors.values()) == math.inf:
        return None
    return min(errors, key=lambda lr: (errors[lr], lr))


def derived(result_of: Callable[[Config], Result | None]) -> list[Config]:
    """The cells at the chosen learning rates, as far as the grid's results decide them."""
    configs = []
    for optimizer in TUNED:
        lr = choose_lr(optimizer, result_of)
        if lr is not None:
            configs += cells(optimizer, lr)
    return configs
