import numpy as np
import pytest

from autodo.data.images.split import fixed_test_split, members, stratified_split, subsample
from autodo.errors import ConfigError, DataError

LABELS = np.repeat([0, 1, 2, 0, 1], [40, 30, 5, 20, 17])  # 60, 47 and 5 of the classes


def test_split_is_stratified_and_exact(generator):
    rest, held = stratified_split(LABELS, 0.2, generator)
    assert sorted([*rest, *held]) == list(range(112))
    assert len(held) == round(0.2 * 112)
    assert np.bincount(LABELS[held]).tolist() == [12, 9, 1]
    assert (np.diff(rest) > 0).all()
    assert (np.diff(held) > 0).all()
    assert rest.dtype == held.dtype == np.int64


def test_split_draws_within_a_class():
    labels = np.zeros(100, np.int64)
    held = [stratified_split(labels, 0.3, np.random.default_rng(seed))[1].tolist() for seed in (1, 1, 2)]
    assert held[0] == held[1] != held[2]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_every_class_is_on_both_sides(share, generator):
    labels = np.repeat([0, 1, 2], [200, 2, 3])
    for side in stratified_split(labels, share, generator):
        assert (np.bincount(labels[side], minlength=3) >= 1).all()


@pytest.mark.parametrize(("share", "held_of_each"), [(0.05, [8, 1, 1]), (0.5, [100, 1, 1]), (0.95, [192, 1, 2])])
def test_images_that_small_classes_cannot_give_come_from_others(share, held_of_each, generator):
    labels = np.repeat([0, 1, 2], [200, 2, 3])
    _, held = stratified_split(labels, share, generator)
    assert np.bincount(labels[held]).tolist() == held_of_each


def test_as_many_are_held_out_as_both_sides_allow(generator):
    labels = np.arange(6) % 3
    for share in (0.01, 0.5, 0.99):
        rest, held = stratified_split(labels, share, generator)
        assert sorted(labels[held]) == sorted(labels[rest]) == [0, 1, 2]


def test_class_with_too_few_images_is_named(generator):
    labels = np.array([0, 0, 1, 2, 2])
    with pytest.raises(DataError, match=r"^photos: class 'dog' has too few images for the split: 1, but at least 2"):
        stratified_split(labels, 0.2, generator, class_names=("cat", "dog", "emu"), where="photos")
    with pytest.raises(DataError, match="class 1 has"):
        stratified_split(labels, 0.2, generator)


def test_class_without_images_is_named(generator):
    with pytest.raises(DataError, match=r"class 'emu' has .* \(one of 2 such classes\): 0, but"):
        stratified_split(np.array([0, 0, 1, 1]), 0.2, generator, class_names=("cat", "dog", "emu", "fox"))


def test_fixed_test_split_never_changes():
    train, test = fixed_test_split(np.repeat([0, 1], 10), ("a", "b"), where="x")
    # These are in people's results: a change here makes old stores incomparable.
    assert test.tolist() == [7, 8, 14, 15]
    assert len(train) == 16


def test_subsample_is_stratified_and_exact(generator):
    kept = subsample(LABELS, 50, generator)
    assert len(kept) == len(set(kept)) == 50
    assert np.bincount(LABELS[kept]).tolist() == [27, 21, 2]


def test_subsample_may_take_almost_all_or_one_of_each(generator):
    assert subsample(LABELS, 112, generator).tolist() == list(range(112))
    assert len(subsample(LABELS, 111, generator)) == 111
    assert sorted(LABELS[subsample(LABELS, 3, generator)]) == [0, 1, 2]


@pytest.mark.parametrize("size", [2, 113])
def test_subsample_size_that_does_not_fit(size, generator):
    with pytest.raises(ConfigError, match=rf"dataset.subsample: {size} is out of range: .* 3\.\.112 is possible"):
        subsample(LABELS, size, generator)


def test_subsample_of_labels_with_a_gap(generator):
    labels = np.array([0, 0, 0, 2, 2, 2])
    assert sorted(labels[subsample(labels, 2, generator)]) == [0, 2]
    with pytest.raises(ConfigError, match=r"has 6 images of 2 classes, so 2\.\.6 is possible"):
        subsample(labels, 1, generator)


def test_members():
    assert [m.tolist() for m in members(np.array([2, 0, 2, 0]), 4)] == [[1, 3], [], [0, 2], []]
