"""Warm-up: does the warm-up that the paper uses for 110 layers also help at 56?

The paper (section 4.2) trains 110 layers at lr 0.01 for about 400 iterations before lr 0.1, and shallower networks at lr 0.1
from the start. Here 44 and 56 layers are trained both ways.

Expected test error in %, Tony-Y/pytorch_warmup (n=5, 186 epochs); nothing is published for plain-56 with a warm-up:

                  no warm-up      1,000 steps     no warm-up, Table 6
    ResNet-44     7.47 ± 0.50     6.99 ± 0.19     7.17
    ResNet-56     7.53 ± 1.01     6.80 ± 0.12     6.97

Device-hours: in bf16 on one and two CPU cores shared with other work, 18 and 7.7 for ResNet-56; without a warm-up as in
degradation.py; others not measured yet.

    python experiments/sweep.py warmup
    python analysis/plot_warmup.py
"""

if __name__ == "__main__":
    print(__doc__)
    raise SystemExit


from dataclasses import replace

from reproduce.config import Config

WITHOUT = [Config(depth=44), Config(depth=56), Config(depth=56, residual=False)]
WITH = [replace(config, warmup="iterations") for config in WITHOUT]
CONFIGS = [config for pair in zip(WITHOUT, WITH, strict=True) for config in pair]
