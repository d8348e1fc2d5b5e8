"""scikit-learn's handwritten digits: bundled, so nothing is missing or downloaded."""

import numpy as np

from autodo.config import DatasetConfig
from autodo.data.files import Place
from autodo.data.image_set import Dataset, ImageSet
from autodo.data.split import fixed_test_split


def read_digits(config: DatasetConfig, place: Place) -> Dataset:
    """1,797 gray images of 8x8. There is no official test set: a fixed stratified fifth is it."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grays_in_file = 16
    images = np.rint(bunch.images * (255 / grays_in_file)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    class_names = tuple(str(name) for name in bunch.target_names)
    train, test = fixed_test_split(labels, class_names, where=config.name)
    return Dataset(
        train=ImageSet(images[train], labels[train]),
        test=ImageSet(images[test], labels[test]),
        class_names=class_names,
    )
