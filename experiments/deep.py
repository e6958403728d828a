"""Deep nets: does depth 110 need its warm-up, and what does depth 1202 gain?

The paper's claims (section 4.2, Table 6 and a footnote): 110 layers start at lr 0.01 "until the training error is below
80% (about 400 iterations)"; started at 0.1 the net begins to converge only after several epochs, yet reaches a similar
accuracy. 1202 layers have no difficulty in training (training error < 0.1%) but test worse than 110: overfitting.

Expected, test error in percent:

    residual 110, warm-up          6.43 (best of 5; mean 6.61, std 0.16)    Table 6
    residual 110, no warm-up       7.76 (std 0.69, mean of 5)               Tony-Y/pytorch_warmup
    residual 110, 1k iterations    6.28 (std 0.10, mean of 5)               the same, a longer warm-up than the one here
    residual 1202                  7.93                                     Table 6
    residual 1202                  6.18                                     akamaster/pytorch_resnet_cifar10, one run

Device-hours: not measured yet.

    python experiments/sweep.py deep
"""

from reproduce.config import Config

UNTIL_LEARNING, FIXED_WARMUP, NO_WARMUP = WARMUPS = [
    Config(depth=110, warmup=warmup) for warmup in ("error", "iterations", "none")
]
DEEPEST = Config(depth=1202)
CONFIGS = [*WARMUPS, DEEPEST]
