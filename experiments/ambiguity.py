"""Ambiguity: how much hangs on each choice that the paper leaves open?

The paper makes no claim here. Residual 56 is trained with one alternative at a time, everything else at the default.

Expected: 6.97% test error for the paper (Table 6). Training on 45k of the 50k images costs about 0.4 to 0.6 points at
depths 56 and 110, by comparison of nabla0001/resnet (45k) with other reproductions (50k). For the other choices there
is no published number. The shortcuts are no open choice, since section 4.2 says A, but what users change first; the paper
compares the three on ImageNet only (Table 3).

Left out: zero channels of a shortcut appended at the end instead of half on each side, which is the same function up
to a permutation of the channels; the warm-up of depth 110, which is in `deep`.

Device-hours: not measured yet.

    python experiments/sweep.py ambiguity
"""

from dataclasses import replace

from reproduce.config import Config

DEFAULT = Config(depth=56)

ALTERNATIVES = {
    "split": replace(DEFAULT, split="val"),
    "channel_mean": replace(DEFAULT, normalization="channel-mean"),
    "channel_std": replace(DEFAULT, normalization="channel-mean-std"),
    "initialization": replace(DEFAULT, initialization="fan-out"),
    "last_layer": replace(DEFAULT, last_layer="uniform"),
    "decay": replace(DEFAULT, decay="weights"),
    "bn_statistics": replace(DEFAULT, bn_statistics="population"),
    "bn_batch": replace(DEFAULT, bn_batch="halves"),
    "last_batch": replace(DEFAULT, last_batch="drop"),
    "shortcut_B": replace(DEFAULT, shortcut="B"),
    "shortcut_C": replace(DEFAULT, shortcut="C"),
}
CONFIGS = [DEFAULT, *ALTERNATIVES.values()]
