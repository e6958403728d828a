"""Random numbers as a pure function of a seed, a purpose and a position, the same on every machine."""

import numpy as np

INITIALIZATION, ORDER, AUGMENTATION, SPLIT, SYNTHETIC = range(5)
"""Purposes of random numbers; each has an independent stream."""


def random_generator(seed: int, purpose: int, position: int = 0) -> np.random.Generator:
    """Return a counter-based generator (Philox) that depends on the arguments alone."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, position]))
