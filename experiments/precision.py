"""Precision: does training in TF32 or bf16 instead of fp32 change the test error?

The paper makes no claim. Each network is trained in all three precisions from the same weights on the same batches. TF32
needs a GPU or an NPU: on a CPU those runs fail, and the others are trained.

Expected: a difference too small to detect with a few seeds; nothing is published for TF32 or bf16. In fp32 and fp16, ResNet-56
reaches 6.88 ± 0.20 each (n=5, tensorflow/models#5243, another weight decay and preprocessing).

Device-hours: as in degradation.py in bf16; others not measured yet.

    python experiments/sweep.py precision
"""

if __name__ == "__main__":
    print(__doc__)
    raise SystemExit


from dataclasses import replace
from typing import get_args

from reproduce.config import Config, Precision

NETS = [Config(depth=depth) for depth in (20, 56)]
CONFIGS = [replace(net, precision=precision) for precision in get_args(Precision) for net in NETS]
