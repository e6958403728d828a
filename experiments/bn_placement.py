"""BN placement: does it matter whether the second BN of a block comes before or after the addition?

The paper's block is relu(bn(conv(..)) + x). The alternative, relu(bn(conv(..) + x)), also normalizes the shortcut.

Expected test error in %, BN before / after the addition:

    ResNet-20     8.29 / 8.34     gcr/torch-residual-networks, n=1
    ResNet-32     before is better by 1.5 points (a blog)
    ResNet-110    6.61 / 8.17     Identity Mappings (arXiv:1603.05027), Table 2, median of 5
    ResNet-110    6.97 / 13.56    gcr/torch-residual-networks, n=1

Device-hours: 2.8 for ResNet-20 and 4.3 for ResNet-32 with BN after the addition, on two CPU cores (ResNet-32 at the end on
one); others not measured yet.

    python experiments/sweep.py bn_placement
    python analysis/plot_bn_placement.py
"""

if __name__ == "__main__":
    print(__doc__)
    raise SystemExit


from reproduce.config import Config

DEPTHS = (20, 32, 44, 56, 110)

BEFORE = [Config(depth=depth) for depth in DEPTHS]
AFTER = [Config(depth=depth, block="bn-after-add") for depth in DEPTHS]
CONFIGS = [config for pair in zip(BEFORE, AFTER, strict=True) for config in pair]
