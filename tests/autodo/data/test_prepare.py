import dataclasses

import numpy as np
import pytest

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.data.images.image_set import Dataset, ImageSet
from autodo.errors import DataError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(build_run("digits", "baseline").dataset)


def run(method="baseline", ir=10.0, nr=0.3, seed=0, **overrides):
    distortion = DistortionConfig(imbalance_ratio=ir, noise_ratio=nr)
    return build_run("digits", method, distortion=distortion, seed=seed, overrides=overrides)


def test_observed_imbalance_and_noise(digits):
    prepared = prepare(digits, run())
    train = prepared.train
    counts = np.bincount(train.clean_labels)
    assert counts[:5].mean() / counts[5:].mean() == pytest.approx(10, rel=0.1)
    assert (train.labels != train.clean_labels).mean() == pytest.approx(0.3 * 0.9, abs=0.04)
    assert np.bincount(prepared.val.labels).max() - np.bincount(prepared.val.labels).min() <= 2
    assert len(prepared.val) == round(0.2 * len(digits.train))


def test_index_leads_to_the_original_image_and_clean_label(digits):
    prepared = prepare(digits, run())
    train, val = prepared.train, prepared.val
    assert (digits.train.images.read(train.index) == train.images.read()).all()
    assert (digits.train.labels[train.index] == train.clean_labels).all()
    assert (digits.train.labels[val.index] == val.labels).all()
    assert not set(train.index) & set(val.index)
    assert train.images.read().flags.c_contiguous
    assert train.images.read().dtype == np.uint8
    assert train.labels.dtype == train.clean_labels.dtype == train.index.dtype == np.int64


def test_index_is_that_of_the_set_before_subsampling(digits):
    config = run(**{"dataset.subsample": 500})
    train = prepare(load(config.dataset), config).train
    assert train.index.max() >= 500
    assert (digits.train.images.read(train.index) == train.images.read()).all()


def test_methods_of_a_seed_are_paired(digits):
    one, other = (prepare(digits, run(method)).train for method in ("baseline", "autodo-exact-aws"))
    assert (one.index == other.index).all()
    assert (one.labels == other.labels).all()


def test_another_seed_has_another_split(digits):
    one, other = (prepare(digits, run(seed=seed)) for seed in (0, 1))
    assert set(one.val.index) != set(other.val.index)


def test_another_seed_keeps_other_images_and_has_other_wrong_labels(digits):
    # With a trusted val set nothing is split off, so that only the distortion can differ.
    given = dataclasses.replace(digits, val=digits.test)
    noisy = [prepare(given, run(ir=1.0, seed=seed)).train for seed in (0, 1)]
    assert (noisy[0].index == noisy[1].index).all()
    assert (noisy[0].labels != noisy[1].labels).any()
    imbalanced = [prepare(given, run(nr=0.0, seed=seed)).train for seed in (0, 1)]
    assert set(imbalanced[0].index) != set(imbalanced[1].index)


def test_split_is_the_same_over_distortions(digits):
    clean, distorted = prepare(digits, run(ir=1.0, nr=0.0)), prepare(digits, run())
    assert (clean.val.index == distorted.val.index).all()
    assert (clean.train.labels == clean.train.clean_labels).all()
    assert set(distorted.train.index) < set(clean.train.index)


def test_union_changes_nothing_here(digits):
    union = build_run("digits", "baseline", distortion=run().distortion, split="union")
    assert (prepare(digits, union).train.labels == prepare(digits, run()).train.labels).all()


@pytest.mark.parametrize("trusted", [False, True])
def test_with_the_test_images_as_val_the_train_points_are_those_of_the_paper_split(digits, trusted):
    if trusted:
        digits = dataclasses.replace(digits, val=ImageSet(digits.test.images[:7], digits.test.labels[:7]))
    ablation = build_run("digits", "baseline", distortion=run().distortion, split="test-as-val")
    ours, paper = prepare(digits, ablation), prepare(digits, run())
    assert ours.val is ours.test is digits.test
    assert (ours.train.index == paper.train.index).all()
    assert (ours.train.labels == paper.train.labels).all()
    assert (ours.train.images.read() == paper.train.images.read()).all()


