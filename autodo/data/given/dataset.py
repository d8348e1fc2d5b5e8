"""An AutoDO dataset from sets that are given in Python."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from autodo.data.given.collections import GivenSet, given_set
from autodo.data.given.images import GivenImages, Size, in_channels
from autodo.data.given.labels import encode_labels
from autodo.data.images.image_set import ArrayImages, Dataset, ImageSet, Integers, Pixels
from autodo.data.images.split import FIXED_SEED, require_images, stratified_split
from autodo.data.readers.labelled_files import missing_classes
from autodo.errors import DataError
from autodo.seeds import numpy_generator


def given_dataset(
    images: Any,
    labels: Any = None,
    *,
    val: Any = None,
    test: Any = None,
    class_names: Sequence[str] | None = None,
    size: Size,
) -> tuple[Dataset, str]:
    """The dataset of the given sets, all of one image size, and its fingerprint.

    The test set may be empty, which results without test errors belong to. `Dataset.train.index` counts the given train
    images.

    Args:
        images, labels: train set; see `given_set`.
        val: trusted set, a pair (images, labels) or a dataset; None if it is to be split off train later.
        test: the same, or a share in (0, 1) of the train images that is held out, at random within each class; None for
            an empty test set.
        class_names: names of the class numbers; None: those of the given dataset, else the labels themselves.
    Raises:
        DataError: if images or labels are unsuitable; one line.
    """
    share = _test_share(test)
    given = [given_set(images, labels, "images")]
    for where, part in (("val", val), ("test", None if share else test)):
        if part is not None:
            pair = isinstance(part, tuple | list) and len(part) == 2
            given.append(given_set(part[0], part[1], where) if pair else given_set(part, None, where))
    read: dict[str, GivenImages] = {}
    labels_of: dict[str, Any] = {}
    for part in given:
        read[part.where], labels_of[part.where] = part.read(size)
        size = Size(read[part.where].pixels.shape[-1], exact=True)
    unused = () if class_names else _drop_unused_names(given, labels_of)
    _name_numbers(given, labels_of)
    codes, names = encode_labels(labels_of, class_names or given[0].class_names)
    channels = max(found.pixels.shape[1] for found in read.values())
    sets = {
        where: ImageSet(ArrayImages(in_channels(found.pixels, channels)), codes[where], found.sources)
        for where, found in read.items()
    }
    train, test_set = sets["images"], sets.get("test")
    require_images(train.labels, 1 + (val is None) + bool(share), class_names=names, where="images")
    if share:
        generator = numpy_generator(FIXED_SEED, "test")
        kept, held = stratified_split(train.labels, share, generator, class_names=names, where="images")
        train, test_set = train.take(kept), train.take(held)
    if test_set is None:
        nothing = np.empty(0, np.int64)
        test_set = ImageSet(train.images[nothing], nothing)
    val_set = sets.get("val")
    found = [missing_classes(where, sets[where].labels, names) for where in ("val", "test") if where in sets]
    found.append(_known_test_images(test_set, [train] if val_set is None else [train, val_set]))
    if unused:
        found.append(
            f"images: no image has the class {', '.join(map(repr, unused))}, so the classifier does not know it"
        )
    warnings = tuple(warning for warning in found if warning is not None)
    dataset = Dataset(train, test_set, names, val=val_set, warnings=warnings)
    return dataset, dataset_content(dataset)


def _known_test_images(test: ImageSet, others: Sequence[ImageSet]) -> str | None:
    """A warning if test images are train or val images too, pixel by pixel; None if there are none."""
    if not len(test):
        return None
    known = {_hash(image) for part in others for image in part.images.read()}
    count = sum(_hash(image) in known for image in test.images.read())
    if not count:
        return None
    return f"test: {count} of {len(test)} images are also in train or val, so the test error is optimistic"


def _hash(image: Pixels) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def dataset_content(dataset: Dataset) -> str:
    """Fingerprint of the pixels, labels, paths and class names of all sets: 16 hex digits."""
    digest = hashlib.blake2b(json.dumps(dataset.class_names).encode(), digest_size=8)
    for part in (dataset.train, dataset.val, dataset.test):
        if part is None:
            digest.update(b"none")
            continue
        digest.update(json.dumps([part.images.shape, part.sources]).encode())
        digest.update(_bytes(part.labels))
        digest.update(_bytes(part.index))
        digest.update(np.ascontiguousarray(part.images.read()).data)
    return digest.hexdigest()


def _bytes(numbers: Integers) -> bytes:
    return numbers.astype("<i8").tobytes()


def _test_share(test: Any) -> float | None:
    if isinstance(test, bool) or not isinstance(test, int | float):
        return None
    if not 0 < test < 1:
        raise DataError(
            f"test: {test} is no share of the train images between 0 and 1; it is a share, a pair (images, labels), a "
            "dataset or None"
        )
    return float(test)


def _drop_unused_names(given: list[GivenSet], labels_of: dict[str, Any]) -> tuple[str, ...]:
    """Names of the train dataset that none of its images has, as in a part of it; they are left out of its names."""
    train = given[0]
    labels, names = labels_of[train.where], train.class_names
    if names is None or labels.dtype == object or labels.min() < 0 or labels.max() >= len(names):
        return ()
    used, codes = np.unique(labels, return_inverse=True)
    if len(used) == len(names):
        return ()
    # The numbers of sets without names are those of the train dataset.
    given[1:] = [dataclasses.replace(part, class_names=part.class_names or names) for part in given[1:]]
    given[0] = dataclasses.replace(train, class_names=tuple(names[number] for number in used))
    labels_of[train.where] = codes
    return tuple(name for number, name in enumerate(names) if number not in used)


def _name_numbers(given: Sequence[GivenSet], labels_of: dict[str, Any]) -> None:
    """Numbers of classes of val and test become those of train, if the datasets name their classes in another order."""
    names = given[0].class_names
    if names is None:
        return
    for part in given[1:]:
        labels = labels_of[part.where]
        if part.class_names is None or part.class_names == names or labels.dtype == object:
            continue
        for number in np.unique(labels).tolist():
            name = part.class_names[number] if 0 <= number < len(part.class_names) else str(number)
            if name not in names:
                first = given[0].where
                raise DataError(
                    f"{part.where}: has the class {name!r}, which {first} does not have; classes: {', '.join(names)}"
                )
        lookup = {number: names.index(name) for number, name in enumerate(part.class_names) if name in names}
        labels_of[part.where] = np.array([lookup[number] for number in labels.tolist()], np.int64)
