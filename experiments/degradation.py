"""Degradation: do deeper plain nets get worse, and do residual nets of the same layers get better?

The paper's claim (He et al. 2015, section 4.2, Fig. 6 left and middle, Table 6): a deeper plain net has a higher
training and test error; with shortcuts the order turns round, at the same number of parameters.

Expected, test error in percent after 64k iterations:

    depth                         20      32      44      56      110
    residual, Table 6             8.75    7.51    7.17    6.97    6.43 (best of 5; mean 6.61, std 0.16)
    plain, read off Fig. 6 left   9-9.5   10      12      13-13.5 > 60
    plain, a-martyn/resnet        9.69    10.04   11.56   13.07   -        (one run each)

Device-hours: by the clock, in bf16, of a run on one or two CPU cores that did other work, too, plain 20 4.5, residual 20
2.5 and 3.2, plain 32 4.2, residual 32 8.1, plain 56 13.2; of 56,000 of the 64,000 iterations of residual 44, residual 56
and plain 44 at the same time on an NVIDIA H200 0.15; 110 layers not measured yet.

    python experiments/sweep.py degradation
    python analysis/plot_degradation.py
"""

from reproduce.config import Config

DEPTHS = (20, 32, 44, 56, 110)

PLAIN = [Config(depth=depth, residual=False) for depth in DEPTHS]
RESIDUAL = [Config(depth=depth) for depth in DEPTHS]
CONFIGS = [net for twins in zip(PLAIN, RESIDUAL, strict=True) for net in twins]
