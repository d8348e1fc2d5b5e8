"""The part of the train points that a search uses."""

import numpy as np

from autodo.data.image_set import Images, Integers
from autodo.data.prepare import Prepared
from autodo.data.split import subsample
from autodo.seeds import numpy_generator


def reduced(data: Prepared, size: int, seed: int) -> tuple[Images, Integers]:
    """Images and observed labels of a stratified subsample of the train points; all of them if there are no more.

    Shape:
        -> [n, C, H, W] uint8, [n] int64.
    """
    labels = data.train.labels
    if size >= len(labels):
        return data.train.images, labels
    chosen = subsample(labels, max(size, len(np.unique(labels))), numpy_generator(seed, "search", "subsample"))
    return data.train.images[chosen], labels[chosen]
