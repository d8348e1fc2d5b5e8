"""Images as batches of a classifier's inputs, its outputs for them, and the names of those that cannot be read."""

import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autodo.data.files.decode import reason
from autodo.data.images.image_set import Pixels
from autodo.errors import DataError
from autodo.results.image_inputs import InputFormat, each_image

BATCH_SIZE = 64
_THREADS = 4
_NAMED = 3


class Batch(NamedTuple):
    """Inputs made of the next images, or the next features.

    Shape:
        inputs [b, C, S, S] uint8 on the CPU, b + len(problems) images; or [b, D] float32.
    """

    inputs: Tensor
    positions: list[int]
    """Of the images of the inputs, among all images given."""
    problems: list[str]
    """The images between them that cannot be read, and why: `photos/7.jpg (not an image)`."""


def input_batches(images: Iterable[Any], inputs: InputFormat, batch_size: int = BATCH_SIZE) -> Iterator[Batch]:
    """Batches of `batch_size` images, decoded in threads.

    Args:
        images: single images, as `InputFormat.pixels` takes them.
    """

    def read(numbered: tuple[int, Any]) -> Pixels | str:
        number, image = numbered
        try:
            return inputs.pixels(image)
        except MemoryError:
            raise
        except Exception as error:  # PIL's decoders raise exceptions of many kinds for damaged files
            name = os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"
            return f"{name} ({reason(error)})"

    numbered = enumerate(images)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        while part := list(itertools.islice(numbered, batch_size)):
            with warnings.catch_warnings():
                # PIL warns of odd metadata and of large images; the pixels that it reads are good.
                warnings.simplefilter("ignore")
                read_now = list(pool.map(read, part))
            found = [(number, pixels) for (number, _), pixels in zip(part, read_now, strict=True)]
            good = [(number, pixels) for number, pixels in found if not isinstance(pixels, str)]
            shape = len(good), inputs.channels, inputs.image_size, inputs.image_size
            stacked = np.stack([pixels for _, pixels in good]) if good else np.empty(shape, np.uint8)
            yield Batch(
                torch.from_numpy(stacked),
                [number for number, _ in good],
                [problem for problem in read_now if isinstance(problem, str)],
            )


def feature_batches(features: NDArray[np.float32], batch_size: int = BATCH_SIZE) -> Iterator[Batch]:
    """Batches of features as they are. Shape: features [N, D]; inputs of a batch [b, D]."""
    for first in range(0, len(features), batch_size):
        inputs = torch.from_numpy(features[first : first + batch_size])
        yield Batch(inputs, list(range(first, first + len(inputs))), [])


def outputs(
    images: Any, inputs: InputFormat, compute: Callable[[Tensor], Tensor], batch_size: int = BATCH_SIZE
) -> NDArray[np.float32]:
    """Compute the outputs of `compute` for all images, in their order.

    Args:
        images: as `each_image` takes them.
        compute: [b, C, S, S] uint8 -> [b, D]. It is called with b = 0 if there are no images.
    Shape:
        -> [N, D].
    Raises:
        DataError: if an image cannot be read, or a value is no image, with the first few; or the batch size is below 1.
    """
    if batch_size < 1:
        raise DataError(f"batch_size {batch_size}: must be at least 1")
    rows = []
    for batch in input_batches(each_image(images, inputs.channels), inputs, batch_size):
        if batch.problems:
            raise DataError(_unreadable(batch.problems))
        rows.append(compute(batch.inputs).float().cpu())
    if not rows:
        rows.append(compute(torch.empty(0, inputs.channels, inputs.image_size, inputs.image_size, dtype=torch.uint8)))
    return torch.cat(rows).float().cpu().numpy()


def _unreadable(problems: list[str]) -> str:
    more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return f"cannot be used: {', '.join(problems[:_NAMED])}{more}"
