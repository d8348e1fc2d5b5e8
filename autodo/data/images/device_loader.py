"""Loaders that give a worker's images of one set to the device that trains, batch by batch."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor

from autodo.data.images.crop import CropParameters


class DeviceLoader(Protocol):
    """Images of a set for one device.

    A caller names all batches of a pass before the first is needed, so that streamed images are decoded ahead.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, points: Tensor) -> Tensor:
        """The images at these positions, read at once. Shape: points [b] int64 -> [b, C, H, W] uint8."""

    def rows(self, first: int, last: int) -> "DeviceLoader":
        """A loader of the images from `first` up to `last`, without a copy."""

    def batches(self, batches: Sequence[Tensor], crops: CropParameters | None = None) -> Iterator[Tensor]:
        """The images of each batch.

        Args:
            crops: random crops of streamed images; images in memory have no more pixels than these.
        Shape:
            tensors [b] int64 -> tensors [b, C, H, W] uint8 on the device.
        """

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """All images in order, without crops. Shape: tensors [b, C, H, W] uint8 on the device."""


class TensorLoader:
    """Images that lie on the device.

    Shape:
        images [n, C, H, W] uint8.
    """

    def __init__(self, images: Tensor) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, points: Tensor) -> Tensor:
        return self._images.index_select(0, points)

    def rows(self, first: int, last: int) -> "TensorLoader":
        """A loader of the images from `first` up to `last`, without a copy."""
        return TensorLoader(self._images[first:last])

    def batches(self, batches: Sequence[Tensor], crops: CropParameters | None = None) -> Iterator[Tensor]:
        """The images of each batch, as they are."""
        return (self[points] for points in batches)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """All images in order."""
        return iter(self._images.split(batch_size))
