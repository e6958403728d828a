"""The recipe of He et al. 2015, section 4.2, in plain PyTorch; quotations are the paper's. Read this file first.

    python reproduce/reference.py --depth 20

Trains on the CPU and prints errors; nothing is saved. The warm-up of the 110-layer network is missing. The other modules add
speed, checkpoints, records and variants. The tests compare the batches, learning rates and training steps of the other modules
with this file.

Shapes: N images, C channels, H rows, W columns, K classes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from reproduce import cli
from reproduce.config import PAPER_ITERATIONS, Config, require
from reproduce.dataset import detect_dataset, find_data_folder, read_dataset
from reproduce.model import build_network

# Import torch after this package: see __init__.py.
# isort: split
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms

PRINT_EVERY = 500
"""Iterations between lines of output."""


def draw_batches(images_NCHW: Tensor, labels_N: Tensor, mean_CHW: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of training images forever; the last batch of an epoch may be smaller."""
    # "4 pixels are padded on each side, and a 32x32 crop is randomly sampled from the padded image or its horizontal flip."
    augment = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
    while True:
        for chosen in torch.randperm(len(images_NCHW)).split(128):  # "a mini-batch size of 128"
            # "The network inputs are 32x32 images, with the per-pixel mean subtracted."
            inputs_NCHW = images_NCHW[chosen] / 255 - mean_CHW
            yield torch.stack([augment(image_CHW) for image_CHW in inputs_NCHW]), labels_N[chosen]


def list_rates(iterations: int = PAPER_ITERATIONS) -> list[float]:
    """Return the learning rate of each iteration, without the warm-up of the 110-layer network."""
    # "We start with a learning rate of 0.1, divide it by 10 at 32k and 48k iterations, and terminate training at 64k
    # iterations."
    half, three_quarters = iterations // 2, iterations * 3 // 4
    return [0.1] * half + [0.01] * (three_quarters - half) + [0.001] * (iterations - three_quarters)


def make_sgd(network: nn.Module) -> torch.optim.Optimizer:
    # "We use a weight decay of 0.0001 and momentum of 0.9." On all parameters: the paper mentions no exceptions.
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0001)


def train_network(
    network: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    rates: Sequence[float],
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Train for one iteration per learning rate; yield each iteration's loss, logits (N x K) and labels (N)."""
    for rate, (images_NCHW, labels_N) in zip(rates, batches, strict=False):  # rates first, so that no extra batch is drawn
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits_NK = network(images_NCHW)
        loss = F.cross_entropy(logits_NK, labels_N)  # includes the softmax
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss, logits_NK, labels_N


@torch.no_grad()
def measure_error(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor, mean_CHW: Tensor) -> float:
    """Return the error in percent: "for testing, we only evaluate the single view of the original 32x32 image"."""
    network.eval()
    batches = zip(images_NCHW.split(1000), labels_N.split(1000), strict=True)
    wrong = sum(int((network(images / 255 - mean_CHW).argmax(1) != labels).sum()) for images, labels in batches)
    network.train()
    return 100 * wrong / len(labels_N)


@dataclass(frozen=True)
class Settings:
    depth: int = 20
    residual: bool = True
    iterations: int = PAPER_ITERATIONS
    data: str = "data"
    """Folder of CIFAR-10, or synthetic."""


def main(arguments: Sequence[str]) -> int:
    """Train a network and print its errors; return the exit status."""
    settings = cli.parse_args(Settings, arguments, "reference.py", __doc__)
    # "The first layer is 3x3 convolutions. Then we use a stack of 6n layers with 3x3 convolutions on the feature maps of sizes
    # {32, 16, 8} respectively [...] The numbers of filters are {16, 32, 64} respectively [...] The network ends with a global
    # average pooling, a 10-way fully-connected layer, and softmax." BN follows each convolution; there is no dropout.
    network = build_network(Config(depth=settings.depth, residual=settings.residual, iterations=settings.iterations))
    dataset = detect_dataset(settings.data)
    require(dataset in ("cifar10", "synthetic"), "--data must be the folder of CIFAR-10, or synthetic", settings.data)
    arrays, _ = read_dataset(dataset, find_data_folder(dataset, settings.data))
    train_NHWC, train_labels, test_NHWC, test_labels = map(torch.from_numpy, arrays)
    train_NCHW, test_NCHW = train_NHWC.permute(0, 3, 1, 2), test_NHWC.permute(0, 3, 1, 2)
    mean_CHW = train_NCHW.sum(0) / (255 * len(train_NCHW))
    batches, rates = draw_batches(train_NCHW, train_labels, mean_CHW), list_rates(settings.iterations)
    steps = train_network(network, make_sgd(network), batches, rates)
    for iteration, (loss, logits_NK, labels_N) in enumerate(steps, start=1):
        if iteration % PRINT_EVERY == 0 or iteration == len(rates):
            batch_error = 100 * float((logits_NK.argmax(1) != labels_N).float().mean())
            test_error = measure_error(network, test_NCHW, test_labels, mean_CHW)
            print(
                f"iteration {iteration}/{len(rates)}: learning rate {rates[iteration - 1]:g}, loss {loss.item():.4f}, "
                f"error of this batch {batch_error:.2f}%, test error {test_error:.2f}%",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
