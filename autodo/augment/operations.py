"""The operations of policies, and the values that a level in [0, 1] stands for.

The ranges of OPERATIONS are those of Fast AutoAugment, whose policies (and those of DADA, Faster AutoAugment and our
searches) are lists of (operation, probability, level):

    value = low + level (high - low), and for a signed operation -value with probability 1/2.

So level 0.5 of a geometric operation does nothing, and levels 0 and 1 are the same. In AutoAugment, RandAugment and
TrivialAugment magnitude 0 does nothing, and more does more; see `magnitude_ranges`.

Reference: Lim et al. 2019 and its published code; Cubuk et al. 2019, table 6.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from autodo.augment import colour, geometry

Exact = Callable[[Tensor, Tensor, Tensor], object]
"""(images [b, C, H, W] uint8, value [b], centre [b, 2]): changes the images in place, as PIL does."""


class Operation(NamedTuple):
    """One of `matrix`, `base` and `exact`; and the values of the levels 0 and 1.

    `matrix`: map of a geometric operation; all of these are applied to a batch as one sampling.
    `base`: image that an enhancement blends with; all of these are applied to a batch as one blend.
    `exact`: any other operation.
    """

    low: float = 0.0
    high: float = 0.0
    signed: bool = False
    matrix: geometry.OfSize | None = None
    base: colour.Base | None = None
    exact: Exact | None = None

    @property
    def has_magnitude(self) -> bool:
        """Whether its value changes what it does."""
        return self.low != self.high


def _without_centre(function: Callable[[Tensor, Tensor], object]) -> Exact:
    return lambda images, value, _: function(images, value)


OPERATIONS: dict[str, Operation] = {
    "Identity": Operation(exact=lambda images, value, centre: None),
    # Slopes.
    "ShearX": Operation(-0.3, 0.3, signed=True, matrix=geometry.GEOMETRIC["ShearX"]),
    "ShearY": Operation(-0.3, 0.3, signed=True, matrix=geometry.GEOMETRIC["ShearY"]),
    # Shares of the side.
    "TranslateX": Operation(-0.45, 0.45, signed=True, matrix=geometry.GEOMETRIC["TranslateX"]),
    "TranslateY": Operation(-0.45, 0.45, signed=True, matrix=geometry.GEOMETRIC["TranslateY"]),
    # Degrees.
    "Rotate": Operation(-30, 30, signed=True, matrix=geometry.GEOMETRIC["Rotate"]),
    # Whole pixels; TrivialAugment's.
    "TranslateXPixels": Operation(-32, 32, signed=True, matrix=geometry.GEOMETRIC["TranslateXPixels"]),
    "TranslateYPixels": Operation(-32, 32, signed=True, matrix=geometry.GEOMETRIC["TranslateYPixels"]),
    "AutoContrast": Operation(exact=_without_centre(colour.auto_contrast)),
    "Invert": Operation(exact=lambda images, value, centre: images.bitwise_not_()),
    "Equalize": Operation(exact=_without_centre(colour.equalize)),
    # Lowest level that is inverted.
    "Solarize": Operation(0, 256, exact=_without_centre(colour.solarize)),
    # Number of bits that stay.
    "Posterize": Operation(4, 8, exact=_without_centre(colour.posterize)),
    # 0 is the base, 1 the image.
    "Contrast": Operation(0.1, 1.9, base=colour.mean_luma),
    "Color": Operation(0.1, 1.9, base=colour.luma),
    "Brightness": Operation(0.1, 1.9, base=colour.black),
    "Sharpness": Operation(0.1, 1.9, base=colour.smoothed),
    # Share of the width.
    "Cutout": Operation(0, 0.2, exact=colour.cutout),
}
NAMES = list(OPERATIONS)
"""Names by position; operations of plug-ins come last (`autodo.augment.plugin_operations`)."""


def _places(names: list[str]) -> range:
    """Positions of operations that stand next to one another."""
    return range(NAMES.index(names[0]), NAMES.index(names[-1]) + 1)


MOVING = _places([name for name, operation in OPERATIONS.items() if operation.matrix is not None])
BLENDING = _places([name for name, operation in OPERATIONS.items() if operation.base is not None])


@functools.cache
@torch.inference_mode(False)
def affine_coefficients(moving: range, height: int, width: int, device: torch.device) -> Tensor:
    """Coefficients of geometric operations, by position. Shape: -> [len(moving), 5, 6] float64."""
    of_size = [operation.matrix for operation in list(OPERATIONS.values())[moving.start : moving.stop]]
    return torch.tensor([matrix(height, width) for matrix in of_size if matrix], dtype=torch.float64, device=device)


def level_of(name: str, strength: float) -> float:
    """Level of an operation at a strength in [0, 1].

    Level 1/2 of a signed operation does nothing: its strengths 0..1 are the levels 0.5..1, so that a larger one is
    always a stronger warp.
    """
    return 0.5 + strength / 2 if OPERATIONS[name].signed else strength


def to_levels(images: Tensor) -> Tensor:
    """Converts float images in [0, 1] to whole levels 0..255. Shape: any -> uint8."""
    return (images * 255).round_().to(torch.uint8)


def to_float(levels: Tensor, dtype: torch.dtype) -> Tensor:
    """Converts whole levels to float images in [0, 1]. Shape: any uint8 -> `dtype`."""
    return levels.to(dtype).div_(255)
