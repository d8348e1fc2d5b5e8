"""Images of a set that is given in Python, resized to one size."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from autodo.data.files.decode import MEMORY_LIMIT_BYTES, channels_first, eight_bit, fitted, reason
from autodo.data.given.pixels import is_tensor, pixels_of_array
from autodo.data.images.image_set import Pixels
from autodo.errors import DataError
from autodo.io.uri import is_uri

_THREADS = 4
_NAMED_IMAGES = 3


class GivenImages(NamedTuple):
    """Images of one size.

    Shape:
        pixels [N, 3, S, S], or [N, 1, S, S] if all are gray.
    """

    pixels: Pixels
    sources: tuple[str, ...] | None
    """Path of each image, if all are files."""


class Size(NamedTuple):
    """Side in pixels of resized images."""

    side: int
    exact: bool = False
    """Resize to `side`, whatever the images are; otherwise images that are all smaller get the size of the largest."""


def read_images(images: Iterable[Any], count: int, where: str, size: Size, *, threads: bool = True) -> GivenImages:
    """Reads images, each of which is a path, a PIL image, an array or a tensor.

    Like the images of a folder, an image is turned upright by its EXIF orientation, its shorter side is resized
    (bilinear, antialiased), and its centre is cut out. Images of the original size are in memory a few at a time.

    Args:
        count: number of images.
        where: name of the set in errors.
        threads: read several images at a time.
    Raises:
        DataError: if images cannot be read or do not fit in memory; one line that names the first few.
    """
    needed_bytes = count * 3 * size.side**2
    if needed_bytes > MEMORY_LIMIT_BYTES:
        raise DataError(
            f"{where}: {count} images of {size.side}x{size.side} need {needed_bytes / 1e9:.1f} GB of memory, more than "
            f"the limit of {MEMORY_LIMIT_BYTES / 1e9:g} GB; lower image_size, or train with dataset.stream=true on a "
            "folder (docs/how-to/stream-images.md)"
        )
    shrunk: list[Pixels] = []
    sources: list[str | None] = []
    bad: list[str] = []
    for pixels, source, problem in _load_all(images, size, threads=threads):
        if problem is not None:
            bad.append(f"{source or f'image {len(sources)}'} ({problem})")
        shrunk.append(pixels)
        sources.append(source)
    if bad:
        more = ", ..." if len(bad) > _NAMED_IMAGES else ""
        raise DataError(
            f"{where}: {len(bad)} of {count} images cannot be read: {', '.join(bad[:_NAMED_IMAGES])}{more}; replace "
            "them or leave them out"
        )
    named = tuple(source for source in sources if source is not None)
    return GivenImages(_joined(shrunk, size), named if len(named) == count else None)


def read_array(given: Any, where: str, size: Size) -> GivenImages:
    """Reads the images of a whole array or tensor; see `read_images`.

    Shape:
        given [N, H, W], [N, H, W, C] or [N, C, H, W].
    """
    try:
        pixels = pixels_of_array(given, batch=True)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    side = size.side if size.exact else min(size.side, *pixels.shape[2:])
    if pixels.shape[2:] == (side, side):
        return GivenImages(np.ascontiguousarray(pixels), None)
    return read_images(list(pixels), len(pixels), where, size)


def in_channels(pixels: Pixels, channels: int) -> Pixels:
    """Images with one or three channels; gray ones are repeated, and of colours the luma is taken.

    Shape:
        [N, C, H, W] -> [N, channels, H, W].
    """
    if pixels.shape[1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=1)
    return np.stack([np.asarray(as_pil(colour).convert("L"))[None] for colour in pixels])


class _Loaded(NamedTuple):
    pixels: Pixels
    source: str | None
    problem: str | None


def _load_all(images: Iterable[Any], size: Size, *, threads: bool) -> Iterator[_Loaded]:
    def load(given: Any) -> _Loaded:
        source = os.fspath(given) if isinstance(given, str | os.PathLike) else None
        try:
            return _Loaded(_shrunk(given, size), source, None)
        except Exception as error:  # PIL's decoders raise exceptions of many kinds for damaged files
            return _Loaded(np.empty((1, 0, 0), np.uint8), source, reason(error))

    if not threads:
        yield from map(load, images)
        return
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(load, images)


def _shrunk(given: Any, size: Size) -> Pixels:
    """Pixels of an image, resized if its shorter side is longer than needed. Shape: [C, H, W]."""
    if isinstance(given, str | os.PathLike):
        if is_uri(os.fspath(given)):
            raise DataError("a URI; copy the file to this machine and give its path")
        path = Path(given).expanduser()
        if path.stat().st_size == 0:
            raise DataError("0 bytes")
        with Image.open(path) as opened:
            if not size.exact and min(opened.size) <= size.side:
                return _upright(opened)
            return fitted(opened, size.side)
    if isinstance(given, Image.Image):
        pixels = _upright(given)
    elif isinstance(given, np.ndarray) or is_tensor(given):
        pixels = pixels_of_array(given, batch=False)
    else:
        raise DataError(f"a {type(given).__name__}; an image is a path, a PIL image, an array or a tensor")
    return pixels if min(pixels.shape[1:]) <= size.side else _fitted(pixels, size.side)


def _joined(images: list[Pixels], size: Size) -> Pixels:
    """All images in one array; the list then refers to it, so that the originals are freed one by one."""
    side = size.side if size.exact else min(size.side, max(min(pixels.shape[1:]) for pixels in images))
    joined = np.empty((len(images), max(map(len, images)), side, side), np.uint8)
    for i in range(len(joined)):
        joined[i] = _fitted(images[i], side)
        images[i] = joined[i]
    return joined


def _fitted(pixels: Pixels, side: int) -> Pixels:
    """An image resized as `decode` does. Shape: [C, H, W] -> [C, side, side]."""
    return pixels if pixels.shape[1:] == (side, side) else fitted(as_pil(pixels), side)


def as_pil(pixels: Pixels) -> Image.Image:
    """The PIL image, gray or RGB, of pixels. Shape: [1, H, W] or [3, H, W]."""
    return Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))


def _upright(image: Image.Image) -> Pixels:
    return channels_first(eight_bit(ImageOps.exif_transpose(image)))
