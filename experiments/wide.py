"""Wide nets: is a net of a twentieth of the parameters nearly as good?

Tutorials train torchvision's wide nets on CIFAR-10, with a 3x3 stem of stride 1 and no max-pool: one for Ascend NPUs a
ResNet-50 with the one-cycle schedule up to a learning rate of 0.1, batches of 128 and a weight decay of 5e-4. A blog sets its
32-layer net of the paper's kind, 0.46M parameters, beside a ResNet-18 of 11M at 91% accuracy, and finds it nearly as good;
well-kept recipes of ResNet-18 reach about 95%, so that the blog's comparison may say more of its recipe than of the nets.

ResNet-18 and ResNet-50 are trained by the tutorial's recipe, ResNet-18 by the paper's as well, all for the 64,000 iterations
of the nets that they are compared with. Not torch's defaults: OneCycleLR also lowers the momentum from 0.95 to 0.85 while the
learning rate rises, and raises it again; here it stays at 0.9.

Expected, test error in percent:

    ResNet-32, 0.46M parameters    7.51            Table 6 (a blog: 10 and more)
    ResNet-18, 11.2M               9 and about 5   a blog, and well-kept recipes
    ResNet-50, 23.5M               -               the tutorial's number is not at hand

Device-hours: not measured yet; an image costs 14 (ResNet-18) and 32 times (ResNet-50) as many operations as in ResNet-20.

    python experiments/sweep.py wide
"""

from reproduce.config import Config

NARROW = Config(depth=32)
RESNET18 = Config(family="resnet18", schedule="onecycle", weight_decay=5e-4)
RESNET18_BY_THE_PAPER = Config(family="resnet18")
RESNET50 = Config(family="resnet50", schedule="onecycle", weight_decay=5e-4)

CONFIGS = [NARROW, RESNET18, RESNET18_BY_THE_PAPER, RESNET50]
