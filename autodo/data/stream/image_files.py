"""Where the bytes of every listed image are: in a file of its own, or within a tar shard."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from autodo.data.files.crop import CropParameters, pixels_of
from autodo.data.files.decode import reason
from autodo.data.image_set import Integers, Pixels
from autodo.errors import ImageLost

T = TypeVar("T")

_PAUSES_SECONDS = (0.1, 1.0, 4.0, 15.0)
"""Before a file that could not be read is tried again: a file server may be down for a moment."""
_CERTAIN = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_TRIES_OF_CERTAIN = 2
"""Further tries after these, or of bytes that are no image: somebody may be replacing the file."""


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


class ByteRanges(NamedTuple):
    """Where images are in tar shards.

    Shape:
        shard, offset, length [N] int64; offset and length in bytes.
    """

    shards: Sequence[str]
    shard: Integers
    offset: Integers
    length: Integers


@dataclass(frozen=True, eq=False, repr=False)
class ImageFiles:
    """All images of a dataset, in the order of its listing.

    Args:
        root: folder that the names are relative to.
        names: of each image; in shards `<shard>/<name in it>`.
        spans: None if every image is a file.
    """

    root: str
    names: Sequence[str]
    spans: ByteRanges | None = None

    def __getitem__(self, number: int) -> ImageFile:
        name = self.names[number]
        if self.spans is None:
            return ImageFile(number, name, str(Path(self.root, name)))
        shards, shard, offset, length = self.spans
        return ImageFile(
            number, name, str(Path(self.root, shards[shard[number]])), int(offset[number]), int(length[number])
        )


def read_into(out: Pixels, images: Sequence[ImageFile], crops: CropParameters | None) -> list[str]:
    """Fills `out` with the images' pixels, gray ones as RGB; a line on each file that had to be tried again.

    Shape:
        out [n, 3, S, S].
    Raises:
        ImageLost: if a file cannot be read, also when it is tried again.
    """
    tried_again: list[str] = []
    for row, image in zip(out, images, strict=True):
        row[:] = _pixels(image, out.shape[-1], crops, tried_again)
    return tried_again


def _pixels(image: ImageFile, image_size: int, crops: CropParameters | None, tried_again: list[str]) -> Pixels:
    try:
        pixels, why = with_retries(lambda: pixels_of(image.content(), image_size, crops, image.number))
    except RetriesFailed as error:
        raise ImageLost(
            f"{image}: could be read when the dataset was indexed, and cannot now: {error}; put it back as it was and "
            "start the command again"
        ) from None
    if why:
        tried_again.append(f"{image}: {why}")
    return pixels


class RetriesFailed(Exception):
    """What failed still does when it is tried again; the text says why and for how long."""


def with_retries(read: Callable[[], T]) -> tuple[T, str]:
    """What `read` gives, which is tried again for a while if it raises; and what was wrong then, empty if nothing.

    Raises:
        StillFails: if it raises every time.
    """
    waited, why = 0.0, ""
    for tries in itertools.count():
        try:
            given = read()
        except MemoryError:
            raise
        except Exception as error:  # PIL's decoders raise exceptions of many kinds for damaged files
            why, pauses = reason(error), _pauses(error)
        else:
            return given, f"{why}; it could be read when it was tried again {waited:.1f} s later" if tries else ""
        if tries >= len(pauses):
            break
        time.sleep(pauses[tries])
        waited += pauses[tries]
    raise RetriesFailed(f"{why} (tried {tries + 1} times in {waited:.1f} s)")


def _pauses(error: Exception) -> Sequence[float]:
    """PIL's own errors have no number, and what is certain needs no patience."""
    passes = isinstance(error, OSError) and error.errno is not None and not isinstance(error, _CERTAIN)
    return _PAUSES_SECONDS if passes else _PAUSES_SECONDS[:_TRIES_OF_CERTAIN]
