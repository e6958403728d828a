"""Ambiguity: how much does each choice that the paper leaves open matter?

The paper makes no claim. ResNet-56 is trained with one alternative at a time; everything else stays at its default.

Expected test error: 6.97% (Table 6). nabla0001/resnet trains on 45k of the 50k images and reports 7.40% at 56 layers and 7.14%
at 110; the other comparable reproductions in analysis/paper.csv average 7.17% and 6.74%. There are no published numbers for the
other choices. The shortcuts are not ambiguous (option A in section 4.2), but users often change them; Table 3 compares them on
ImageNet only.

Not included: appending all zero channels of a shortcut at the end, which computes the same functions up to a permutation of
channels, and the warm-up of ResNet-110 (see deep.py).

Device-hours: not measured yet.

    python experiments/sweep.py ambiguity
"""

if __name__ == "__main__":
    print(__doc__)
    raise SystemExit


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
