"""Labels that are given in Python, and the dataset of the given sets."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from autodo.data.given.dataset import given_dataset
from autodo.data.given.images import Size
from autodo.data.given.labels import encode_labels, read_labels
from autodo.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 5, 5), np.uint8)
LABELS = np.arange(12) % 3
SIZE = Size(64)


def test_labels_of_every_kind_are_class_numbers_or_names():
    for given in (LABELS, LABELS.tolist(), torch.from_numpy(LABELS), list(torch.from_numpy(LABELS)), LABELS * 1.0):
        codes, names = encode_labels({"images": read_labels(given, "images")})
        assert codes["images"].tolist() == LABELS.tolist()
        assert names == ("0", "1", "2")
    animals = np.array(["eel", "cat", "dog"])[LABELS]
    for given in (animals, animals.tolist(), animals.astype(object)):
        codes, names = encode_labels({"images": read_labels(given, "images")})
        assert names == ("cat", "dog", "eel")
        assert [names[code] for code in codes["images"]] == animals.tolist()
    codes, names = encode_labels({"x": read_labels(animals, "x")}, ("eel", "dog", "cat"))
    assert codes["x"].tolist() == [0, 2, 1] * 4


def test_arrays_and_series_of_paths_and_series_of_labels_are_lists(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    texts, later = [str(path) for path in paths], pd.RangeIndex(100, 112)
    expected, _ = given_dataset(texts, LABELS, size=SIZE)
    assert np.array_equal(expected.train.images.read()[:, 0], IMAGES)
    for images in (np.array(texts), np.array(paths), pd.Series(texts, index=later), pd.Series(paths)):
        dataset, _ = given_dataset(images, pd.Series(LABELS, index=later), val=[images, LABELS], size=SIZE)
        for part in (dataset.train, dataset.val):
            assert part.sources == expected.train.sources
            assert np.array_equal(part.images.read(), expected.train.images.read())
            assert np.array_equal(part.labels, LABELS)
    names = pd.Series(np.array(["eel", "cat", "dog"])[LABELS], dtype="category")
    assert given_dataset(IMAGES, names, size=SIZE)[0].class_names == ("cat", "dog", "eel")


class Named(torch.utils.data.Dataset):
    classes = ("cat", "dog", "eel")

    def __getitem__(self, i):
        return IMAGES[i], LABELS[i]

    def __len__(self):
        return 12


def test_parts_of_a_dataset_have_its_class_names():
    whole = Named()
    part = torch.utils.data.Subset(torch.utils.data.Subset(whole, range(9)), range(6))
    both = torch.utils.data.ConcatDataset([part, whole])
    dataset, _ = given_dataset(part, val=both, test=whole, size=SIZE)
    assert dataset.class_names == ("cat", "dog", "eel")
    assert dataset.val.labels.tolist() == [*LABELS[:6], *LABELS]
    # A part without dogs: eels are class 1, also of a val set whose numbers are those of the whole.
    few = torch.utils.data.Subset(whole, [0, 2, 3, 5])
    dataset, _ = given_dataset(few, val=(IMAGES[:2], [2, 0]), size=SIZE)
    assert dataset.class_names == ("cat", "eel")
    assert (dataset.train.labels.tolist(), dataset.val.labels.tolist()) == ([0, 1, 0, 1], [1, 0])
    assert dataset.warnings == ("images: no image has the class 'dog', so the classifier does not know it",)
    with pytest.raises(DataError, match="val: has the class 'dog', which images does not have; classes: cat, eel"):
        given_dataset(few, val=whole, size=SIZE)


def test_wrong_labels_are_one_line():
    names = ("cat", "dog", "eel")
    wrong = [
        ([0, -1] * 6, None, r"images: label -1 of image 1 is out of range; the classes are 0 to 0"),
        ([0, 3] * 6, names, r"images: label 3 of image 1 is out of range; the classes are 0 to 2"),
        (
            [1, 2, 3] * 4,
            None,
            r"images: no image has the class '0'; class numbers count from 0 to 3; leave the class out",
        ),
        ([0, 10**6] * 6, None, r"images: label 1000000 of 12 images is out of range: class numbers count from 0"),
        ([0, 1] * 6, names, r"images: no image has the class 'eel'"),
        ([0] * 12, None, r"images: only one class, '0'; a classifier needs at least two"),
        (["cat", "bee"] * 6, names, r"images: has the class 'bee', which class_names does not have; classes: cat, dog"),
        (["cat", 1] * 6, None, r"images: label 1 is 1; labels are all whole numbers or all strings"),
        ([1, None] * 6, None, r"images: label 1 is None; labels are all whole numbers or all strings"),
        ([0.5, 1] * 6, None, r"images: label 0 is 0\.5, not a whole number or a name"),
        ([1, np.nan] * 6, None, r"images: label 1 is nan, not a whole number"),
        (
            np.eye(12),
            None,
            r"images: the labels have shape \(12, 12\), not one .* of one-hot labels take argmax",
        ),
        (np.zeros((12, 1)), None, r"images: the labels have shape \(12, 1\), not one .*; take ravel\(\)"),
        ([0, 1], None, r"images: 12 images and 2 labels; there must be one label for each image"),
        (None, None, r"images: labels are needed with these images"),
        ([0, 1, 2] * 4, ("a", "b", "a"), r"class_names: 'a' stands there twice"),
        ([0] * 11 + [1], None, r"images: class '1' has too few images for the split: 1, but at least 2 are needed"),
    ]
    for labels, class_names, message in wrong:
        with pytest.raises(DataError, match=message) as raised:
            given_dataset(IMAGES, labels, class_names=class_names, size=SIZE)
        assert "\n" not in str(raised.value)


def test_a_val_or_test_set_that_does_not_fit_is_one_line():
    wrong = [
        ({"val": (IMAGES, LABELS + 1)}, r"val: label 3 of image 2 is out of range; the classes of images are 0 to 2"),
        ({"val": (IMAGES, ["a"] * 12)}, r"val: its labels are names, and those of images are numbers; give the same"),
        ({"test": (IMAGES[:2], LABELS)}, r"test: 2 images and 12 labels"),
        ({"test": 1.5}, r"test: 1\.5 is no share of the train images between 0 and 1"),
        ({"test": True}, r"test: a bool is no set of images"),
        ({"val": IMAGES}, r"val: labels are needed with these images"),
    ]
    for sets, message in wrong:
        with pytest.raises(DataError, match=message):
            given_dataset(IMAGES, LABELS, **sets, size=SIZE)
    with pytest.raises(DataError, match=r"val: has the class 'bee', which images does not have; classes: cat, eel"):
        given_dataset(IMAGES[:2], ["eel", "cat"], val=(IMAGES[2:3], ["bee"]), size=SIZE)


def test_all_sets_have_the_size_of_train_and_colours_if_one_has():
    colours = np.random.default_rng(1).integers(0, 256, (3, 9, 7, 3), np.uint8)
    dataset, _ = given_dataset(IMAGES, LABELS, val=(colours, [0, 1, 2]), test=(colours[:1] ^ 1, [0]), size=SIZE)
    assert [part.images.shape for part in (dataset.train, dataset.val, dataset.test)] == [
        (12, 3, 5, 5), (3, 3, 5, 5), (1, 3, 5, 5),
    ]  # fmt: skip
    assert dataset.warnings == (
        "test has no image of 2 of the 3 classes: '1', '2'; the test errors do not cover them; add some",
    )


def test_a_test_share_is_held_out_once_and_positions_count_the_given_images():
    dataset, content = given_dataset(IMAGES, LABELS, test=0.25, size=SIZE)
    train, test = dataset.train, dataset.test
    assert sorted([*train.index, *test.index]) == list(range(12))
    assert np.bincount(test.labels).tolist() == [1, 1, 1]
    for part in (train, test):
        assert np.array_equal(part.images.read()[:, 0], IMAGES[part.index])
        assert np.array_equal(part.labels, LABELS[part.index])
    assert given_dataset(IMAGES, LABELS, test=0.25, size=SIZE)[1] == content
    nothing, without = given_dataset(IMAGES, LABELS, size=SIZE)
    assert len(nothing.test) == 0
    changed = IMAGES.copy()
    changed[3, 2, 1] ^= 1
    others = [given_dataset(changed, LABELS, size=SIZE)[1], given_dataset(IMAGES, LABELS[::-1], size=SIZE)[1]]
    assert len({content, without, *others}) == 4, "every pixel and label is in the fingerprint"


def test_test_images_that_are_trained_on_are_counted():
    sets = {"val": (IMAGES[9:], LABELS[9:]), "test": (IMAGES[8:], LABELS[8:])}
    dataset, _ = given_dataset(IMAGES[:9], LABELS[:9], **sets, size=SIZE)
    assert dataset.warnings == ("test: 4 of 4 images are also in train or val, so the test error is optimistic",)


def test_classes_in_another_order_are_matched_by_name():
    datasets = pytest.importorskip("datasets")

    def table(names, labels):
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        return datasets.Dataset.from_dict({"image": list(IMAGES[: len(labels)]), "label": labels}, features=features)

    train = table(["cat", "eel"], [0, 1, 1])
    dataset, _ = given_dataset(train, val=table(["eel", "cat", "bee"], [0, 1]), size=SIZE)
    assert dataset.val.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"val: has the class 'bee', which images does not have; classes: cat, eel"):
        given_dataset(train, val=table(["eel", "cat", "bee"], [0, 2]), size=SIZE)
    # A transform sees whole rows, and its labels count if it returns some.
    dark = train.with_transform(
        lambda rows: {"image": [np.asarray(image) // (1 + label) for image, label in zip(*rows.values(), strict=True)]}
    )
    other = train.with_transform(lambda rows: {"image": rows["image"], "label": [1 - label for label in rows["label"]]})
    for transformed, labels, divisors in ((dark, [0, 1, 1], [1, 2, 2]), (other, [1, 0, 0], [1, 1, 1])):
        dataset, _ = given_dataset(transformed, val=train, size=SIZE)
        assert dataset.train.labels.tolist() == labels
        expected = [image // divisor for image, divisor in zip(IMAGES[:3], divisors, strict=True)]
        assert np.array_equal(dataset.train.images.read()[:, 0], expected)
    with pytest.raises(DataError, match="the transform of the Dataset returns no 'image', but pixels; give the"):
        given_dataset(train.with_transform(lambda rows: {"pixels": rows["image"]}), size=SIZE)
