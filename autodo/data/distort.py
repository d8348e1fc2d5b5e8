"""Class imbalance and uniformly wrong labels, as pure functions of (labels, generator)."""

import logging

import numpy as np
from numpy.typing import NDArray

from autodo.config.dataset import DistortionConfig, Minority
from autodo.data.images.image_set import Integers
from autodo.data.images.split import members

logger = logging.getLogger("autodo")


def kept_images(
    labels: Integers, classes: int, distortion: DistortionConfig, generator: np.random.Generator
) -> Integers:
    """Sorted positions of the images that the class imbalance of a distortion keeps.

    Shape:
        labels [N] -> [<= N].
    """
    if distortion.imbalance == "exponential":
        return exponential_imbalance(labels, classes, distortion.imbalance_ratio, generator)
    return imbalance(labels, classes, distortion.imbalance_ratio, generator, distortion.minority)


def long_tail(classes: int, ratio: float) -> NDArray[np.float64]:
    """Images of each class relative to class 0 in an exponential imbalance: IR^(-c / (C - 1)). Shape: [C]."""
    return ratio ** (-np.arange(classes) / (classes - 1))


def exponential_imbalance(labels: Integers, classes: int, ratio: float, generator: np.random.Generator) -> Integers:
    """Sorted positions of the images that are kept: of class c n_max IR^(-c / (C - 1)), rounded.

    n_max is the largest number for which every class has enough images: that of class 0 if all classes are equally
    large. At least one image of each class stays; if the ratio asks for less, a warning says so. Of equally large
    classes, the images kept at a higher ratio are a subset of those kept at a lower one.

    Args:
        ratio: imbalance ratio IR >= 1, images of class 0 over those of the last class.
    Shape:
        labels [N] -> [<= N].
    Reference: Cui et al. 2019, section 5.1 (long-tailed CIFAR); Cao et al. 2019.
    """
    of_classes, shares = members(labels, classes), long_tail(classes, ratio)
    largest = min(len(of_class) / share for of_class, share in zip(of_classes, shares, strict=True) if len(of_class))
    wanted = np.rint(largest * shares).astype(np.int64)
    raised = int((wanted < 1).sum())
    if raised:
        logger.warning(
            "imbalance ratio %g would leave %d of the %d classes empty; each keeps one image", ratio, raised, classes
        )
    kept = [
        generator.permutation(of_class)[: max(1, n)] for of_class, n in zip(of_classes, wanted.tolist(), strict=True)
    ]
    return np.sort(np.concatenate(kept))


def imbalance(
    labels: Integers, classes: int, ratio: float, generator: np.random.Generator, minority: Minority = "total"
) -> Integers:
    """Sorted positions of the images that are kept: all of the lower half of the classes, few of the upper half.

    The upper half is labels classes//2..classes-1. At least one image of each of its classes stays; if the ratio asks
    for less, a warning says so. With the same generator state, the images kept at a higher ratio are a subset of those
    kept at a lower one. At ratio 1 all images are kept.

    Args:
        ratio: imbalance ratio IR >= 1, majority count over minority count.
        minority: `total`: int(L / IR) images of the upper half stay, drawn at random, where L is the number of images
            of the lower half. `total-proportional`: as many, divided among the classes in proportion to their counts
            (by the Sainte-Lague method, which never takes images from a class when the total grows). `class`:
            round(n / IR) of the n images of each class stay.
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
    """Positions of the upper half's images, in the order in which they are kept."""
    if minority == "total":
        return generator.permutation(np.concatenate(upper))
    shuffled = [generator.permutation(of_class) for of_class in upper]
    # The first n of this order contain of each class its proportional share of n, rounded.
    shares = [(np.arange(len(of_class)) + 0.5) / max(1, len(of_class)) for of_class in upper]
    return np.concatenate(shuffled)[np.argsort(np.concatenate(shares), kind="stable")]


def _first_of_classes(labels: Integers) -> Integers:
    """Sorted positions of the first image of each class. Shape: labels [n] -> [<= classes]."""
    return np.sort(np.unique(labels, return_index=True)[1])


def flip_labels(labels: Integers, classes: int, noise_ratio: float, generator: np.random.Generator) -> Integers:
    """Labels of which round(noise_ratio * N) are redrawn uniformly over all classes.

    A redrawn label may be the same as before, so the expected share of wrong labels is NR (C-1)/C.

    Args:
        noise_ratio: NR in [0, 1).
    Shape:
        labels [N] -> [N].
    """
    flipped = labels.copy()
    chosen = generator.choice(len(labels), size=round(noise_ratio * len(labels)), replace=False)
    flipped[chosen] = generator.integers(classes, size=len(chosen))
    return flipped
