"""Images that stay in their files, in place of the array of a set that is held in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from autodo.data.image_set import Images, Integers
from autodo.data.stream.crop import Crops
from autodo.data.stream.files import Files, ImageFile, read_into

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Crops", "StreamedImages"]


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Some of a dataset's images, each decoded whenever it is read. Stands where an array [N, 3, S, S] uint8 does.

    Args:
        image_size: S, in pixels.
    Shape:
        index [N] int64: number of each image in the dataset's listing, whatever the subset, the epoch or the worker.
    """

    files: Files
    image_size: int
    index: Integers

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, 3, S, S], as an array has it."""
        return len(self.index), 3, self.image_size, self.image_size

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Self:
        """A part of the images; nothing is read."""
        return type(self)(self.files, self.image_size, self.index[rows])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Parts of one dataset, one after the other."""
        first = parts[0]
        assert all(part.files is first.files and part.image_size == first.image_size for part in parts)
        return cls(first.files, first.image_size, np.concatenate([part.index for part in parts]))

    def read(self, positions: Integers) -> Images:
        """The images' shorter side resized, the centre cut out; decoded in this process.

        Shape:
            positions [n] -> [n, 3, S, S].
        Raises:
            DataError: if a file cannot be read any more.
        """
        pixels = np.empty((len(positions), *self.shape[1:]), np.uint8)
        read_into(pixels, self._files_of(positions), None)
        return pixels

    def batches(self, batches: Sequence[Integers], crops: Crops | None = None) -> Iterator["Tensor"]:
        """Batches of images in the given order.

        Args:
            batches: positions of the images of each.
            crops: what is cut out of each image; None: as in `read`.
        Shape:
            batches of [b] -> [b, 3, S, S] uint8 in host memory.
        Raises:
            DataError: if a file cannot be read any more.
        """
        import torch

        for positions in batches:
            pixels = torch.empty((len(positions), *self.shape[1:]), dtype=torch.uint8)
            read_into(pixels.numpy(), self._files_of(positions), crops)
            yield pixels

    def close(self) -> None:
        """Stops the workers."""

    def _files_of(self, positions: Integers) -> list[ImageFile]:
        return [self.files[number] for number in self.index[positions].tolist()]
