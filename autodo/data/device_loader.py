"""Images of a set on the way to the device that trains, whether they are in memory or stay in their files."""

import copy
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from autodo.data.image_set import Images, Integers
from autodo.data.split import FIXED_SEED
from autodo.data.stream.streamed_images import CropParameters, StreamedImages
from autodo.seeds import numpy_generator

CHUNK = 4096
"""Images in memory that are looked at at a time."""
STATISTICS_IMAGES = 4096
_CHUNK_OF_STREAM = 256


class DeviceLoader:
    """A worker's images of a set. Those of an array lie on the device that trains; streamed ones come by the batch.

    Whoever goes through a set says before which batches are wanted in which order, so that streamed images are decoded
    ahead of their use.

    Shape:
        images [n, C, H, W] uint8.
    """

    def __init__(self, images: Images | StreamedImages, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._images = images if isinstance(images, StreamedImages) else torch.from_numpy(images).to(device)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, points: Tensor) -> Tensor:
        """These images, now: streamed ones are waited for. Shape: points [b] int64 -> [b, C, H, W] uint8."""
        if isinstance(self._images, Tensor):
            return self._images.index_select(0, points)
        return next(self.batches([points]))

    def rows(self, first: int, last: int) -> Self:
        """Those from `first` to before `last`, without a copy."""
        part = copy.copy(self)
        part._images = self._images[first:last]
        return part

    def batches(self, batches: Sequence[Tensor], crops: CropParameters | None = None) -> Iterator[Tensor]:
        """The images of each batch.

        Args:
            crops: what is cut out of streamed images; images in memory have no more than what is there.
        Shape:
            tensors [b] int64 -> tensors [b, C, H, W] uint8, on the device.
        """
        images = self._images
        if isinstance(images, Tensor):
            return (images.index_select(0, points) for points in batches)
        # Once for all, because the host would wait for the device at each of them.
        hosts = torch.cat(list(batches)).cpu().split([len(points) for points in batches]) if batches else ()
        return self._sent(images.batches([points.numpy() for points in hosts], crops))

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """All images, `batch_size` at a time, nothing cut out. Shape: tensors [b, C, H, W] uint8, on the device."""
        images = self._images
        if isinstance(images, Tensor):
            return iter(images.split(batch_size))
        return self._sent(images.batches(_chunks(len(images), batch_size)))

    def _sent(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        return (batch.to(self._device, non_blocking=True) for batch in batches)


def read_all(images: Images | StreamedImages) -> Images:
    """Images as an array, for as many as there is room for. Shape: [n, C, H, W] uint8."""
    if not isinstance(images, StreamedImages):
        return images
    if len(images) <= _CHUNK_OF_STREAM:
        return images.read(np.arange(len(images)))  # sooner done than processes are started
    pixels = np.empty(images.shape, np.uint8)
    filled = 0
    for batch in images.batches(_chunks(len(images), _CHUNK_OF_STREAM)):
        pixels[filled : filled + len(batch)] = batch.numpy()
        filled += len(batch)
    return pixels


def concatenate(parts: Sequence[Images]) -> Images:
    """Images of one dataset, one part after the other."""
    first = parts[0]
    return first.concatenate(parts) if isinstance(first, StreamedImages) else np.concatenate(parts)


def statistics_sample(images: Images | StreamedImages) -> Iterator[Tensor]:
    """The train images that the mean and deviation of each channel are of, a chunk at a time, in host memory.

    All of them; of streamed ones a sample of 4,096, drawn in the same way for every method and seed: runs with the same
    train points have the same statistics.
    """
    if not isinstance(images, StreamedImages):
        return iter(torch.from_numpy(images).split(CHUNK))
    sample = images
    if len(images) > STATISTICS_IMAGES:
        generator = numpy_generator(FIXED_SEED, "channel statistics")
        sample = images[np.sort(generator.choice(len(images), STATISTICS_IMAGES, replace=False))]
    return sample.batches(_chunks(len(sample), _CHUNK_OF_STREAM))


def _chunks(count: int, size: int) -> list[Integers]:
    return np.array_split(np.arange(count), range(size, count, size))
