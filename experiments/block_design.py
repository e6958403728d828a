"""Block design: where in a residual block should BN and ReLU be?

Identity Mappings in Deep Residual Networks (arXiv:1603.05027) claims that cleaner shortcuts train better, above all in deep
networks.

Expected test error in % at 110 layers (Identity Mappings, Table 2, median of 5):

    original                  6.61
    bn-after-add              8.17
    relu-before-add           7.84
    relu-only-preactivation   6.71
    full-preactivation        6.37

raphaelreme/torch-resnet finds the opposite (original / full pre-activation, n=5, shortcut B): 7.64 / 7.76 at 32, 7.04 / 7.42
at 56 and 6.60 / 6.79 at 110 layers.

Device-hours: not measured yet.

    python experiments/sweep.py block_design
"""

if __name__ == "__main__":
    print(__doc__)
    raise SystemExit


from typing import get_args

from reproduce.config import Block, Config

DEPTHS = (32, 56, 110)
BLOCKS = get_args(Block)

CONFIGS = [Config(depth=depth, block=block) for depth in DEPTHS for block in BLOCKS]