def test_oversplit_trains_and_validates_on_all_train_images(digits):
    config = build_run("digits", "baseline", split="oversplit")
    prepared = prepare(digits, config)
    assert (prepared.train.index == np.arange(len(digits.train))).all()
    assert (prepared.train.labels == digits.train.labels).all()
    assert prepared.val is digits.train
    assert prepared.test is digits.test
    with pytest.raises(DataError, match=r"^digits: split 'oversplit' .*has a val set of its own"):
        prepare(dataclasses.replace(digits, val=digits.test), config)


def test_trusted_val_set_is_used_as_it_is(digits):
    val = ImageSet(digits.test.images[:7], digits.test.labels[:7])
    prepared = prepare(dataclasses.replace(digits, val=val), run(ir=1.0))
    assert prepared.val is val
    assert len(prepared.train) == len(digits.train)
    assert (prepared.val.labels == digits.test.labels[:7]).all()


def test_sources_follow_their_images(digits):
    names = tuple(f"{i}.png" for i in range(len(digits.train)))
    train = prepare(dataclasses.replace(digits, train=dataclasses.replace(digits.train, sources=names)), run()).train
    assert train.sources == tuple(f"{i}.png" for i in train.index)


def test_class_with_one_image_is_named(digits):
    few = digits.train.take(np.flatnonzero((digits.train.labels != 3) | (np.cumsum(digits.train.labels == 3) == 1)))
    with pytest.raises(DataError, match=r"^digits: class '3' has too few images for the split"):
        prepare(dataclasses.replace(digits, train=few), run())


def test_minority_of_a_set_whose_rare_classes_are_not_the_upper_half(digits):
    """As of a folder of one's own images: classes 1 and 4 are rare, and stay the minority of all seeds and methods."""
    labels = digits.train.labels
    kept = np.flatnonzero(~np.isin(labels, (1, 4)) | (np.arange(len(labels)) % 5 == 0))
    own = dataclasses.replace(digits, train=digits.train.take(kept))
    for seed in range(3):
        for method in ("baseline", "autodo-aws"):
            assert prepare(own, run(method, ir=1.0, nr=0.3, seed=seed)).minority == (1, 4)
    # With a synthetic imbalance they are the classes that it reduced.
    assert prepare(own, run(ir=10.0)).minority == (5, 6, 7, 8, 9)
    assert prepare(digits, run(ir=1.0)).minority == ()


@pytest.mark.parametrize(
    ("distortion", "minority", "seed", "data"),
    [
        ("10-0.1", "total", 0, "3bb60766a46ffd56"),
        ("100-0.4", "class", 1, "1c02a70d7b26c686"),
        ("3-0.0", "total-proportional", 2, "ababd1add1c01567"),
        ("1-0.3", None, 3, "dbbea50314451b5f"),
    ],
)
def test_step_imbalance_and_uniform_noise_are_drawn_as_in_earlier_runs(distortion, minority, seed, data, digits):
    """Fingerprints from before there were other kinds."""
    config = build_run("digits", "baseline", distortion=DistortionConfig.parse(distortion, minority), seed=seed)
    assert prepare(digits, config).fingerprint == data


def test_minority_of_a_long_tail_is_that_of_its_ratio(digits):
    for seed in range(3):
        long = build_run("digits", "baseline", distortion=DistortionConfig.parse("exp10-0.1"), seed=seed)
        prepared = prepare(digits, long)
        assert prepared.minority == (4, 5, 6, 7, 8, 9)
        counts = np.bincount(prepared.train.clean_labels)
        assert counts == pytest.approx(counts[0] * 10 ** (-np.arange(10) / 9), abs=0.51)
