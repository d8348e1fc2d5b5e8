"""The part of the train points that a search uses."""

import numpy as np

from autodo.data.image_set import Integers, Pixels
from autodo.data.prepare import DataSplits
from autodo.data.split import subsample
from autodo.seeds import numpy_generator


def search_subset(data: DataSplits, size: int, seed: int) -> tuple[Pixels, Integers]:
    """Images and observed labels of a stratified subsample of the train points; all of them if there are no more.

    They are held in memory, the centres of streamed ones too: a search goes through them again and again.

    Shape:
        -> [n, C, H, W] uint8, [n] int64.
    """
    labels = data.train.labels
    if size >= len(labels):
        return data.train.images.read(), labels
    chosen = subsample(labels, max(size, len(np.unique(labels))), numpy_generator(seed, "search", "subsample"))
    return data.train.images.read(chosen), labels[chosen]
