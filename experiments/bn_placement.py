"""BN placement: does it matter whether the second BN of a block comes before or after the addition?

The paper's block adds last: relu(bn(conv(..)) + x). The alternative normalises the sum, shortcut included:
relu(bn(conv(..) + x)).

Expected, test error in percent, before / after the addition:

    depth 20     8.29 / 8.34    gcr/torch-residual-networks, one run each
    depth 32     a blog reproduction puts "before" 1.5 points of accuracy ahead
    depth 110    6.61 / 8.17    Identity Mappings (arXiv:1603.05027), Table 2, median of 5
    depth 110    6.97 / 13.56   gcr/torch-residual-networks, one run each, without warm-up

Device-hours: with BN after the addition 2.8 for 20 layers on two CPU cores and 4.3 for 32, the last eighth on one of them;
others not measured yet.

    python experiments/sweep.py bn_placement
    python analysis/plot_bn_placement.py
"""

from reproduce.config import Config

DEPTHS = (20, 32, 44, 56, 110)

BEFORE = [Config(depth=depth) for depth in DEPTHS]
AFTER = [Config(depth=depth, block="bn-after-add") for depth in DEPTHS]
CONFIGS = [net for twins in zip(BEFORE, AFTER, strict=True) for net in twins]
