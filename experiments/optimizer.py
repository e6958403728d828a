"""Optimizer: does Adam train these networks as well as SGD, and how much depends on its learning rate?

The paper trains with SGD (section 4.2) and makes no claim about others. In a blog's reproduction (32 layers, no augmentation),
Adam at lr 1e-3 reached 85% training and 61% test accuracy, SGD 100% and 87.5%.

Expected test error in %; nothing is published for Adam beyond 20 layers with all else equal, nor for plain networks:

    SGD, ResNet-20 / 56 / 110         8.75 / 6.97 / 6.61    Table 6 (110: mean of 5)
    SGD / Adam, ResNet-20             8.62 / 9.76           amirgholami/adahessian (decay 2e-4, 40k iterations, best)
    SGD, ResNet-20                    8.23                  Tony-Y/pytorch_warmup (n=5)
    AdamW, ResNet-20                  9.06 (lr 0.01), 8.55 with a long warm-up, best 8.43    Tony-Y/pytorch_warmup
    SGD / AdamW, ResNet-110           6.06 / 8.59 and 6.26 (decoupled decay 5e-4, 0.25)      XuezheMax/apollo
    ResNet-32, no augmentation        SGD 12.5, Adam 39     a blog (n=1)

Adam and AdamW are trained at LEARNING_RATES. GRID measures the validation error of more learning rates (ResNet-20, a quarter of
the schedule): add the best one to LEARNING_RATES, or extend the grid if it is at either end. Per iteration, SGD's weight decay
shrinks the weights by lr x decay / (1 - momentum) = 0.1 x 1e-4 / 0.1 = 1e-4, AdamW's by lr x decay. So AdamW's decay is
1e-4 / lr (0.1 at 1e-3); at lr 1e-3 torch's default of 0.01 is trained as well.

Device-hours: 2.4 for ResNet-20 with Adam on two CPU cores; others not measured yet.

    python experiments/sweep.py optimizer
    python analysis/plot_optimizer.py
"""

if __name__ == "__main__":
    print(__doc__)
    raise SystemExit


from reproduce.config import PAPER_ITERATIONS, Config, Optimizer

LEARNING_RATES: dict[Optimizer, tuple[float, ...]] = {"adam": (1e-3,), "adamw": (1e-3,)}
NETS = ((20, True), (20, False), (56, True), (56, False), (110, True))
"""Depth, and whether residual."""
TORCH_DECAY = 0.01
"""torch's default weight decay for AdamW."""
GRID_LR = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def match_decay(optimizer: Optimizer, lr: float) -> float:
    """Return the weight decay that shrinks the weights as fast as SGD's."""
    return float(f"{1e-4 / lr:.6g}") if optimizer == "adamw" else 1e-4


GRID = [
    Config(optimizer=optimizer, lr=lr, weight_decay=match_decay(optimizer, lr), split="val", iterations=PAPER_ITERATIONS // 4)
    for optimizer in LEARNING_RATES
    for lr in GRID_LR
]
"""Trained first."""

SGD = [Config(depth=depth, residual=residual) for depth, residual in NETS]
BLOG = [Config(depth=32, optimizer=optimizer, augment=False) for optimizer in ("sgd", "adam")]


def list_configs(optimizer: Optimizer, lr: float, weight_decay: float | None = None) -> list[Config]:
    """Return all networks at one learning rate, by default with the matching weight decay."""
    decay = match_decay(optimizer, lr) if weight_decay is None else weight_decay
    return [Config(depth=depth, residual=residual, optimizer=optimizer, lr=lr, weight_decay=decay) for depth, residual in NETS]


CONFIGS = [
    *SGD,
    *(config for optimizer, rates in LEARNING_RATES.items() for lr in rates for config in list_configs(optimizer, lr)),
    *list_configs("adamw", 1e-3, TORCH_DECAY),
    *BLOG,
]
