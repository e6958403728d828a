"""Precision: do TF32 or bf16 in place of full single precision change the test error?

The paper makes no claim here. Each net is trained in all three with the same seeds, and so from the same weights on the
same batches. RESULTS.md's section on precision has the rule by which one is
called neutral.

Expected: no difference that a handful of seeds shows; there is no published number for these nets.

Device-hours: not measured yet.

    python experiments/sweep.py precision
"""

from dataclasses import replace
from typing import get_args

from reproduce.config import Config, Precision

NETS = [Config(depth=depth) for depth in (20, 56)]
CONFIGS = [replace(net, precision=precision) for precision in get_args(Precision) for net in NETS]
