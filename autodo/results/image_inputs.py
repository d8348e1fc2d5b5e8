"""Images of several kinds as inputs of a classifier: paths, PIL images, arrays, tensors, of any size, gray or RGB."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from autodo.data.files.decode import fitted
from autodo.data.images.crop import CentreCrop
from autodo.data.images.image_set import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

_CHANNELS = (1, 3, 4)
"""Gray, RGB, and RGB with transparency."""


class NotAnImage(ValueError):
    """A value that no image can be made of; the text says why."""


@dataclass(frozen=True)
class InputFormat:
    """Inputs of a classifier, which are made as those of its training: upright, resized, its centre cut out.

    Args:
        channels: 1 or 3. RGB becomes gray, and gray RGB.
        image_size: S, in pixels.
        resize: pixels of the shorter side before the centre crop of `image_size`; None: `image_size`.
    """

    channels: int
    image_size: int
    resize: int | None = None

    def pixels(self, image: Any) -> Pixels:
        """The input that one image becomes.

        A path is decoded as in training. A PIL image, array or tensor is resized from all its pixels, whereas the JPEG
        decoder skips detail of images that are at least twice as large as needed.

        Args:
            image: a path, a PIL image, an array or a tensor (`one_image`).
        Shape:
            [C, S, S] uint8.
        Raises:
            NotAnImage: if the value is of another kind, shape or range. Exceptions of PIL if a file is damaged.
        """
        from PIL import Image, ImageOps

        crop = None if self.resize is None else CentreCrop(self.image_size / self.resize)
        if isinstance(image, str | os.PathLike):
            with Image.open(Path(image)) as opened:
                pixels = fitted(opened, self.image_size, crop)
        elif isinstance(image, Image.Image):
            pixels = fitted(ImageOps.exif_transpose(image), self.image_size, crop)  # a copy
        else:
            pixels = fitted(one_image(image), self.image_size, crop)
        return self._with_channels(pixels)

    def _with_channels(self, pixels: Pixels) -> Pixels:
        if len(pixels) == self.channels:
            return pixels
        if self.channels == 3:
            return np.broadcast_to(pixels, (3, *pixels.shape[1:]))
        from PIL import Image

        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert("L"))[None]


def each_image(images: Any) -> Iterator[Any]:
    """The single images of a path, a PIL image, an array or tensor of one or several images, or an iterable of them.

    An array holds one image, [H, W] or [H, W, C], or several, [N, H, W, C] or [N, C, H, W], or gray ones, [N, H, W].
    A tensor holds one image, [H, W] or [C, H, W], or several in the same ways. C is 1, 3 or 4.

    Raises:
        NotAnImage: if it is none of these, or an array [3, H, W], which may be one image or three gray ones.
    """
    from PIL import Image

    if isinstance(images, str | os.PathLike | Image.Image):
        yield images
    elif isinstance(images, np.ndarray | Tensor) and not _holds_objects(images):
        array = _as_array(images)
        if array.ndim == 4:
            yield from _channels_last(images, array)
        elif array.ndim == 3 and _channel_axis(images) is None:
            yield from array
        else:
            yield images
    elif isinstance(images, Iterable):
        yield from images
    else:
        raise NotAnImage(f"is a {type(images).__name__}; {_KINDS}")


_KINDS = "images are paths, PIL images, arrays, tensors, or a list of them"


def one_image(image: Any) -> "Image":
    """A PIL image of the values of one image.

    Args:
        image: array or tensor: uint8, or floats in [0, 1], which are rounded to 256 levels.
    Shape:
        [H, W], [H, W, C] or [C, H, W] with C of 1, 3 or 4; where two fit, C is last in an array and first in a tensor.
    Raises:
        NotAnImage: if it is of another kind, shape or range.
    """
    from PIL import Image

    if not isinstance(image, np.ndarray | Tensor) or _holds_objects(image):
        raise NotAnImage(f"is a {type(image).__name__}; {_KINDS}")
    array, axis = _as_array(image), _channel_axis(image)
    if array.ndim == 3 and axis is not None:
        array = np.moveaxis(array, axis, -1)
        array = array[..., 0] if array.shape[-1] == 1 else array
    elif array.ndim != 2:
        raise NotAnImage(
            f"has the shape {tuple(image.shape)}; one image is [H, W], [H, W, C] or [C, H, W], C of 1, 3, 4"
        )
    if 0 in array.shape:
        raise NotAnImage(f"has the shape {tuple(image.shape)}, and no pixels")
    return Image.fromarray(np.ascontiguousarray(_levels(array)))


def _levels(array: np.ndarray[Any, Any]) -> Pixels:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise NotAnImage(f"has values of {array.dtype}; uint8 and floats in [0, 1] are possible")
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise NotAnImage("has values that are NaN or infinite")
    if low < 0 or high > 1:
        raise NotAnImage(f"has floats from {low:.4g} to {high:.4g}; they must be in [0, 1], or uint8 in [0, 255]")
    return np.rint(array * 255).astype(np.uint8)


def _channel_axis(image: Any) -> int | None:
    """Axis of the channels of three axes; None if none of them has a number of channels."""
    shape = tuple(image.shape)
    if len(shape) != 3:
        return None
    last, first = shape[-1] in _CHANNELS, shape[0] in _CHANNELS
    if isinstance(image, Tensor):
        return 0 if first else -1 if last else None
    if not last and first and shape[0] != 1:
        raise NotAnImage(
            f"is an array of shape {shape}: one image has its channels last, [H, W, C], and several gray ones are a "
            "list; make a tensor of it if its channels are first"
        )
    return -1 if last else 0 if first else None


def _channels_last(images: Any, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Several images as [N, H, W, C]."""
    axes = [axis for axis in ((1, 3) if isinstance(images, Tensor) else (3, 1)) if array.shape[axis] in _CHANNELS]
    if not axes:
        raise NotAnImage(f"has the shape {array.shape}; several images are [N, H, W, C] or [N, C, H, W], C of 1, 3, 4")
    return np.moveaxis(array, axes[0], -1)


def _as_array(values: Any) -> np.ndarray[Any, Any]:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)


def _holds_objects(values: Any) -> bool:
    """Whether an array holds paths or objects."""
    return isinstance(values, np.ndarray) and values.dtype.kind in "OUS"
