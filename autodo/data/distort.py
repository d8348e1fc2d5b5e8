"""The distortion of the train set: class imbalance and wrong labels, as pure functions of (labels, generator)."""

import logging

import numpy as np

from autodo.config.dataset import Minority
from autodo.data.image_set import Integers
from autodo.data.split import members

logger = logging.getLogger("autodo")


def imbalance(
    labels: Integers, classes: int, ratio: float, generator: np.random.Generator, minority: Minority = "total"
) -> Integers:
    """Sorted positions of the images that are kept: few of the upper half of the classes, all of the lower half.

    The upper half is labels classes//2..classes-1, and of each of its classes at least one image stays; a warning says
    so if the ratio asks for less. With one generator state, the images kept at a higher ratio are among those kept at a
    lower one. At ratio 1 all images are kept.

    Args:
        ratio: imbalance ratio IR >= 1, majority count over minority count.
        minority: `total`: of the upper half int(L / IR) images stay, drawn at random over it, where L is the number of
            images of the lower half. `total-proportional`: as many, of each class in proportion to its count (by the
            divisor method of Sainte-Lague, which never gives a class less where more images stay). `class`: of the n
            images of each class round(n / IR) stay.
    Shape:
        labels [N] -> [<= N].
    Reference: the published code of Gudovskiy et al. 2021 (`total`).
    """
    if ratio == 1:
        return np.arange(len(labels))
    of_classes = members(labels, classes)
    lower, upper = of_classes[: classes // 2], of_classes[classes // 2 :]
    total = int(sum(map(len, lower)) / ratio)
    if minority == "class":
        wanted = [round(len(of_class) / ratio) for of_class in upper]
        kept = [generator.permutation(of_class)[: max(1, n)] for of_class, n in zip(upper, wanted, strict=True)]
        raised = sum(n < 1 <= len(of_class) for of_class, n in zip(upper, wanted, strict=True))
    else:
        in_order = _in_order(upper, minority, generator)
        first = _first_of_classes(labels[in_order])
        kept = [np.concatenate([in_order[first], np.delete(in_order, first)])[: max(total, len(first))]]
        raised = int((first >= total).sum())
    if raised:
        logger.warning(
            "imbalance ratio %g would leave %d of the %d minority classes empty; each keeps one image",
            *(ratio, raised, len(upper)),
        )
    if sum(map(len, kept)) == sum(map(len, upper)):
        logger.warning(
            "imbalance ratio %g removes no image: the classes %d to %d have %d images together, no more than it leaves",
            *(ratio, classes // 2, classes - 1, sum(map(len, upper))),
        )
    return np.sort(np.concatenate([*lower, *kept]))


def _in_order(upper: list[Integers], minority: Minority, generator: np.random.Generator) -> Integers:
    """Positions of the upper half's images, those that stay longest first."""
    if minority == "total":
        return generator.permutation(np.concatenate(upper))
    shuffled = [generator.permutation(of_class) for of_class in upper]
    # Where the first n of this order stay, they are of each class as many as its share of n, rounded.
    shares = [(np.arange(len(of_class)) + 0.5) / max(1, len(of_class)) for of_class in upper]
    return np.concatenate(shuffled)[np.argsort(np.concatenate(shares), kind="stable")]


def _first_of_classes(labels: Integers) -> Integers:
    """Sorted positions of the first image of each class. Shape: labels [n] -> [<= classes]."""
    return np.sort(np.unique(labels, return_index=True)[1])


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
