"""The distortion of the train set: class imbalance and wrong labels, as pure functions of (labels, generator)."""

import numpy as np

from autodo.data.image_set import Integers
from autodo.data.split import members


def imbalance(labels: Integers, classes: int, ratio: float, generator: np.random.Generator) -> Integers:
    """Sorted positions of the images that are kept: of each minority class one in `ratio`, of the others all.

    The minority is labels classes//2..classes-1; max(1, round(n / ratio)) of its n images stay. With one generator
    state, the images kept at a higher ratio are among those kept at a lower one.

    Args:
        ratio: imbalance ratio IR >= 1, majority count over minority count.
    Shape:
        labels [N] -> [<= N].
    """
    kept = members(labels, classes)
    for label in range(classes // 2, classes):
        count = max(1, round(len(kept[label]) / ratio))
        kept[label] = generator.permutation(kept[label])[:count]
    return np.sort(np.concatenate(kept))


def flip_labels(labels: Integers, classes: int, noise_ratio: float, generator: np.random.Generator) -> Integers:
    """New labels, round(noise_ratio * N) of them redrawn uniformly over all classes.

    A redrawn label may come out as it was, so the expected share of wrong labels is NR (C-1)/C.

    Args:
        noise_ratio: NR in [0, 1).
    Shape:
        labels [N] -> [N].
    """
    flipped = labels.copy()
    chosen = generator.choice(len(labels), size=round(noise_ratio * len(labels)), replace=False)
    flipped[chosen] = generator.integers(classes, size=len(chosen))
    return flipped
