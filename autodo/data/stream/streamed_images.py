"""Images that stay in their files until they are needed."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from autodo.data.images.crop import CentreCrop, Crop, CropParameters
from autodo.data.images.image_set import Integers, Pixels
from autodo.data.images.split import FIXED_SEED
from autodo.data.stream.image_files import ImageFile, ImageFiles, read_into
from autodo.data.stream.pool import DecoderPool, chunk_images, loader_workers, pool_for
from autodo.seeds import numpy_generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

logger = logging.getLogger("autodo")

STATISTICS_IMAGES = 4096
"""Number of images of which the channel statistics are computed."""
_CHUNK_SIZE = 256


@dataclass(frozen=True, eq=False, repr=False)
class StreamedImages:
    """Some of a dataset's images, decoded whenever they are read.

    Args:
        image_size: S, in pixels.
        centre: part of each image where no random crops are given; None: the largest square in the middle.
    Shape:
        index [N] int64: number of each image in the dataset's listing, whatever the subset, the epoch or the process.
    """

    files: ImageFiles
    image_size: int
    index: Integers
    centre: CentreCrop | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, 3, S, S]."""
        return len(self.index), 3, self.image_size, self.image_size

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Integers) -> Self:
        """A subset; no image is read."""
        return dataclasses.replace(self, index=self.index[rows])

    def concatenate(self, others: Self) -> Self:
        """These images and then the others, of the same dataset."""
        assert (others.files, others.image_size) == (self.files, self.image_size)
        return dataclasses.replace(self, index=np.concatenate([self.index, others.index]))

    def resized(self, image_size: int) -> Self:
        """The same images at another size."""
        return dataclasses.replace(self, image_size=image_size)

    def read(self, positions: Integers | None = None) -> Pixels:
        """Images at the given positions, or all: the shorter side resized and the centre cut out.

        Few are decoded in this process, which takes less time than starting others.

        Shape:
            positions [n] -> [n, 3, S, S].
        Raises:
            ImageLost: if a file can no longer be read, even after retries.
        """
        wanted = np.arange(len(self)) if positions is None else positions
        chunks = _chunks(wanted)
        if len(chunks) == 1:
            return next(self._decode_here(chunks, self.centre)).numpy()
        pixels = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        filled = 0
        for batch in self.batches(chunks):
            pixels[filled : filled + len(batch)] = batch.numpy()
            filled += len(batch)
        return pixels

    def statistics_sample(self) -> Iterator["Tensor"]:
        """A fixed random sample of at most STATISTICS_IMAGES images, in chunks."""
        sample = np.arange(len(self))
        if len(self) > STATISTICS_IMAGES:
            generator = numpy_generator(FIXED_SEED, "channel statistics")
            sample = np.sort(generator.choice(len(self), STATISTICS_IMAGES, replace=False))
        return self.batches(_chunks(sample))

    def loader(self, device: "torch.device | str") -> "StreamLoader":
        """A loader that decodes ahead and sends each batch to the device."""
        return StreamLoader(self, device)

    def batches(self, batches: Sequence[Integers], crops: CropParameters | None = None) -> Iterator["Tensor"]:
        """Batches of images in the given order, decoded ahead by worker processes (see `loader_workers`).

        Closing the iterator cancels what is pending; the workers stay for the next one.

        Args:
            batches: positions of the images of each batch.
            crops: random crop of each image; None: as in `read`.
        Shape:
            batches of [b] -> [b, 3, S, S] uint8 in host memory.
        Raises:
            ImageLost: if a file can no longer be read, even after retries.
            RuntimeError: if a worker was killed.
        """
        workers, parts = loader_workers(), crops or self.centre
        if workers == 0:
            return self._decode_here(batches, parts)
        return self._decode_ahead(batches, parts, pool_for(workers, self.image_size))

    def _decode_here(self, batches: Sequence[Integers], crops: Crop | None) -> Iterator["Tensor"]:
        for positions in batches:
            pixels = self._empty_batch(len(positions))
            _warn(read_into(pixels.numpy(), self._files_at(positions), crops))
            yield pixels

    def _decode_ahead(self, batches: Sequence[Integers], crops: Crop | None, pool: DecoderPool) -> Iterator["Tensor"]:
        size = chunk_images(self.image_size)
        largest = max(map(len, batches), default=0)
        chunks = (self._files_at(chunk) for positions in batches for chunk in _chunks(positions, size))
        ahead = 2 * pool.workers + 2 * math.ceil(largest / size)
        with contextlib.closing(pool.decode(chunks, self.image_size, crops, ahead)) as decoded:
            for positions in batches:
                batch = self._empty_batch(len(positions))
                for part in batch.split(size):
                    pixels, retried = next(decoded)
                    part.numpy()[:] = pixels
                    _warn(retried)
                yield batch

    def _empty_batch(self, count: int) -> "Tensor":
        import torch

        # Pinned memory, from which a GPU copies by itself; a process that does not use CUDA does not initialise it.
        pinned = torch.cuda.is_available() and torch.cuda.is_initialized()
        return torch.empty((count, *self.shape[1:]), dtype=torch.uint8, pin_memory=pinned)

    def _files_at(self, positions: Integers) -> list[ImageFile]:
        return [self.files[number] for number in self.index[positions].tolist()]


def _warn(retried: Sequence[str]) -> None:
    for line in retried:
        logger.warning("%s", line)


class StreamLoader:
    """Streamed images for one device; see `DeviceLoader`."""

    def __init__(self, images: StreamedImages, device: "torch.device | str") -> None:
        self._images, self._device = images, device

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, points: "Tensor") -> "Tensor":
        return next(self.batches([points]))

    def rows(self, first: int, last: int) -> "StreamLoader":
        """A loader of the images from `first` up to `last`."""
        return StreamLoader(self._images[first:last], self._device)

    def batches(self, batches: "Sequence[Tensor]", crops: CropParameters | None = None) -> Iterator["Tensor"]:
        """The images of each batch, decoded ahead."""
        import torch

        # One copy for all batches: each copy makes the host wait for the device.
        points = torch.cat(list(batches)).cpu().split([len(batch) for batch in batches]) if batches else ()
        return self._sent(self._images.batches([batch.numpy() for batch in points], crops))

    def in_order(self, batch_size: int) -> Iterator["Tensor"]:
        """All images in order, without crops."""
        return self._sent(self._images.batches(_chunks(np.arange(len(self)), batch_size)))

    def _sent(self, batches: Iterator["Tensor"]) -> Iterator["Tensor"]:
        return (batch.to(self._device, non_blocking=True) for batch in batches)


def _chunks(positions: Integers, size: int = _CHUNK_SIZE) -> list[Integers]:
    return np.array_split(positions, range(size, len(positions), size))
