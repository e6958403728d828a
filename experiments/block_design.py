"""Block design: where in a residual block do BN and ReLU belong?

Identity Mappings in Deep Residual Networks (arXiv:1603.05027) claims that the cleaner the path of the shortcut, the
better the net, most of all when it is deep. A blog reproduction of depth 32 asks what ReLU before the addition would
do.

Expected, test error in percent at depth 110 (Identity Mappings, Table 2, median of 5):

    original                  6.61
    bn-after-add              8.17
    relu-before-add           7.84
    relu-only-preactivation   6.71
    full-preactivation        6.37

At depths 32 and 56 there is no published comparison.

Device-hours: not measured yet.

    python experiments/sweep.py block_design
"""

from typing import get_args

from reproduce.config import Block, Config

DEPTHS = (32, 56, 110)
BLOCKS = get_args(Block)

CONFIGS = [Config(depth=depth, block=block) for depth in DEPTHS for block in BLOCKS]
