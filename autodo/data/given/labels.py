"""Labels that are given in Python: class numbers or class names."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodo.data.given.pixels import as_array
from autodo.data.images.image_set import Integers
from autodo.errors import DataError

Labels = NDArray[Any]
"""Class numbers [N] int64, or class names [N] of type object."""


def label_array(given: Any) -> NDArray[Any]:
    """The labels as numpy makes an array of them, in their own type; they may be unsuitable.

    Raises:
        ValueError, TypeError: if they are rows of different length, or cannot be iterated.
    """
    return np.asarray([_plain(label) for label in given]) if isinstance(given, Sequence) else as_array(given)


def read_labels(given: Any, where: str) -> Labels:
    """Checks labels and returns them as class numbers or class names.

    Args:
        given: a sequence, array or tensor of whole numbers or of strings.
        where: name of the set in errors.
    Raises:
        DataError: if they are not a row of labels of one kind; one line.
    """
    try:
        array = label_array(given)
        if array.dtype.kind in "SU" and isinstance(given, Sequence):
            array = np.asarray([_plain(label) for label in given], object)  # numpy makes strings of numbers beside them
    except (ValueError, TypeError) as error:  # rows of different length, or what cannot be iterated
        raise DataError(f"{where}: the labels cannot be read: {error}") from None
    if array.ndim != 1:
        hint = "; of one-hot labels take argmax(1)" if array.ndim == 2 else ""
        hint = "; take ravel()" if array.shape[1:] == (1,) else hint
        raise DataError(f"{where}: the labels have shape {array.shape}, not one number or name for each image{hint}")
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(array) | (array != np.rint(array)))
        if len(wrong):
            raise DataError(f"{where}: label {wrong[0]} is {array[wrong[0]]:g}, not a whole number or a name")
        return array.astype(np.int64)
    names = np.asarray(array, object)
    kind = str if any(isinstance(name, str) for name in names) else int
    other = next((i for i, name in enumerate(names) if not isinstance(name, kind)), None)
    if other is not None:
        raise DataError(f"{where}: label {other} is {names[other]!r}; labels are all whole numbers or all strings")
    return names if kind is str else names.astype(np.int64)


def encode_labels(
    sets: Mapping[str, Labels], class_names: Sequence[str] | None = None
) -> tuple[dict[str, Integers], tuple[str, ...]]:
    """Class numbers of all sets, and the class names.

    Strings are numbered in the order of `class_names`, else in alphabetical order; numbers count from 0.

    Args:
        sets: labels of each set; the first set is train, whose name the errors have.
        class_names: name of each class number; None: those of the train labels.
    Shape:
        [N] for each set -> [N] int64 in 0..C-1, C names.
    Raises:
        DataError: if a label is out of range, a class has no train image, or there is only one class; one line.
    """
    (first, train), *others = sets.items()
    named = train.dtype == object
    if class_names is None:
        highest = -1 if named else int(train.max(initial=-1))
        if highest >= len(train) and not named:
            raise DataError(
                f"{first}: label {highest} of {len(train)} images is out of range: class numbers count from 0; give "
                "the labels as names (strings) instead"
            )
        class_names = sorted(set(train)) if named else [str(number) for number in range(highest + 1)]
    names = tuple(str(name) for name in class_names)
    if len({*names}) < len(names):
        raise DataError(f"class_names: {max(names, key=names.count)!r} stands there twice")
    for where, labels in others:
        if len(labels) and (labels.dtype == object) != named:
            kinds = ("names", "numbers") if named else ("numbers", "names")
            raise DataError(
                f"{where}: its labels are {kinds[1]}, and those of {first} are {kinds[0]}; give the same kind"
            )
    codes = {where: _codes(labels, names, where, first) for where, labels in sets.items()}
    if len(names) == 1:
        raise DataError(f"{first}: only one class, {names[0]!r}; a classifier needs at least two")
    absent = np.flatnonzero(np.bincount(codes[first], minlength=len(names)) == 0)
    if len(absent):
        raise DataError(
            f"{first}: no image has the class {names[absent[0]]!r}; class numbers count from 0 to {len(names) - 1}; "
            "leave the class out, or give the labels as names (strings)"
        )
    return codes, names


def _codes(labels: Labels, names: tuple[str, ...], where: str, first: str) -> Integers:
    if labels.dtype == object:
        number = {name: i for i, name in enumerate(names)}
        unknown = next((name for name in labels if name not in number), None)
        if unknown is not None:
            lacks = "class_names does" if where == first else f"{first} does"
            raise DataError(f"{where}: has the class {unknown!r}, which {lacks} not have; classes: {', '.join(names)}")
        return np.array([number[name] for name in labels], np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        least = "" if where == first else f" of {first}"
        raise DataError(
            f"{where}: label {labels[wrong[0]]} of image {wrong[0]} is out of range; the classes{least} are 0 to "
            f"{len(names) - 1}"
        )
    return labels


def _plain(label: Any) -> Any:
    """A tensor or array of one number as this number."""
    return label.item() if getattr(label, "shape", None) == () else label
