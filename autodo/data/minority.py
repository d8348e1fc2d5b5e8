"""Minority classes of a train set, from the number of images of each class."""

import numpy as np
from numpy.typing import NDArray

LEAST_RATIO = 1.5
"""Smallest ratio of the largest to the smallest class at which classes that no step reduced have a minority."""


def minority_classes(
    train_counts: NDArray[np.integer] | NDArray[np.floating], reduced: NDArray[np.bool_] | None = None
) -> tuple[int, ...]:
    """Labels of the minority classes in increasing order; empty where there is no minority.

    They are the classes that the step imbalance reduced. If it reduced none, and in a long tail, they are the classes
    with fewer train images than the mean, provided that the largest class has at least LEAST_RATIO times the images of
    the smallest.

    Args:
        train_counts: images of each class in the dataset's train set, before val is split off and labels are changed:
            the same for all methods, splits and seeds. In a synthetic long tail, the share of each class.
        reduced: True for classes that lost images to the step imbalance; None: none did.
    Shape:
        train_counts [C], reduced [C].
    """
    if reduced is None or not reduced.any():
        rare = train_counts < train_counts.mean()
        reduced = rare & (train_counts.max() >= LEAST_RATIO * train_counts.min())
    return tuple(np.flatnonzero(reduced).tolist())
