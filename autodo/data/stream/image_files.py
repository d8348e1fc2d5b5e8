"""Location of every image's bytes, in a file of its own or within a tar shard, and reading them with retries."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from autodo.data.files.decode import pixels_of, reason
from autodo.data.images.crop import Crop
from autodo.data.images.image_set import Integers, Pixels
from autodo.errors import ImageLost
from autodo.io.retry import retry

T = TypeVar("T")

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PATIENCE_SECONDS = 20.1
"""A file server may be down for a moment."""
_PERMANENT_PATIENCE_SECONDS = 1.1
"""For errors that rarely pass, and for bytes that are not an image: somebody may be replacing the file."""


class ImageFile(NamedTuple):
    """An image's bytes: the whole file at `path`, or `length` bytes of it."""

    number: int
    """Position in the dataset's listing."""
    name: str
    path: str
    offset: int = 0
    length: int | None = None

    def __str__(self) -> str:
        return self.path if self.length is None else f"{self.path}: {self.name}"

    def content(self) -> bytes:
        """The bytes. Raises OSError if the file has become shorter."""
        with Path(self.path).open("rb") as file:
            if self.length is None:
                return file.read()
            file.seek(self.offset)
            content = file.read(self.length)
        if len(content) != self.length:
            raise OSError("the file is shorter than it was")
        return content


class ByteRanges(NamedTuple):
    """Locations of images in tar shards.

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
        names: one per image; in shards `<shard>/<name in it>`.
        ranges: None if every image is a file.
    """

    root: str
    names: Sequence[str]
    ranges: ByteRanges | None = None

    def __getitem__(self, number: int) -> ImageFile:
        name = self.names[number]
        if self.ranges is None:
            return ImageFile(number, name, str(Path(self.root, name)))
        shards, shard, offset, length = self.ranges
        path = str(Path(self.root, shards[shard[number]]))
        return ImageFile(number, name, path, int(offset[number]), int(length[number]))


def read_into(out: Pixels, images: Sequence[ImageFile], crops: Crop | None) -> list[str]:
    """Fills `out` with the images' pixels, gray ones as RGB; returns a line for each file that needed a retry.

    Shape:
        out [n, 3, S, S].
    Raises:
        ImageLost: if a file cannot be read, even after retries.
    """
    retried: list[str] = []
    for row, image in zip(out, images, strict=True):
        try:
            row[:], problem = read_with_retries(lambda: pixels_of(image.content(), out.shape[-1], crops, image.number))  # noqa: B023
        except RetriesFailed as error:
            raise ImageLost(
                f"{image}: could be read when the dataset was indexed, and cannot now: {error}; put it back as it was "
                "and start the command again"
            ) from None
        if problem:
            retried.append(f"{image}: {problem}")
    return retried


class RetriesFailed(Exception):
    """A read that failed every time; the text says why, how often and for how long it was tried."""


def read_with_retries(read: Callable[[], T]) -> tuple[T, str]:
    """Calls `read` until it succeeds or patience ends; returns its result and what failed before, empty if nothing.

    Raises:
        RetriesFailed: if it fails every time.
    """
    start = time.monotonic()
    failures: list[str] = []

    def note(error: Exception, seconds_left: float) -> None:
        failures.append(reason(error))

    try:
        result = retry(read, _patience, pause=0.1, factor=10, on_failure=note)
    except MemoryError:
        raise
    except Exception as error:  # PIL's decoders raise exceptions of many kinds for damaged files
        seconds = time.monotonic() - start
        raise RetriesFailed(f"{reason(error)} (tried {len(failures) + 1} times in {seconds:.1f} s)") from None
    if not failures:
        return result, ""
    return result, f"{failures[-1]}; it could be read when it was tried again {time.monotonic() - start:.1f} s later"


def _patience(error: Exception) -> float:
    if isinstance(error, MemoryError):
        return 0.0
    # PIL's own errors have no errno.
    passes = isinstance(error, OSError) and error.errno is not None and not isinstance(error, _PERMANENT)
    return _PATIENCE_SECONDS if passes else _PERMANENT_PATIENCE_SECONDS
