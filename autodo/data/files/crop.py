"""RandomResizedCrop on the host, while an image is decoded."""

import io
import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autodo.data.files.decode import decode, eight_bit
from autodo.data.image_set import Pixels

_ATTEMPTS = 10
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class CropParameters:
    """RandomResizedCrop's ranges, and the seed of its draws for one pass over a set.

    The crop of an image depends only on the seed, the image's index and its size.

    Args:
        scale: range of the share of the image's area.
        ratio: range of width over height, which is drawn uniformly in its logarithm.
    Reference: Szegedy et al., CVPR 2015, section 6; torchvision.transforms.RandomResizedCrop.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    seed: int = 0

    def box(self, index: int, width: int, height: int) -> Box:
        """Crop of the image with this index: the first of ten draws that fits, else the largest centre crop."""
        generator = np.random.default_rng((self.seed, index))
        least, most = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(_ATTEMPTS):
            area = width * height * generator.uniform(*self.scale)
            ratio = math.exp(generator.uniform(least, most))
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high <= height:
                top, left = generator.integers(height - high + 1), generator.integers(width - wide + 1)
                return Box(int(left), int(top), wide, high)
        wide = min(width, round(height * self.ratio[1]))
        high = min(height, round(width / self.ratio[0]))
        return Box((width - wide) // 2, (height - high) // 2, wide, high)


def pixels_of(content: bytes, image_size: int, crops: CropParameters | None, index: int) -> Pixels:
    """Pixels of an image file: its crop resized, or without `crops` as `decode` gives them.

    Raises PIL's exceptions. Shape: [3, S, S], or [1, S, S] for a gray image.
    """
    with warnings.catch_warnings():
        # PIL warns of odd metadata and of large images; the pixels that it reads are good.
        warnings.simplefilter("ignore")
        file = io.BytesIO(content)
        return decode(file, image_size) if crops is None else _decode_crop(file, image_size, crops, index)


def _decode_crop(file: io.BytesIO, image_size: int, crops: CropParameters, index: int) -> Pixels:
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
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
        pixels = np.asarray(part.resize((image_size, image_size), Image.Resampling.BILINEAR, box=inside))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
