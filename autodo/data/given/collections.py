"""The forms in which a set of labelled images is given in Python, and reading them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autodo.data.given.images import GivenImages, Size, read_array, read_images
from autodo.data.given.labels import Labels, read_labels
from autodo.data.given.pixels import holds_numbers, is_tensor
from autodo.errors import DataError
from autodo.text import first_line


@dataclass(frozen=True)
class GivenSet:
    """A set of labelled images whose images are not read yet.

    Args:
        where: name of the set in errors.
        class_names: names of the class numbers, if the given dataset has some.
        read: reads images and labels.
    """

    where: str
    size: int
    class_names: tuple[str, ...] | None
    read: Callable[[Size], tuple[GivenImages, Labels]]


def given_set(images: Any, labels: Any, where: str) -> GivenSet:
    """A set of labelled images in one of the possible forms.

    - images as an array or tensor of all, or a list, array or pandas Series of paths, PIL images, arrays or tensors;
      with labels;
    - a map-style `torch.utils.data.Dataset` of (image, label), or a `datasets.Dataset` of Hugging Face with a column of
      images and one of labels; without labels.

    Args:
        where: name of the set in errors.
    Raises:
        DataError: if it is none of these, or their numbers differ; one line.
    """
    if _is_hugging_face(images):
        return _hugging_face_set(_without_labels(images, labels, where), where)
    if hasattr(images, "to_numpy"):  # a Series of pandas or Polars
        images = images.to_numpy()
    if isinstance(images, np.ndarray) and images.ndim == 1 and not holds_numbers(images):
        images = images.tolist()
    if isinstance(images, np.ndarray) or is_tensor(images) or hasattr(images, "__array_interface__"):
        count = len(images) if getattr(images, "ndim", 0) else 0
        return _with_labels(count, labels, where, lambda size: read_array(images, where, size))
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        return _with_labels(len(images), labels, where, lambda size: read_images(images, len(images), where, size))
    if hasattr(images, "__getitem__") and hasattr(images, "__len__") and not isinstance(images, str | bytes | dict):
        return _map_style_set(_without_labels(images, labels, where), where)
    hint = ""
    if type(images).__name__ == "DataLoader":
        hint = "; give its dataset"
    elif isinstance(images, dict):
        hint = "; give one of its splits, such as images['train']" if hasattr(images, "column_names") else ""
    raise DataError(
        f"{where}: a {type(images).__name__} is no set of images: give an array or tensor, a list of paths, PIL "
        f"images, arrays or tensors, a map-style Dataset of (image, label), or a datasets.Dataset{hint}"
    )


def _with_labels(count: int, given: Any, where: str, read: Callable[[Size], GivenImages]) -> GivenSet:
    if given is None:
        raise DataError(f"{where}: labels are needed with these images, one for each")
    labels = read_labels(given, where)
    if count == 0:
        raise DataError(f"{where}: there are no images")
    if count != len(labels):
        raise DataError(f"{where}: {count} images and {len(labels)} labels; there must be one label for each image")
    return GivenSet(where, count, None, lambda size: (read(size), labels))


def _without_labels(images: Any, labels: Any, where: str) -> Any:
    if labels is not None:
        raise DataError(f"{where}: a {type(images).__name__} has its own labels; leave out the others")
    if len(images) == 0:
        raise DataError(f"{where}: there are no images")
    return images


def _map_style_set(dataset: Any, where: str) -> GivenSet:
    def read(size: Size) -> tuple[GivenImages, Labels]:
        labels: list[Any] = []

        def images() -> Iterator[Any]:
            for i in range(len(dataset)):
                item = _item(dataset, i, where)
                if not isinstance(item, list | tuple) or len(item) != 2:
                    raise DataError(
                        f"{where}: item {i} of the {type(dataset).__name__} is a {type(item).__name__}, not a pair "
                        "(image, label)"
                    )
                labels.append(item[1])
                yield item[0]

        # A dataset of somebody else may not stand several threads.
        found = read_images(images(), len(dataset), where, size, threads=False)
        return found, read_labels(labels, where)

    return GivenSet(where, len(dataset), _class_names(dataset), read)


def _item(dataset: Any, i: int, where: str) -> Any:
    """An item of somebody else's dataset, which may raise anything."""
    try:
        return dataset[i]
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise DataError(f"{where}: item {i} of the {type(dataset).__name__} cannot be read: {what}") from error


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    """Names of a dataset's class numbers, or of those that a `Subset` or `ConcatDataset` of torch is made of."""
    from torch.utils.data import ConcatDataset, Subset

    if isinstance(dataset, Subset):
        return _class_names(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        first, *others = map(_class_names, dataset.datasets)
        return first if all(names == first for names in others) else None
    classes = getattr(dataset, "classes", None)
    return tuple(map(str, classes)) if isinstance(classes, list | tuple) else None


def _is_hugging_face(given: Any) -> bool:
    """Whether it is a `datasets.Dataset`; the library is not imported for the answer."""
    of_library = type(given).__module__.partition(".")[0] == "datasets"
    return of_library and hasattr(given, "features") and hasattr(given, "select_columns") and hasattr(given, "__len__")


def _hugging_face_set(dataset: Any, where: str) -> GivenSet:
    image_column, label_column = _columns(dataset.features, where)
    names = getattr(dataset.features[label_column], "names", None)

    def read(size: Size) -> tuple[GivenImages, Labels]:
        labels = list(dataset.with_format(None).select_columns([label_column])[:][label_column])
        transformed = dataset.format["type"] == "custom"
        # A transform may need any column; without one, other columns are not decoded.
        rows: Sequence[Any] = dataset if transformed else dataset.select_columns([image_column])

        def images() -> Iterator[Any]:
            for i in range(len(rows)):
                row = _item(rows, i, where)
                if image_column not in row:
                    raise DataError(
                        f"{where}: the transform of the Dataset returns no {image_column!r}, but {', '.join(row)}; "
                        "give the dataset without it, with_format(None)"
                    )
                labels[i] = row.get(label_column, labels[i])
                yield row[image_column]

        return read_images(images(), len(rows), where, size, threads=False), read_labels(labels, where)

    return GivenSet(where, len(dataset), None if names is None else tuple(names), read)


def _columns(features: Any, where: str) -> tuple[str, str]:
    """Names of the columns of images and of labels of a `datasets.Dataset`."""
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    labels = labels or [name for name in ("label", "labels") if name in kinds]
    for column, found in (("of type Image", images), ("of type ClassLabel, or named label", labels)):
        if len(found) != 1:
            raise DataError(
                f"{where}: one column must be {column}, and {len(found) or 'none'} is; columns: "
                f"{', '.join(f'{name} ({kind})' for name, kind in kinds.items())}; choose with select_columns, "
                "cast_column or rename_column"
            )
    return images[0], labels[0]
