"""scikit-learn's handwritten digits, which come with the library."""

import importlib.util
from pathlib import Path

import numpy as np

from autodo.config.dataset import DatasetConfig
from autodo.data.images.image_set import ArrayImages, Dataset, ImageSet
from autodo.data.images.split import fixed_test_split
from autodo.data.readers.location import DatasetLocation


def read_digits(config: DatasetConfig, location: DatasetLocation) -> Dataset:
    """Reads 1,797 gray images of 8x8. There is no official test set; a fixed stratified fifth serves as one."""
    # `sklearn.datasets.load_digits` reads the same file, but importing scikit-learn takes as long as a short training.
    sklearn = importlib.util.find_spec("sklearn")
    assert sklearn is not None
    assert sklearn.origin is not None
    rows = np.loadtxt(Path(sklearn.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    grays_in_file = 16
    images = np.rint(rows[:, :-1] * (255 / grays_in_file)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = rows[:, -1].astype(np.int64)
    class_names = tuple(str(digit) for digit in range(10))
    train, test = fixed_test_split(labels, class_names, where=config.name)
    return Dataset(
        train=ImageSet(ArrayImages(images[train]), labels[train]),
        test=ImageSet(ArrayImages(images[test]), labels[test]),
        class_names=class_names,
    )
