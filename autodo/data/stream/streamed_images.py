"""Images that stay in their files, in place of the array of a set that is held in memory."""

import itertools
import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from autodo.data.image_set import Images, Integers
from autodo.data.stream.crop import CropParameters
from autodo.data.stream.files import Files, ImageFile, read_into
from autodo.data.stream.pool import (
    Filled,
    Pool,
    close_pools,
    images_at_once,
    loader_workers,
    pool_for,
    telling_of_lost_workers,
)
from autodo.errors import ImageLost

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CropParameters", "StreamedImages"]

logger = logging.getLogger("autodo")


@dataclass(frozen=True, eq=False, repr=False)
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
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Parts of one dataset, one after the other."""
        first = parts[0]
        assert all(part.files is first.files and part.image_size == first.image_size for part in parts)
        return cls(first.files, first.image_size, np.concatenate([part.index for part in parts]))

    def read(self, positions: Integers) -> Images:
        """The images' shorter side resized, the centre cut out; decoded in this process.

        Shape:
            positions [n] -> [n, 3, S, S].
        Raises:
            ImageLost: if a file cannot be read any more, also when it is tried again.
        """
        pixels = np.empty((len(positions), *self.shape[1:]), np.uint8)
        _tell(read_into(pixels, self._files_of(positions), None))
        return pixels

    def batches(self, batches: Sequence[Integers], crops: CropParameters | None = None) -> Iterator["Tensor"]:
        """Batches of images in the given order, decoded ahead by worker processes (see `loader_workers`).

        Closing the iterator drops what is under way; the workers stay for the next one.

        Args:
            batches: positions of the images of each.
            crops: what is cut out of each image; None: as in `read`.
        Shape:
            batches of [b] -> [b, 3, S, S] uint8 in host memory.
        Raises:
            ImageLost: if a file cannot be read any more, also when it is tried again.
            RuntimeError: if a worker was killed.
        """
        workers = loader_workers()
        if workers == 0:
            return self._batches_here(batches, crops)
        return self._batches_ahead(batches, crops, pool_for(workers, self.image_size))

    def close(self) -> None:
        """Stops the workers, also those of other streamed images of this process; they start again when needed."""
        close_pools()

    def _batches_here(self, batches: Sequence[Integers], crops: CropParameters | None) -> Iterator["Tensor"]:
        for positions in batches:
            pixels = self._batch(len(positions))
            _tell(read_into(pixels.numpy(), self._files_of(positions), crops))
            yield pixels

    def _batches_ahead(
        self, batches: Sequence[Integers], crops: CropParameters | None, pool: Pool
    ) -> Iterator["Tensor"]:
        at_once = images_at_once(self.image_size)
        largest = max((len(positions) for positions in batches), default=0)
        ahead = 2 * pool.workers + 2 * math.ceil(largest / at_once)
        wanted = (
            positions[start : start + at_once] for positions in batches for start in range(0, len(positions), at_once)
        )
        under_way: deque[tuple[Future[Filled], int]] = deque()
        try:
            with telling_of_lost_workers(pool):
                for positions in batches:
                    pixels = self._batch(len(positions))
                    for start in range(0, len(positions), at_once):
                        for some in itertools.islice(wanted, ahead - len(under_way)):
                            under_way.append(pool.read(self._files_of(some), self.image_size, crops))
                        decoded, slot = under_way[0]
                        filled = decoded.result()
                        _tell(filled.tried_again)
                        if filled.lost is not None:
                            raise ImageLost(filled.lost)
                        part = pixels[start : start + at_once].numpy()
                        part[:] = pool.pixels(slot, len(part), self.image_size)
                        pool.give_back(*under_way.popleft())
                    yield pixels
        finally:
            for one in under_way:
                pool.give_back(*one)

    def _batch(self, count: int) -> "Tensor":
        import torch

        # Memory that a GPU can fetch from by itself; a process without one in use keeps away from CUDA.
        pinned = torch.cuda.is_available() and torch.cuda.is_initialized()
        return torch.empty((count, *self.shape[1:]), dtype=torch.uint8, pin_memory=pinned)

    def _files_of(self, positions: Integers) -> list[ImageFile]:
        return [self.files[number] for number in self.index[positions].tolist()]


def _tell(tried_again: Sequence[str]) -> None:
    for line in tried_again:
        logger.warning("%s", line)
