"""Likeness of the classes of a dataset, by the images themselves."""

import numpy as np
from numpy.typing import NDArray

from autodo.data.images.image_set import ImageSet, Pixels
from autodo.data.images.split import FIXED_SEED, subsample
from autodo.seeds import numpy_generator

Floats = NDArray[np.float64]

MOST_IMAGES = 10_000
"""Largest number of images that are read; with more than 1,000 classes ten of each."""
SIDE = 8
_RIDGE = 0.01
_CHUNK_SIZE = 1024


def class_confusion(dataset: ImageSet, classes: int) -> Floats:
    """How a wrong label of class c is distributed over the other classes: in proportion to their likeness.

    The likeness of two classes is the error rate of the linear discriminant between them, Phi(-d/2). Here d is the
    Mahalanobis distance of their means, under the pooled covariance within classes, of the images averaged to 8 x 8
    pixels, or of the features. It is a smooth function of the images, so that rounding does not change labels, and the
    same for all runs on a dataset, whatever their seed.

    Args:
        dataset: the whole train set before it is distorted; with more than MOST_IMAGES images, a fixed sample is read.
    Shape:
        [C, C]: rows with sum 1, zero on the diagonal.
    """
    from scipy.special import log_ndtr  # slow to import

    size = max(MOST_IMAGES, 10 * classes)
    chosen = np.arange(len(dataset))
    if len(dataset) > size:
        chosen = subsample(dataset.labels, size, numpy_generator(FIXED_SEED, "class confusion"))
    labels = dataset.labels[chosen]
    parts = (chosen[start : start + _CHUNK_SIZE] for start in range(0, len(chosen), _CHUNK_SIZE))
    features = np.concatenate([small_images(dataset.images.read(part)) for part in parts])
    log_likeness = log_ndtr(-np.sqrt(_squared_distances(features, labels, classes)) / 2)
    np.fill_diagonal(log_likeness, -np.inf)
    likeness = np.exp(log_likeness - log_likeness.max(1, keepdims=True))
    return likeness / likeness.sum(1, keepdims=True)


def small_images(images: Pixels | NDArray[np.float32]) -> Floats:
    """Images averaged to at most SIDE x SIDE pixels, in [0, 1]; features as they are.

    Shape:
        [n, channels, H, W] uint8, or [n, D, 1, 1] float32 -> [n, D].
    """
    if images.dtype != np.uint8:
        return images.reshape(len(images), -1).astype(np.float64)
    height, width = images.shape[2:]
    rows, columns = (np.unique(np.arange(SIDE) * length // SIDE) for length in (height, width))
    sums = np.add.reduceat(np.add.reduceat(images, rows, axis=2, dtype=np.int64), columns, axis=3)
    areas = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    return (sums / (255 * areas)).reshape(len(images), -1)


def _squared_distances(features: Floats, labels: NDArray[np.int64], classes: int) -> Floats:
    """Squared Mahalanobis distances of the class means, without their bias from small classes. Shape: [C, C]."""
    n, size = features.shape
    counts = np.bincount(labels, minlength=classes).clip(min=1)
    member = np.eye(classes)[labels]
    means = member.T @ features / counts[:, None]
    within = features - means[labels]
    covariance = within.T @ within / max(1, n - classes)
    covariance += (_RIDGE * np.trace(covariance) / size + 1e-6) * np.eye(size)
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), means.T).T
    norms = (whitened**2).sum(1)
    squared = norms[:, None] + norms - 2 * whitened @ whitened.T
    return (squared - size * (1 / counts[:, None] + 1 / counts)).clip(min=0)
