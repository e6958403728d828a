"""Wide networks: is a network with 1/20 of the parameters nearly as accurate?

Tutorials train torchvision's wide networks on CIFAR-10 with a 3x3 stem and no max-pooling. A tutorial for Ascend NPUs trains
ResNet-50 with the one-cycle schedule (peak learning rate 0.1, batches of 128, weight decay 5e-4). A blog finds its 32-layer
ResNet (0.46M parameters) nearly as good as a ResNet-18 (11M) at 91% accuracy, but well-tuned recipes reach
about 95% with ResNet-18.

ResNet-18 and ResNet-50 are trained with the tutorial's recipe, ResNet-18 also with the paper's, all for 64,000 iterations. The
momentum stays at 0.9; torch's OneCycleLR varies it by default.

Expected test error in %:

    ResNet-32, 0.46M parameters    7.51            Table 6 (a blog: 10 and more)
    ResNet-18, 11.2M               9               a blog
    ResNet-18, 11.2M               about 5         well-tuned recipes
    ResNet-50, 23.5M               -               the tutorial's number is unknown

Device-hours: not measured yet; an image takes 14 (ResNet-18) and 32 (ResNet-50) times the operations of ResNet-20.

    python experiments/sweep.py wide
"""

if __name__ == "__main__":
    print(__doc__)
    raise SystemExit


from reproduce.config import Config

NARROW = Config(depth=32)
RESNET18 = Config(family="resnet18", schedule="onecycle", weight_decay=5e-4)
RESNET18_PAPER_RECIPE = Config(family="resnet18")
RESNET50 = Config(family="resnet50", schedule="onecycle", weight_decay=5e-4)

CONFIGS = [NARROW, RESNET18, RESNET18_PAPER_RECIPE, RESNET50]
