import itertools
import logging

import numpy as np
import pytest

from autodo.config.dataset import Minority
from autodo.data.distort import exponential_imbalance, flip_labels, imbalance
from autodo.data.images.split import stratified_split

LABELS = np.arange(5000) % 10
KINDS = Minority.__args__
SVHN = [4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659]
"""Train images of each digit."""


def counts(ratio: float, minority: Minority, labels=LABELS, seed: int = 0) -> list[int]:
    kept = imbalance(labels, 10, ratio, np.random.default_rng(seed), minority)
    assert (np.diff(kept) > 0).all()
    return np.bincount(labels[kept], minlength=10).tolist()


@pytest.mark.parametrize(("ratio", "upper"), [(1, 27_911), (10, 3_083), (100, 308)])
def test_svhn_has_the_papers_ratio_in_total(ratio, upper):
    labels = np.repeat(np.arange(10), SVHN)
    rest, _ = stratified_split(labels, 0.32, np.random.default_rng(0))
    labels = labels[rest]
    upper = min(upper, int((labels >= 5).sum()))  # at ratio 1 nothing is removed
    for minority in ("total", "total-proportional"):
        found = counts(ratio, minority, labels)
        assert (sum(found[:5]), sum(found[5:])) == (30_837, upper)
    given = np.bincount(labels, minlength=10)[5:]
    assert np.abs(found[5:] - given * upper / given.sum()).max() < 1, "in proportion, to a whole image"


def test_each_class_by_itself_keeps_one_in_ratio():
    for ratio, upper in ((1, 500), (3, 167), (100, 5)):
        assert counts(ratio, "class") == [500] * 5 + [upper] * 5


def test_of_an_odd_number_of_classes_the_upper_half_is_the_larger():
    labels = np.arange(300) % 3
    for kind, upper in (("class", [10, 10]), ("total-proportional", [5, 5])):
        kept = imbalance(labels, 3, 10, np.random.default_rng(0), kind)
        assert np.bincount(labels[kept]).tolist() == [100, *upper]


def test_in_total_is_drawn_over_all_classes():
    found = np.array([counts(10, "total", seed=seed)[5:] for seed in range(200)])
    assert (found.sum(1) == 250).all()
    assert found.mean(0) == pytest.approx([50] * 5, abs=2)
    # A draw without replacement of 250 out of 5 x 500: the variance of a class's count is 250 / 5 * 4 / 5 * 0.9.
    assert found.var(0).mean() == pytest.approx(36, rel=0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_drawn_and_higher_ratios_are_nested(kind):
    rng = np.random.default_rng(5)
    labels = rng.choice(10, size=3000, p=rng.dirichlet(np.full(10, 2.0)))
    kept = [set(imbalance(labels, 10, ratio, np.random.default_rng(0), kind)) for ratio in (1, 1.3, 2, 7, 50, 2000)]
    assert len(kept[0]) == len(labels)
    assert all(higher <= lower for lower, higher in itertools.pairwise(kept))
    assert kept[3] != set(imbalance(labels, 10, 7, np.random.default_rng(1), kind))


@pytest.mark.parametrize("kind", KINDS)
def test_no_class_vanishes_and_none_is_given_more_than_it_has(kind, caplog):
    with caplog.at_level(logging.WARNING, logger="autodo"):
        assert counts(10_000, kind) == [500] * 5 + [1] * 5
    assert caplog.messages == [
        "imbalance ratio 10000 would leave 5 of the 5 minority classes empty; each keeps one image"
    ]
    caplog.clear()
    lower_is_larger = np.repeat(np.arange(4), [900, 900, 3, 5])
    kept = imbalance(lower_is_larger, 4, 1.5, np.random.default_rng(0), kind)
    assert np.bincount(lower_is_larger[kept]).tolist() == [900, 900, *([2, 3] if kind == "class" else [3, 5])]
    assert len(imbalance(lower_is_larger, 4, 3, np.random.default_rng(0), "class")) == 1803  # one image is not none
    nothing = "imbalance ratio 1.5 removes no image: the classes 2 to 3 have 8 images together, no more than it leaves"
    assert caplog.messages == ([] if kind == "class" else [nothing])


def test_a_class_that_the_draw_leaves_out_keeps_one_within_the_total():
    rare = np.repeat(np.arange(4), [500, 500, 995, 5])
    found = [np.bincount(rare[imbalance(rare, 4, 100, np.random.default_rng(s), "total")])[2:] for s in range(50)]
    assert {tuple(one) for one in found} >= {(9, 1)}
    assert {sum(one) for one in found} == {10}


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


def test_a_single_image_has_the_share_of_its_class(caplog):
    """In proportion, 4 of 1 + 10 images are 0.36 and 3.6: the small class would be empty."""
    labels = np.repeat(np.arange(4), [20, 20, 1, 10])
    with caplog.at_level(logging.WARNING, logger="autodo"):
        kept = imbalance(labels, 4, 10, np.random.default_rng(0), "total-proportional")
    assert np.bincount(labels[kept]).tolist() == [20, 20, 1, 3]
    assert caplog.messages == ["imbalance ratio 10 would leave 1 of the 2 minority classes empty; each keeps one image"]


def test_of_a_long_tail_each_class_has_a_fixed_share_of_the_one_before():
    """n_c = n_max IR^(-c / (C - 1)), as in Cui et al. 2019."""
    kept = [exponential_imbalance(LABELS, 10, ratio, np.random.default_rng(0)) for ratio in (1, 10, 100)]
    assert np.bincount(LABELS[kept[1]]).tolist() == [500, 387, 300, 232, 180, 139, 108, 83, 65, 50]
    assert np.bincount(LABELS[kept[2]]).tolist() == [500, 300, 180, 108, 65, 39, 23, 14, 8, 5]
    assert set(kept[0]) > set(kept[1]) > set(kept[2])
    assert (np.diff(kept[1]) > 0).all()
    assert set(kept[1]) != set(exponential_imbalance(LABELS, 10, 10, np.random.default_rng(1)))


def test_a_long_tail_of_classes_of_different_sizes_is_as_large_as_they_allow(caplog):
    labels = np.repeat(np.arange(3), [900, 80, 1000])
    with caplog.at_level(logging.WARNING, logger="autodo"):
        # Class 1 has half as many images as class 0, so that 160 and 80 and 40 remain.
        assert np.bincount(labels[exponential_imbalance(labels, 3, 4, np.random.default_rng(0))]).tolist() == [
            160,
            80,
            40,
        ]
        assert not caplog.messages
        kept = exponential_imbalance(labels, 3, 10_000, np.random.default_rng(0))
    assert np.bincount(labels[kept]).tolist() == [900, 9, 1]
    assert caplog.messages == ["imbalance ratio 10000 would leave 1 of the 3 classes empty; each keeps one image"]
