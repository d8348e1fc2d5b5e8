"""Decoding of image files to uint8 arrays."""

import io
import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from autodo.data.files.read_errors import one_line
from autodo.data.images.crop import Crop
from autodo.data.images.image_set import Pixels
from autodo.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

MEMORY_LIMIT_BYTES = 8 * 10**9
"""Limit for all sets together, if they are not streamed."""
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
_THREADS = 4
_NAMED_FILES = 3


def decode_images(files: Sequence[Path], image_size: int, *, root: Path) -> Pixels:
    """Decodes images: upright by EXIF orientation, shorter side resized to `image_size`, centre cropped.

    Resizing is bilinear and antialiased. Colour is RGB; C = 1 if every image is gray. 16-bit grays become 8-bit.

    Args:
        root: the data's root, named in errors.
    Shape:
        [N, C, image_size, image_size] uint8, contiguous.
    Raises:
        DataError: if the images do not fit in memory, or files are damaged or not images; it names the first few.
    """
    needed_bytes = len(files) * 3 * image_size**2
    if needed_bytes > MEMORY_LIMIT_BYTES:
        raise DataError(
            f"{root}: {len(files)} images of {image_size}x{image_size} need {needed_bytes / 1e9:.1f} GB of memory, "
            f"more than the limit of {MEMORY_LIMIT_BYTES / 1e9:g} GB; set dataset.stream=true to read them from their "
            "files while training, or lower dataset.image_size"
        )
    images = np.empty((len(files), 3, image_size, image_size), np.uint8)
    gray = np.zeros(len(files), bool)

    def keep(i: int, pixels: Pixels) -> None:
        images[i] = pixels
        gray[i] = len(pixels) == 1

    problem = _decode_each(files, image_size, keep, root=root)
    if problem is not None:
        raise DataError(problem)
    return np.ascontiguousarray(images[:, :1]) if gray.all() else images


def damaged_images(files: Sequence[Path], *, root: Path) -> str | None:
    """The error text of `decode_images` if some of these files cannot be read, else None."""
    return _decode_each(files, 1, lambda *_: None, root=root)


def _decode_each(
    files: Sequence[Path], image_size: int, keep: Callable[[int, Pixels], None], *, root: Path
) -> str | None:
    """Calls `keep` with each image's position and pixels; returns a line that names the files that cannot be read."""

    def problem_of(i: int) -> str | None:
        try:
            pixels = decode(files[i], image_size)
        except Exception as error:  # PIL's decoders raise exceptions of many kinds for damaged files
            return f"{files[i]} ({reason(error)})"
        keep(i, pixels)
        return None

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        bad = [problem for problem in pool.map(problem_of, range(len(files))) if problem is not None]
    if not bad:
        return None
    more = ", ..." if len(bad) > _NAMED_FILES else ""
    return (
        f"{root}: {len(bad)} of {len(files)} images cannot be read: {', '.join(bad[:_NAMED_FILES])}{more}; "
        "replace or remove them"
    )


def decode(file: Path | BinaryIO, image_size: int) -> Pixels:
    """Decodes one image as `decode_images` does: [1, S, S] if it is gray, else [3, S, S]. Raises PIL's exceptions."""
    from PIL import Image

    with Image.open(file) as opened:
        return fitted(opened, image_size)


def fitted(image: "Image.Image", image_size: int, crops: Crop | None = None, index: int = 0) -> Pixels:
    """Pixels of an opened image, upright and resized, as `pixels_of` gives them; the image is changed."""
    return _whole(image, image_size) if crops is None else _part(image, image_size, crops, index)


def _whole(opened: "Image.Image", image_size: int) -> Pixels:
    from PIL import Image, ImageOps

    # The JPEG decoder skips detail that the resize would drop; other formats ignore this.
    opened.draft(None, (image_size, image_size))
    upright = eight_bit(ImageOps.exif_transpose(opened))
    return channels_first(ImageOps.fit(upright, (image_size, image_size), Image.Resampling.BILINEAR))


def pixels_of(content: bytes, image_size: int, crops: Crop | None, index: int) -> Pixels:
    """Pixels of an image file: its crop resized, or without `crops` as `decode` gives them.

    Raises PIL's exceptions. Shape: [3, S, S], or [1, S, S] for a gray image.
    """
    from PIL import Image

    with warnings.catch_warnings():
        # PIL warns of odd metadata and of large images; the pixels that it reads are good.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content)) as opened:
            return fitted(opened, image_size, crops, index)


def _part(opened: "Image.Image", image_size: int, crops: Crop, index: int) -> Pixels:
    from PIL import Image, ImageOps

    turned = opened.getexif().get(_ORIENTATION) in _TURNED
    width, height = opened.size[::-1] if turned else opened.size
    box = crops.box(index, width, height)
    # The JPEG decoder may halve the image as long as the crop is not smaller than the result.
    wanted = math.ceil(width * image_size / box.width), math.ceil(height * image_size / box.height)
    opened.draft(None, wanted[::-1] if turned else wanted)
    ImageOps.exif_transpose(opened, in_place=True)
    upright = eight_bit(opened)
    left, top = box.left * upright.width / width, box.top * upright.height / height
    right = (box.left + box.width) * upright.width / width
    bottom = (box.top + box.height) * upright.height / height
    # Crop first: the resize would use pixels outside the box.
    x, y = math.floor(left), math.floor(top)
    part = upright.crop((x, y, math.ceil(right), math.ceil(bottom)))
    inside = (left - x, top - y, right - x, bottom - y)
    return channels_first(part.resize((image_size, image_size), Image.Resampling.BILINEAR, box=inside))


def channels_first(image: "Image.Image") -> Pixels:
    """Pixels of an image of mode L or RGB. Shape: [1, H, W] or [3, H, W]."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def eight_bit(image: "Image.Image") -> "Image.Image":
    """The image as mode L or RGB; transparency is dropped."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels; save it with 8 or 16 bits")
    if image.mode in ("1", "L", "LA", "La"):
        return image.convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def reason(error: Exception) -> str:
    """Reason why a file cannot be decoded, on one line."""
    from PIL import UnidentifiedImageError

    # Its text repeats the path.
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return (isinstance(error, OSError) and error.strerror) or one_line(error)
