"""Wrong labels of a train set, of each kind that `distortion.noise` names."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from autodo.config.dataset import DistortionConfig
from autodo.data.confusable import class_confusion
from autodo.data.distort import flip_labels
from autodo.data.images.image_set import Images, ImageSet, Integers
from autodo.data.images.split import allocate, members

Floats = NDArray[np.float64]

RATE_DEVIATION = 0.1
"""Standard deviation of the points' flip rates in instance-dependent noise, before truncation."""
_WEIGHT_STEPS = 1024
_CHUNK_SIZE = 4096


def observed_labels(
    points: ImageSet, dataset: ImageSet, classes: int, distortion: DistortionConfig, generator: np.random.Generator
) -> Integers:
    """The labels of the train points, of which some are made wrong.

    Args:
        dataset: the whole train set that the points are from; only `confusion` reads it.
    Shape:
        [N].
    """
    labels, ratio = points.labels, distortion.noise_ratio
    match distortion.noise:
        case "uniform":
            return flip_labels(labels, classes, ratio, generator)
        case "pair":
            return flip_by_class(labels, np.roll(np.eye(classes), 1, axis=1), ratio, generator)
        case "confusion":
            return flip_by_class(labels, class_confusion(dataset, classes), ratio, generator)
        case "instance":
            return flip_by_pixels(labels, points.images, classes, ratio, generator)


def flip_by_class(labels: Integers, targets: Floats, noise_ratio: float, generator: np.random.Generator) -> Integers:
    """Labels of which round(noise_ratio * N) are wrong, each in place of another according to its class.

    Of every class the share noise_ratio is wrong, and of its wrong labels the share targets[c, k] is k, both as near as
    whole images allow (largest remainders). With the same generator state, the images with wrong labels at a higher
    ratio include those at a lower one.

    Args:
        noise_ratio: NR in [0, 1).
    Shape:
        labels [N] -> [N]; targets [C, C]: rows with sum 1, zero on the diagonal.
    """
    classes = len(targets)
    counts = np.bincount(labels, minlength=classes)
    wrong = allocate(counts, round(noise_ratio * len(labels)), low=np.zeros_like(counts), high=counts)
    flipped = labels.copy()
    for of_class, count, row in zip(members(labels, classes), wrong.tolist(), targets, strict=True):
        low, high = np.zeros(classes, np.int64), np.where(row > 0, count, 0)
        flipped[generator.permutation(of_class)[:count]] = np.repeat(
            np.arange(classes), allocate(row, count, low=low, high=high)
        )
    return flipped


def flip_by_pixels(
    labels: Integers, images: Images, classes: int, noise_ratio: float, generator: np.random.Generator
) -> Integers:
    """Labels of which round(noise_ratio * N) are wrong; which, and in place of what, depends on the pixels.

    Each point has a flip rate from a normal distribution with mean NR and standard deviation 0.1, truncated to [0, 1].
    A label y becomes k != y with the probability softmax(x W_y)[k], where x are the pixels in [0, 1], and W_y has
    standard normal entries, drawn for each class y.

    The paper draws each point independently. Then the share of wrong labels varies, and it is too high for a small NR,
    at which the truncation raises the mean of the rates: 10% at NR = 0.05. Here exactly round(NR N) points are drawn,
    with probabilities in proportion to their rates (systematic sampling in a random order).

    Args:
        noise_ratio: NR in [0, 1).
    Shape:
        labels [N] -> [N]; images [N, channels, H, W].
    Reference: Xia et al. 2020, Part-dependent Label Noise, algorithm 2 (appendix).
    """
    rates = _truncated_normal(noise_ratio, generator.random(len(labels)))
    wrong = sample_by_rate(rates, round(noise_ratio * len(labels)), generator)
    draws = generator.random(len(labels))
    flipped = labels.copy()
    for label in range(classes):
        # Whole numbers, whose products and sums are exact in float64: the labels do not depend on the order of sums,
        # and so not on the processor and its number of threads.
        weights = np.rint(_WEIGHT_STEPS * generator.standard_normal((int(np.prod(images.shape[1:])), classes)))
        for rows in _chunks(wrong[labels[wrong] == label]):
            scores = images.read(rows).reshape(len(rows), -1).astype(np.float64) @ weights / (255 * _WEIGHT_STEPS)
            scores[:, label] = -np.inf
            cumulative = np.exp(scores - scores.max(1, keepdims=True)).cumsum(1)
            flipped[rows] = np.argmax(cumulative > draws[rows, None] * cumulative[:, -1:], axis=1)
    return flipped


def sample_by_rate(rates: Floats, count: int, generator: np.random.Generator) -> Integers:
    """Sorted positions [count], each drawn with the probability count * rate / (sum of the rates), at most 1.

    Shape:
        rates [N] > 0, count <= N.
    """
    chances = np.zeros(len(rates))
    free = np.ones(len(rates), bool)
    while free.any():
        chances[free] = rates[free] * ((count - (~free).sum()) / rates[free].sum())
        certain = free & (chances > 1)
        if not certain.any():
            break
        chances[certain] = 1
        free &= ~certain
    order = generator.permutation(len(rates))
    ends = chances[order].cumsum()
    ticks = generator.random() + np.arange(count)
    return np.sort(order[np.searchsorted(ends * (count / ends[-1]) if count else ends, ticks, side="right")])


def _truncated_normal(mean: float, uniform: Floats) -> Floats:
    """Values of a normal distribution with RATE_DEVIATION, truncated to [0, 1], at these quantiles."""
    from scipy.special import ndtr, ndtri  # slow to import

    low, high = ndtr(-mean / RATE_DEVIATION), ndtr((1 - mean) / RATE_DEVIATION)
    values = mean + RATE_DEVIATION * ndtri(low + (high - low) * uniform)
    return np.clip(values, 1e-12, 1)


def _chunks(rows: Integers) -> Iterator[Integers]:
    return (rows[start : start + _CHUNK_SIZE] for start in range(0, len(rows), _CHUNK_SIZE))
