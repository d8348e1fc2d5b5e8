"""Labelled images, in memory or in their files, and the dataset that a reader returns."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from autodo.data.images.device_loader import DeviceLoader

Pixels = NDArray[np.uint8]
Integers = NDArray[np.int64]

_CHUNK_SIZE = 4096


class Images(Protocol):
    """Images of a set, in memory (`ArrayImages`) or in their files (`StreamedImages`)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, C, H, W]."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | Integers) -> Self:
        """A subset; no image is read."""

    def concatenate(self, others: Self) -> Self:
        """These images and then the others, of the same dataset."""

    def resized(self, image_size: int) -> Self:
        """Stand-ins of another size, for measuring times."""

    def read(self, positions: Integers | None = None) -> Pixels:
        """Pixels at the given positions, or of all images. Shape: [n] -> [n, C, H, W]."""

    def statistics_sample(self) -> "Iterator[Tensor]":
        """Images from which to compute each channel's mean and deviation, in chunks [n, C, H, W] in host memory.

        The same for every method and seed that has the same train images.
        """

    def loader(self, device: "torch.device | str") -> "DeviceLoader":
        """A loader of these images for training on the device."""


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory, or features in place of images.

    Shape:
        array [N, C, H, W] uint8, or [N, D, 1, 1] float32 for D features.
    """

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, C, H, W]."""
        return self.array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice | Integers) -> Self:
        return type(self)(self.array[rows])

    def concatenate(self, others: Self) -> Self:
        """These images and then the others."""
        return type(self)(np.concatenate([self.array, others.array]))

    def resized(self, image_size: int) -> Self:
        """Images whose pixels are cut or repeated."""
        columns = np.arange(image_size) % self.shape[-1]
        return type(self)(np.ascontiguousarray(self.array[:, :, columns][..., columns]))

    def read(self, positions: Integers | None = None) -> Any:
        """Pixels at the given positions; of all images without a copy."""
        return self.array if positions is None else self.array[positions]

    def statistics_sample(self) -> "Iterator[Tensor]":
        """All images."""
        import torch

        return iter(torch.from_numpy(self.array).split(_CHUNK_SIZE))

    def loader(self, device: "torch.device | str") -> "DeviceLoader":
        """A loader of a copy on the device."""
        import torch

        from autodo.data.images.device_loader import TensorLoader

        return TensorLoader(torch.from_numpy(self.array).to(device))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels.

    Shape:
        images [N, C, H, W] uint8; labels [N] int64.
    """

    images: Images
    labels: Integers
    sources: tuple[str, ...] | None = None
    """File of each image, relative to the dataset's root; only for `folder` and `imagenet`."""
    kept: Integers | None = None
    """For a subset: positions [N] in the whole set."""
    clean_labels: Integers | None = None
    """True labels [N] where the user knows them; only to judge with. None: `labels` are taken for true."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def index(self) -> Integers:
        """Position [N] of each image in the whole set."""
        return np.arange(len(self)) if self.kept is None else self.kept

    def take(self, index: Integers) -> Self:
        """The images at the sorted positions `index`; this set itself if that is all of them."""
        if len(index) == len(self):
            return self
        return type(self)(
            images=self.images[index],
            labels=self.labels[index],
            sources=None if self.sources is None else tuple(self.sources[i] for i in index),
            kept=self.index[index],
            clean_labels=None if self.clean_labels is None else self.clean_labels[index],
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset as its reader returns it, before the split and the distortion."""

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    val: ImageSet | None = None
    """The user's own trusted val set; None if val is to be split off the train set."""
    warnings: tuple[str, ...] = ()
    """One line for each oddity of the files, such as damaged ones that were left out."""
