import numpy as np
import pytest

from autodo.data.distort import flip_labels, imbalance

LABELS = np.arange(5000) % 10


@pytest.mark.parametrize(("ratio", "minority"), [(1, 500), (3, 167), (100, 5), (10_000, 1)])
def test_imbalance_keeps_one_in_ratio_of_the_upper_half(ratio, minority, generator):
    kept = imbalance(LABELS, 10, ratio, generator)
    assert np.bincount(LABELS[kept]).tolist() == [500] * 5 + [minority] * 5
    assert (np.diff(kept) > 0).all()


def test_odd_number_of_classes(generator):
    labels = np.arange(300) % 3
    assert np.bincount(labels[imbalance(labels, 3, 10, generator)]).tolist() == [100, 10, 10]


def test_minority_is_drawn_and_higher_ratios_are_nested():
    kept = [
        set(imbalance(LABELS, 10, ratio, np.random.default_rng(seed))) for ratio, seed in ((10, 0), (100, 0), (100, 1))
    ]
    assert kept[1] < kept[0]
    assert kept[1] != kept[2]


def test_true_flip_rate_is_noise_ratio_times_c_minus_1_over_c(generator):
    labels = np.arange(100_000) % 10
    flipped = flip_labels(labels, 10, 0.1, generator)
    wrong = flipped != labels
    assert wrong.mean() == pytest.approx(0.1 * 9 / 10, abs=0.003)
    # Uniform over the nine other classes, whatever the class.
    counts = np.bincount((flipped - labels)[wrong] % 10, minlength=10)
    assert counts[0] == 0
    assert counts[1:] == pytest.approx(1000, abs=150)


def test_at_most_the_ratio_is_redrawn(generator):
    labels = np.arange(1000) % 100
    assert 80 < (flip_labels(labels, 100, 0.1, generator) != labels).sum() <= 100


@pytest.mark.parametrize(("noise_ratio", "count"), [(0.0996, 100), (0.0994, 99), (0.9, 900)])
def test_the_ratio_is_rounded_and_no_label_is_redrawn_twice(noise_ratio, count, generator):
    """Of so many classes that none is drawn as it was."""
    assert (flip_labels(np.zeros(1000, np.int64), 10**9, noise_ratio, generator) != 0).sum() == count


def test_no_noise_changes_nothing_and_the_input_is_never_written(generator):
    labels = LABELS.copy()
    assert (flip_labels(labels, 10, 0.0, generator) == LABELS).all()
    assert (flip_labels(labels, 10, 0.5, generator) != LABELS).any()
    assert (labels == LABELS).all()
