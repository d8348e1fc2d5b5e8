"""Minority classes of a train set, from the number of images of each class."""

import numpy as np
from numpy.typing import NDArray

from autodo.data.images.image_set import Integers

LEAST_RATIO = 1.5
"""Smallest ratio of the largest to the smallest class at which an undistorted dataset has minority classes."""


def minority_classes(train_counts: Integers, reduced: NDArray[np.bool_]) -> tuple[int, ...]:
    """Labels of the minority classes in increasing order; empty where there is no minority.

    They are the classes that the synthetic imbalance reduced. If it reduced none, they are the classes with fewer train
    images than the mean, provided that the largest class has at least LEAST_RATIO times the images of the smallest.

    Args:
        train_counts: images of each class in the dataset's train set, before val is split off and labels are changed:
            the same for all methods, splits and seeds.
        reduced: True for classes that lost images to the synthetic imbalance.
    Shape:
        train_counts [C], reduced [C].
    """
    if not reduced.any():
        rare = train_counts < train_counts.mean()
        reduced = rare & (train_counts.max() >= LEAST_RATIO * train_counts.min())
    return tuple(np.flatnonzero(reduced).tolist())
