"""A person's own images."""

from pathlib import Path

import numpy as np

from autodo.config import DatasetConfig
from autodo.data.content import listing_content
from autodo.data.decode import decode_images
from autodo.data.files import Place
from autodo.data.image_set import Dataset, ImageSet
from autodo.data.listing import Listing, list_images, relative_to_root
from autodo.data.remote import local_copy
from autodo.data.split import fixed_test_split, require_images
from autodo.errors import DataError


def read_folder(config: DatasetConfig, place: Place) -> Dataset:
    """The images of `config.path`: class folders or a CSV (see docs/own-images.md), at `config.image_size`.

    Without a test set, a fixed stratified fifth of the train images is it.

    Raises:
        DataError: if the path, a class or an image is missing or unsuitable, or the images are not those of
            `config.content`; one line with the file and the remedy.
    """
    assert config.path is not None
    assert config.image_size is not None
    with local_copy(config.path) as path:
        return _read(config, path, config.image_size)


def _read(config: DatasetConfig, path: Path, image_size: int) -> Dataset:
    listing = list_images(path)
    if config.content is not None:
        _check_content(path, listing, config.content)
    class_names = tuple(sorted({item.label for item in listing["train"]}))
    _check_classes(path, listing, class_names)
    number = {name: i for i, name in enumerate(class_names)}
    if not listing["test"]:
        _split_off_test(path, listing, number)

    items = [item for part in listing.values() for item in part]
    images = decode_images([item.path for item in items], image_size, root=path)
    labels = np.array([number[item.label] for item in items], np.int64)
    sources = tuple(relative_to_root(item.path, path) for item in items)
    sets: dict[str, ImageSet] = {}
    start = 0
    for name, part in listing.items():
        rows = slice(start, start + len(part))
        sets[name] = ImageSet(images[rows], labels[rows], sources[rows])
        start = rows.stop
    return Dataset(sets["train"], sets["test"], class_names, val=sets["val"] if listing["val"] else None)


def _check_content(path: Path, listing: Listing, expected: str) -> None:
    now = listing_content(listing, path)
    if now != expected:
        raise DataError(
            f"{path}: the images have changed since this run was planned (dataset.content was {expected}, now it is "
            f"{now}); put the old ones back, or start the command again, without dataset.content if it is set, "
            "for a new run"
        )


def _check_classes(path: Path, listing: Listing, class_names: tuple[str, ...]) -> None:
    if not class_names:
        raise DataError(
            f"{path}: no images to train on; put them in one folder per class, PATH/<class>/*.jpg, or give a CSV"
        )
    if len(class_names) == 1:
        raise DataError(f"{path}: only one class, {class_names[0]!r}; a classifier needs at least two")
    for name in ("val", "test"):
        unknown = sorted({item.label for item in listing[name]} - set(class_names))
        if unknown:
            raise DataError(
                f"{path}: {name} has the class {unknown[0]!r}, that train does not have; "
                f"add it to train or remove it from {name}; classes of train: {', '.join(class_names)}"
            )


def _split_off_test(path: Path, listing: Listing, number: dict[str, int]) -> None:
    """Moves a fixed stratified fifth of train to test."""
    train = listing["train"]
    class_names = tuple(number)
    labels = np.array([number[item.label] for item in train], np.int64)
    require_images(labels, 2 if listing["val"] else 3, class_names=class_names, where=str(path))
    kept, held = fixed_test_split(labels, class_names, where=str(path))
    listing["train"] = [train[i] for i in kept]
    listing["test"] = [train[i] for i in held]
