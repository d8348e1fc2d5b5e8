"""The stratified split and subsample: pure functions of (labels, generator)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodo.data.images.image_set import Integers
from autodo.errors import ConfigError, DataError
from autodo.seeds import numpy_generator

FIXED_SEED = 0
"""Seed of draws that belong to a dataset and not to a run, such as the subsample and the test set of one without."""
TEST_SHARE = 0.2


def stratified_split(
    labels: Integers,
    share: float,
    generator: np.random.Generator,
    *,
    class_names: Sequence[str] | None = None,
    where: str = "the train set",
) -> tuple[Integers, Integers]:
    """Splits off `share` of the images, and of each class a share as near to it as whole images allow.

    round(share * N) images are held out, and both sides get at least one image of every class, unlike with
    scikit-learn's StratifiedShuffleSplit.

    Args:
        share: in (0, 1).
        class_names: for errors; None: the classes' numbers.
        where: name of the set, for errors.
    Shape:
        labels [N] -> rest [N - M], held [M]: sorted positions.
    Raises:
        DataError: if a class has fewer than 2 images.
    """
    require_images(labels, 2, class_names=class_names, where=where)
    counts = np.bincount(labels)
    total = min(max(round(share * len(labels)), len(counts)), len(labels) - len(counts))
    wanted = allocate(counts, total, low=np.ones_like(counts), high=counts - 1)
    held = _draw(labels, wanted, generator)
    return np.setdiff1d(np.arange(len(labels)), held, assume_unique=True), held


def fixed_test_split(labels: Integers, class_names: Sequence[str], *, where: str) -> tuple[Integers, Integers]:
    """Train and test positions for a dataset without a test set: the same fifth is held out in every run."""
    generator = numpy_generator(FIXED_SEED, "test")
    return stratified_split(labels, TEST_SHARE, generator, class_names=class_names, where=where)


def subsample(labels: Integers, size: int, generator: np.random.Generator) -> Integers:
    """Sorted positions [size] of a stratified subsample with at least one image of every class.

    Raises:
        ConfigError: if there are fewer than `size` images, or more classes than `size`.
    """
    counts = np.bincount(labels)
    classes = np.count_nonzero(counts)
    if not classes <= size <= len(labels):
        raise ConfigError(
            f"dataset.subsample: {size} is out of range: the train set has {len(labels)} images "
            f"of {classes} classes, so {classes}..{len(labels)} is possible"
        )
    wanted = allocate(counts, size, low=np.minimum(counts, 1), high=counts)
    return _draw(labels, wanted, generator)


def require_images(labels: Integers, needed: int, *, class_names: Sequence[str] | None, where: str) -> None:
    """Raises DataError, which names the first such class, if a class has fewer than `needed` images."""
    counts = np.bincount(labels, minlength=len(class_names or ()))
    few = np.flatnonzero(counts < needed)
    if len(few) == 0:
        return
    first = few[0]
    name = first if class_names is None else repr(class_names[first])
    more = f" (one of {len(few)} such classes)" if len(few) > 1 else ""
    raise DataError(
        f"{where}: class {name} has too few images for the split{more}: {counts[first]}, but at least {needed} "
        "are needed; add images, leave the class out, or raise dataset.subsample if it is set"
    )


def members(labels: Integers, classes: int) -> list[Integers]:
    """Sorted positions of the images of each class 0..classes-1."""
    ends = np.cumsum(np.bincount(labels, minlength=classes))[:-1]
    return np.split(np.argsort(labels, kind="stable"), ends)


def allocate(counts: NDArray[Any], total: int, low: Integers, high: Integers) -> Integers:
    """Number of images of each class: proportional to `counts` (largest remainders), in [low, high], `total` in all."""
    assert low.sum() <= total <= high.sum()
    quota = counts * (total / counts.sum())
    wanted = np.clip(np.floor(quota).astype(np.int64), low, high)
    while (missing := total - int(wanted.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = wanted < high if step > 0 else wanted > low
        wanted[np.argmax(np.where(movable, step * (quota - wanted), -np.inf))] += step
    return wanted


def _draw(labels: Integers, wanted: Integers, generator: np.random.Generator) -> Integers:
    groups = members(labels, len(wanted))
    drawn = [generator.choice(group, count, replace=False) for group, count in zip(groups, wanted, strict=True)]
    return np.sort(np.concatenate(drawn))
