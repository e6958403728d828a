"""LeNet: does the tutorial network reach 97.26% accuracy on MNIST in ten epochs?

A beginners' tutorial (PyTorch and MindSpore, on Ascend NPUs) reports this accuracy and a confusion matrix. The network has two
3x3 convolutions with 4 and 8 channels, each with ReLU and 2x2 max-pooling, then linear layers 392-32-10. It is trained on
pixels / 255 without augmentation, with Adam at a constant 1e-4 and batches of 16.

Ten epochs are 37,500 iterations. Unlike the tutorial, weights have He initialization with zero biases, as in all networks here.

Expected test error: 2.74% (n=1).

Device-hours: 0.17 per run on one CPU core shared by five runs and other work.

    python experiments/sweep.py lenet
    python analysis/plot_confusion.py
"""

if __name__ == "__main__":
    print(__doc__)
    raise SystemExit


from reproduce.config import Config

EPOCHS = 10
LENET = Config(
    family="lenet",
    dataset="mnist",
    optimizer="adam",
    lr=1e-4,
    schedule="constant",
    weight_decay=0.0,
    batch_size=16,
    iterations=EPOCHS * 60_000 // 16,
    augment=False,
    normalization="none",
)
CONFIGS = [LENET]
