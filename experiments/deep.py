"""Deep networks: does ResNet-110 need its warm-up, and does ResNet-1202 overfit?

The paper (section 4.2, Table 6 and a footnote) trains 110 layers at lr 0.01 "until the training error is below 80% (about 400
iterations)". At lr 0.1 from the start, the network begins to converge only after several epochs but reaches a similar
accuracy. ResNet-1202 reaches a training error below 0.1% but a higher test error than ResNet-110.

Expected test error in %:

    ResNet-110, warm-up             6.43 (best of 5; 6.61 ± 0.16)    Table 6
    ResNet-110, no warm-up          7.76 ± 0.69 (n=5)                Tony-Y/pytorch_warmup
    ResNet-110, 1,000-step warm-up  6.28 ± 0.10 (n=5)                Tony-Y/pytorch_warmup
    ResNet-1202                     7.93                             Table 6
    ResNet-1202                     6.18 (n=1)                       akamaster/pytorch_resnet_cifar10

Device-hours: not measured yet.

    python experiments/sweep.py deep
"""

if __name__ == "__main__":
    print(__doc__)
    raise SystemExit


from reproduce.config import Config

UNTIL_LEARNING, FIXED_WARMUP, NO_WARMUP = WARMUPS = [
    Config(depth=110, warmup=warmup) for warmup in ("error", "iterations", "none")
]
DEEPEST = Config(depth=1202)
CONFIGS = [*WARMUPS, DEEPEST]
