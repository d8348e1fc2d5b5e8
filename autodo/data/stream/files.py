"""Where the bytes of every listed image are: in a file of its own, or within a tar shard."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autodo.data.decode import reason
from autodo.data.image_set import Integers
from autodo.data.stream.crop import Crops, pixels_of
from autodo.errors import DataError

_PAUSES_SECONDS = (0.1, 1.0)
"""Before a file that could not be read is tried again: a file server may have a bad moment."""


class ImageFile(NamedTuple):
    """The bytes of an image; `length` None: all of the file at `path`."""

    number: int
    """Among all images of the dataset: what it is told by."""
    name: str
    path: str
    offset: int = 0
    length: int | None = None

    def __str__(self) -> str:
        return self.path if self.length is None else f"{self.path}: {self.name}"

    def content(self) -> bytes:
        """The bytes. Raises OSError if the file has not that many any more."""
        with Path(self.path).open("rb") as file:
            if self.length is None:
                return file.read()
            file.seek(self.offset)
            content = file.read(self.length)
        if len(content) != self.length:
            raise OSError("the file is shorter than it was")
        return content


class Spans(NamedTuple):
    """Where images are in tar shards.

    Shape:
        shard, offset, length [N] int64; offset and length in bytes.
    """

    shards: Sequence[str]
    shard: Integers
    offset: Integers
    length: Integers


@dataclass(frozen=True, eq=False, repr=False)
class Files:
    """All images of a dataset, in the order of its listing.

    Args:
        root: folder that the names are relative to.
        names: of each image; in shards `<shard>/<name in it>`.
        spans: None if every image is a file.
    """

    root: str
    names: Sequence[str]
    spans: Spans | None = None

    def __getitem__(self, number: int) -> ImageFile:
        name = self.names[number]
        if self.spans is None:
            return ImageFile(number, name, str(Path(self.root, name)))
        shards, shard, offset, length = self.spans
        return ImageFile(
            number, name, str(Path(self.root, shards[shard[number]])), int(offset[number]), int(length[number])
        )


def read_into(out: NDArray[np.uint8], images: Sequence[ImageFile], crops: Crops | None) -> None:
    """Fills `out` with the images' pixels, gray ones as RGB.

    Shape:
        out [n, 3, S, S].
    Raises:
        DataError: if a file cannot be read, also when it is tried again.
    """
    for row, image in zip(out, images, strict=True):
        row[:] = _pixels(image, out.shape[-1], crops)


def _pixels(image: ImageFile, image_size: int, crops: Crops | None) -> NDArray[np.uint8]:
    for pause in _PAUSES_SECONDS:
        try:
            return pixels_of(image.content(), image_size, crops, image.number)
        except Exception:  # PIL's decoders raise exceptions of many kinds for damaged files
            time.sleep(pause)
    try:
        return pixels_of(image.content(), image_size, crops, image.number)
    except Exception as error:
        raise DataError(
            f"{image}: could be read when the dataset was indexed, and cannot now: {reason(error)}; put it back "
            "and start the command again: the run goes on from its checkpoint"
        ) from None
