"""LeNet: does the first net of the tutorials reach 97.26% on MNIST in ten passes?

A tutorial for beginners (in PyTorch and MindSpore, on Ascend NPUs) trains a small LeNet on MNIST and reports an accuracy of
97.26% and a confusion matrix: two 3x3 convolutions of 4 and 8 channels, each with ReLU and a 2x2 max-pool, then linear layers
392-32-10; pixels / 255, no augmentation; Adam at a constant 1e-4, batches of 16, ten passes.

Ten passes over the 60,000 images are 37,500 iterations. Not the tutorial's: initial weights are He's with zero biases, as
those of all nets here, and every pass goes on where the one before has ended.

Expected, test error in percent: 2.74, one run.

Device-hours: 0.17 for each run on a CPU core that five of them and other work share.

    python experiments/sweep.py lenet
    python analysis/plot_confusion.py
"""

from reproduce.config import Config

PASSES = 10
LENET = Config(
    family="lenet",
    dataset="mnist",
    optimizer="adam",
    lr=1e-4,
    schedule="constant",
    weight_decay=0.0,
    batch_size=16,
    iterations=PASSES * 60_000 // 16,
    augment=False,
    normalization="none",
)
CONFIGS = [LENET]
