import itertools

import numpy as np
import pytest
from scipy import stats

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.data.confusable import class_confusion, small_images
from autodo.data.images.image_set import ArrayImages, Dataset, ImageSet
from autodo.data.noise import RATE_DEVIATION, _truncated_normal, flip_by_class, flip_by_pixels, sample_by_rate

KINDS = ("pair", "confusion", "instance")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(build_run("digits", "baseline").dataset)


def noise_matrix(labels, flipped, classes):
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, flipped), 1)
    return counts / counts.sum(1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["1-{}0.4", "exp10-{}0.05", "10-{}0.9", "1-{}0.001"])
def test_the_share_of_wrong_labels_is_the_stated_one_to_a_whole_image(kind, text, digits):
    distortion = DistortionConfig.parse(text.format(kind))
    for seed in range(3):
        train = prepare(digits, build_run("digits", "baseline", distortion=distortion, seed=seed)).train
        wrong = (train.labels != train.clean_labels).sum()
        assert wrong == round(distortion.noise_ratio * len(train))
        assert (train.clean_labels == digits.train.labels[train.index]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_labels_are_those_of_the_seed_whatever_the_method(kind, digits):
    distortion = DistortionConfig.parse(f"10-{kind}0.4")
    runs = [("baseline", 0), ("autodo-exact-ws", 0), ("baseline", 1)]
    found = [prepare(digits, build_run("digits", m, distortion=distortion, seed=s)).train for m, s in runs]
    assert (found[0].labels == found[1].labels).all()
    assert len(found[0]) != len(found[2]) or (found[0].labels != found[2].labels).any()


def test_classes_have_the_stated_matrix_of_noise(generator):
    targets = np.array([[0, 0.7, 0.3, 0], [0, 0, 1, 0], [0.25, 0.25, 0, 0.5], [0.9, 0.1, 0, 0]])
    labels = generator.permutation(np.repeat(np.arange(4), [100, 200, 400, 50]))
    flipped = flip_by_class(labels, targets, 0.2, generator)
    assert noise_matrix(labels, flipped, 4) == pytest.approx(0.8 * np.eye(4) + 0.2 * targets)
    # Of three and four images, the nearest whole numbers.
    few = np.repeat(np.arange(2), [3, 4])
    assert noise_matrix(few, flip_by_class(few, np.eye(2)[::-1], 0.4, generator), 2) == pytest.approx(
        np.array([[2 / 3, 1 / 3], [1 / 2, 1 / 2]])
    )


def test_more_noise_makes_further_labels_wrong(generator):
    labels, targets = np.arange(500) % 5, np.roll(np.eye(5), 1, axis=1)
    wrong = [flip_by_class(labels, targets, r, np.random.default_rng(3)) != labels for r in (0, 0.1, 0.35, 0.8)]
    for fewer, more in itertools.pairwise(wrong):
        assert (fewer <= more).all()
    flipped = flip_by_class(labels, targets, 0.35, generator)
    assert ((flipped == labels) | (flipped == (labels + 1) % 5)).all()


def test_points_are_drawn_in_proportion_to_their_rates():
    rates = np.array([0.05, 0.1, 0.2, 0.3, 0.35, 1.0])
    # Three of six, in proportion to rates with the sum 2: the last would have 1.5, so it is certain, and the other two
    # draws are shared by the rest.
    expected = [*(2 * rates[:5]), 1]
    drawn = np.zeros(6)
    for seed in range(4000):
        chosen = sample_by_rate(rates, 3, np.random.default_rng(seed))
        assert len(set(chosen)) == 3
        drawn[chosen] += 1
    assert drawn / 4000 == pytest.approx(expected, abs=0.03)  # four standard errors
    for count in (0, 6):
        assert len(set(sample_by_rate(rates, count, np.random.default_rng(0)))) == count


@pytest.mark.parametrize("mean", [0.0, 0.05, 0.4, 0.99])
def test_flip_rates_are_truncated_normal(mean):
    uniform = np.linspace(0.001, 0.999, 50)
    edges = -mean / RATE_DEVIATION, (1 - mean) / RATE_DEVIATION
    expected = stats.truncnorm(*edges, loc=mean, scale=RATE_DEVIATION).ppf(uniform)
    assert _truncated_normal(mean, uniform) == pytest.approx(expected, rel=1e-9)


def test_labels_depend_on_the_pixels_by_a_softmax_of_projections(generator):
    """Against a loop over the points, with the same random numbers."""
    pixels = generator.integers(0, 256, (300, 1, 3, 2), dtype=np.uint8)
    labels = generator.integers(4, size=300)
    found = flip_by_pixels(labels, ArrayImages(pixels), 4, 0.3, np.random.default_rng(7))

    rng = np.random.default_rng(7)
    rates = _truncated_normal(0.3, rng.random(300))
    wrong = sample_by_rate(rates, 90, rng)
    draws = rng.random(300)
    weights = np.rint(1024 * rng.standard_normal((4, 6, 4))) / 1024
    expected = labels.copy()
    for i in wrong:
        odds = np.exp(pixels[i].reshape(-1) / 255 @ weights[labels[i]])
        odds[labels[i]] = 0
        expected[i] = next(k for k in range(4) if odds[: k + 1].sum() > draws[i] * odds.sum())
    assert (found == expected).all()
    assert (found != labels).sum() == 90


def test_points_of_a_class_with_the_same_pixels_have_the_same_chances(generator):
    black, labels = ArrayImages(np.zeros((6000, 1, 2, 2), np.uint8)), np.repeat(np.arange(3), 2000)
    flipped = flip_by_pixels(labels, black, 3, 0.4, generator)
    assert noise_matrix(labels, flipped, 3) == pytest.approx(0.4 * np.eye(3) + 0.2, abs=0.045)


def test_pixels_are_averaged_in_blocks(generator):
    images = generator.integers(0, 256, (3, 2, 28, 10), dtype=np.uint8)
    found = small_images(images).reshape(3, 2, 8, 8)
    rows, columns = [28 * i // 8 for i in range(9)], [10 * i // 8 for i in range(9)]
    for i in range(8):
        for j in range(8):
            block = images[:, :, rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            assert found[:, :, i, j] == pytest.approx(block.mean((2, 3)) / 255, rel=1e-12)
    assert small_images(images[:, :, :3, :2]) == pytest.approx(images[:, :, :3, :2].reshape(3, 12) / 255)


def test_classes_are_confused_as_often_as_a_linear_discriminant_errs(digits):
    x, y = small_images(digits.train.images.read()), digits.train.labels
    means = [x[y == c].mean(0) for c in range(10)]
    counts = np.bincount(y)
    covariance = sum(np.cov(x[y == c].T) * (counts[c] - 1) for c in range(10)) / (len(y) - 10)
    inverse = np.linalg.inv(covariance + (0.01 * covariance.trace() / 64 + 1e-6) * np.eye(64))
    expected = np.zeros((10, 10))
    for c in range(10):
        for k in set(range(10)) - {c}:
            difference = means[c] - means[k]
            squared = difference @ inverse @ difference - 64 * (1 / counts[c] + 1 / counts[k])
            expected[c, k] = stats.norm.cdf(-np.sqrt(squared) / 2)
    found = class_confusion(digits.train, 10)
    assert found == pytest.approx(expected / expected.sum(1, keepdims=True), rel=1e-8)
    assert found[1].argmax() == 8
    assert found[8].argmax() == 1


def test_classes_that_look_the_same_or_have_one_image_are_confused_evenly(generator):
    images = np.repeat(generator.integers(0, 256, (1, 1, 4, 4), dtype=np.uint8), 9, 0)
    for labels in (np.arange(9) % 3, np.array([0] * 7 + [1, 2])):
        found = class_confusion(ImageSet(ArrayImages(images), labels), 3)
        assert found == pytest.approx((1 - np.eye(3)) / 2)
