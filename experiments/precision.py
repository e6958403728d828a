"""Precision: does training in TF32 or bf16 instead of fp32 change the test error?

The paper makes no claim. Each network is trained in all three precisions from the same weights on the same batches.

Expected: a difference too small to detect with a few seeds; nothing is published for these networks.

Device-hours: not measured yet.

    python experiments/sweep.py precision
"""

from dataclasses import replace
from typing import get_args

from reproduce.config import Config, Precision

NETS = [Config(depth=depth) for depth in (20, 56)]
CONFIGS = [replace(net, precision=precision) for precision in get_args(Precision) for net in NETS]
