"""Images in memory, one uint8 array per set, or such as stay in their files."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from autodo.errors import DataError

Images = NDArray[np.uint8]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels.

    Shape:
        images [N, C, H, W] uint8, contiguous, or StreamedImages in their place; labels [N] int64.
    """

    images: Images
    labels: Integers
    sources: tuple[str, ...] | None = None
    """File of each image, relative to the dataset's root; only for `folder` and `imagenet`."""
    kept: Integers | None = None
    """Of a subset: positions [N] in the set it was taken from. None for a whole set."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def index(self) -> Integers:
        """Position [N] of each image in the original, whole set."""
        return np.arange(len(self)) if self.kept is None else self.kept

    def take(self, index: Integers) -> Self:
        """The images at the sorted positions `index`; itself, without a copy, if that is all of them."""
        if len(index) == len(self):
            return self
        return type(self)(
            images=self.images[index],
            labels=self.labels[index],
            sources=None if self.sources is None else tuple(self.sources[i] for i in index),
            kept=self.index[index],
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a reader gives: nothing is split off or distorted yet."""

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    val: ImageSet | None = None
    """A trusted val set that the person gave; None where it is to be split off the train set."""
    warnings: tuple[str, ...] = ()
    """A line each on what is odd about the files, such as damaged ones that were left out."""


def checked_set(images: NDArray[Any], labels: NDArray[Any], *, classes: int, where: str) -> ImageSet:
    """What a file format's reader returned, as an ImageSet.

    Args:
        where: names the files in errors.
    Shape:
        images [N, C, H, W] uint8; labels [N].
    Raises:
        DataError: if there are no images, not as many labels as images, or a label is not in 0..classes-1.
    """
    remedy = "replace the files with the published ones"
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"{where}: holds {images.dtype} values of shape {images.shape}, not 8-bit images; {remedy}")
    if len(images) == 0 or len(images) != len(labels):
        raise DataError(f"{where}: {len(images)} images, but {len(labels)} labels; {remedy}")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{where}: labels are {labels.min()}..{labels.max()}, but this dataset has 0..{classes - 1}; {remedy}"
        )
    return ImageSet(np.ascontiguousarray(images), labels.astype(np.int64, copy=False))
