"""Images of several kinds as inputs of a classifier: paths, PIL images, arrays, tensors, of any size, gray or RGB."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autodo.data.files.decode import fitted
from autodo.data.given.images import as_pil, in_channels
from autodo.data.given.pixels import as_array, holds_numbers, is_tensor, pixels_of_array
from autodo.data.images.crop import CentreCrop
from autodo.data.images.image_set import Pixels
from autodo.errors import DataError


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
            image: a path, a PIL image, an array or a tensor (`pixels_of_array`).
        Shape:
            [C, S, S] uint8.
        Raises:
            DataError: if the value is of another kind, shape or range. Exceptions of PIL if a file is damaged.
        """
        from PIL import Image, ImageOps

        crop = None if self.resize is None else CentreCrop(self.image_size / self.resize)
        if isinstance(image, str | os.PathLike):
            with Image.open(Path(image).expanduser()) as opened:
                pixels = fitted(opened, self.image_size, crop)
        elif isinstance(image, Image.Image):
            pixels = fitted(ImageOps.exif_transpose(image), self.image_size, crop)  # a copy
        elif holds_numbers(image):
            pixels = pixels_of_array(image, batch=False)
            if crop is not None or pixels.shape[1:] != (self.image_size, self.image_size):
                pixels = fitted(as_pil(pixels), self.image_size, crop)
        else:
            raise DataError(f"a {type(image).__name__}; an image is a path, a PIL image, an array or a tensor")
        return in_channels(pixels[None], self.channels)[0]


def each_image(images: Any, channels: int) -> Iterator[Any]:
    """The single images of a path, a PIL image, an array or tensor of one or several images, or an iterable of them.

    Arrays and tensors of four axes hold several images, as do those of three of which neither the first nor the last
    can be channels.

    Args:
        channels: those of the classifier. With 1, arrays and tensors [N, H, W] hold N gray images also if N is 3 or 4.
    Raises:
        DataError: if it is none of these, or, for a classifier of colours, an array [3, H, W], which may be one image
        or three gray ones.
    """
    from PIL import Image

    if isinstance(images, str | os.PathLike | Image.Image):
        yield images
    elif holds_numbers(images):
        axes = as_array(images).shape
        may_be_either = len(axes) == 3 and axes[0] in (3, 4) and axes[-1] not in (1, 3, 4)
        if may_be_either and channels != 1 and not is_tensor(images):
            raise DataError(
                f"an array of shape {axes} may be one image or several gray ones: give one image as [H, W, C], or as a "
                "tensor, and several as a list"
            )
        several = len(axes) == 4 or (len(axes) == 3 and {axes[0], axes[-1]}.isdisjoint((1, 3, 4)))
        if several or (may_be_either and channels == 1):
            yield from np.moveaxis(pixels_of_array(images, batch=True), 1, -1)
        else:
            yield images
    elif isinstance(images, Iterable):
        yield from images
    else:
        raise DataError(f"a {type(images).__name__}; images are paths, PIL images, arrays, tensors, or a list of them")
