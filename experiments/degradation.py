"""Degradation: do deeper plain networks get worse, and deeper residual networks better?

The paper (section 4.2, Fig. 6, Table 6) claims that deeper plain networks have a higher training and test error, and that with
shortcuts and the same number of parameters the order is reversed.

Expected test error in % after 64,000 iterations:

    depth                         20      32      44      56      110
    residual, Table 6             8.75    7.51    7.17    6.97    6.43 (best of 5; 6.61 ± 0.16)
    plain, read off Fig. 6 left   9-9.5   10      12      13-13.5 > 60
    plain, a-martyn/resnet, n=1   9.69    10.04   11.56   13.07   -

Device-hours: in bf16 on one or two CPU cores, mostly shared with other work, 2.2 to 4.5 for 20 layers, 4.2 to 8.1 for
32, 6.7 and 13.2 for plain-56, 18 for ResNet-56; on an NVIDIA H200, 0.15 for ResNet-44, ResNet-56 and plain-44 concurrently
(56,000 of the 64,000 iterations); 110 layers not measured yet.

    python experiments/sweep.py degradation
    python analysis/plot_degradation.py
"""

if __name__ == "__main__":
    print(__doc__)
    raise SystemExit


from reproduce.config import Config

DEPTHS = (20, 32, 44, 56, 110)

PLAIN = [Config(depth=depth, residual=False) for depth in DEPTHS]
RESIDUAL = [Config(depth=depth) for depth in DEPTHS]
CONFIGS = [config for pair in zip(PLAIN, RESIDUAL, strict=True) for config in pair]
