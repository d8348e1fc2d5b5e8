"""A person's own images."""

from pathlib import Path

import numpy as np

from autodo.config import DatasetConfig
from autodo.data.decode import decode_images
from autodo.data.files import Place, one_line
from autodo.data.image_set import Dataset, ImageSet
from autodo.data.listing import Listing, list_csv, list_folder
from autodo.data.split import fixed_test_split, require_images
from autodo.errors import DataError


def read_folder(config: DatasetConfig, place: Place) -> Dataset:
    """The images of `config.path`: class folders or a CSV (see docs/own-images.md), at `config.image_size`.

    Without a test set, a fixed stratified fifth of the train images is it.

    Raises:
        DataError: if the path, a class or an image is missing or unsuitable; one line with the file and the remedy.
    """
    assert config.path is not None
    assert config.image_size is not None
    path = Path(config.path).expanduser()
    try:
        listing = _list(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from None
    class_names = tuple(sorted({item.label for item in listing["train"]}))
    _check_classes(path, listing, class_names)
    number = {name: i for i, name in enumerate(class_names)}
    if not listing["test"]:
        _split_off_test(path, listing, number)

    root = path if path.is_dir() else path.parent
    items = [item for part in listing.values() for item in part]
    images = decode_images([item.path for item in items], config.image_size, root=path)
    labels = np.array([number[item.label] for item in items], np.int64)
    sources = tuple(_relative(item.path, root) for item in items)
    sets: dict[str, ImageSet] = {}
    start = 0
    for name, part in listing.items():
        rows = slice(start, start + len(part))
        sets[name] = ImageSet(images[rows], labels[rows], sources[rows])
        start = rows.stop
    return Dataset(sets["train"], sets["test"], class_names, val=sets["val"] if listing["val"] else None)


def _list(path: Path) -> Listing:
    if path.is_dir():
        return list_folder(path)
    if path.is_file() and path.suffix.lower() == ".csv":
        return list_csv(path)
    problem = "neither a directory nor a .csv file" if path.exists() else "no such directory or file"
    raise DataError(
        f"{path}: {problem}; dataset.path is the directory of class folders, or the CSV of path,label, of your images"
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


def _relative(file: Path, root: Path) -> str:
    """Relative to the root if the file lies in it, else as it is."""
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()
