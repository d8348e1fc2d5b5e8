"""Images of a set on the way to the device that trains."""

import copy
from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from autodo.data.image_set import Images


class Feed:
    """A worker's images of a set: they lie on the device that trains, as one tensor.

    Whoever goes through a set says before which batches are wanted in which order.

    Shape:
        images [n, C, H, W] uint8.
    """

    def __init__(self, images: Images, device: torch.device | str) -> None:
        self._images = torch.from_numpy(images).to(device)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, points: Tensor) -> Tensor:
        """These images, now. Shape: points [b] int64 -> [b, C, H, W] uint8, on the device."""
        return self._images.index_select(0, points)

    def stretch(self, first: int, last: int) -> Self:
        """Those from `first` to before `last`, without a copy."""
        part = copy.copy(self)
        part._images = self._images[first:last]
        return part

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images of each batch. Shape: tensors [b] int64 -> tensors [b, C, H, W] uint8, on the device."""
        return (self[points] for points in batches)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """All images, `batch_size` at a time. Shape: tensors [b, C, H, W] uint8, on the device."""
        return iter(self._images.split(batch_size))
