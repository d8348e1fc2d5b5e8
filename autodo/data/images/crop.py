"""Parts of images that are resized: those of RandomResizedCrop, and a square in the middle."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

_ATTEMPTS = 10


class Box(NamedTuple):
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


class Crop(Protocol):
    """A part of each image."""

    def box(self, index: int, width: int, height: int) -> Box:
        """The part of the image with this index and size."""


@dataclass(frozen=True)
class CentreCrop:
    """The square in the middle of an image.

    Args:
        share: side of the square as a share of the shorter side: 224 / 256 is the part that remains if the shorter side
            is resized to 256 and then 224 x 224 pixels are cut out.
    """

    share: float

    def box(self, index: int, width: int, height: int) -> Box:
        """The square of an image of this size."""
        side = max(1, round(self.share * min(width, height)))
        return Box((width - side) // 2, (height - side) // 2, side, side)


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
