"""Geometric operations: each is an affine map from an output pixel to the position that it is read from.

A row [a, b, c, d, e, f] of `matrix` sends the centre (x, y) of an output pixel to (a x + b y + c, d x + e y + f) in the
source; pixel (0, 0) covers [0, 1) x [0, 1), y points down, and zeros move in unless `sample` is given another border.
This is PIL's `Image.transform(AFFINE)`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from autodo.augment.borders import pad
from autodo.config.run import BorderName

FIXED_POINT_BITS = 16  # PIL's nearest sampling computes in 16.16 fixed point


Row = tuple[float, float, float, float, float, float]
ZERO: Row = (0, 0, 0, 0, 0, 0)
IDENTITY: Row = (1, 0, 0, 0, 1, 0)


class AffineCoefficients(NamedTuple):
    """A row as a function of a value v: one + v value + trunc(v) whole + cos(v) cosine + sin(v) sine, v in degrees."""

    one: Row = IDENTITY
    value: Row = ZERO
    whole: Row = ZERO
    cosine: Row = ZERO
    sine: Row = ZERO


OfSize = Callable[[int, int], AffineCoefficients]
"""(height, width) of images -> coefficients."""


def rotate(height: int, width: int) -> AffineCoefficients:
    """Rotates counter-clockwise about the centre."""
    x, y = width / 2, height / 2
    return AffineCoefficients(one=(0, 0, x, 0, 0, y), cosine=(1, 0, -x, 0, 1, -y), sine=(0, -1, y, 1, 0, -x))


GEOMETRIC: dict[str, OfSize] = {
    # Rows slide left by `v` pixels per pixel downwards; the top edge stays.
    "ShearX": lambda height, width: AffineCoefficients(value=(0, 1, 0, 0, 0, 0)),
    # Columns slide up by `v` pixels per pixel to the right; the left edge stays.
    "ShearY": lambda height, width: AffineCoefficients(value=(0, 0, 0, 1, 0, 0)),
    # Left and up by a share of the side.
    "TranslateX": lambda height, width: AffineCoefficients(value=(0, 0, width, 0, 0, 0)),
    "TranslateY": lambda height, width: AffineCoefficients(value=(0, 0, 0, 0, 0, height)),
    "Rotate": rotate,
    # Left and up by whole pixels; a fraction is cut off, as in torchvision.
    "TranslateXPixels": lambda height, width: AffineCoefficients(whole=(0, 0, 1, 0, 0, 0)),
    "TranslateYPixels": lambda height, width: AffineCoefficients(whole=(0, 0, 0, 0, 0, 1)),
}


def matrices(affine: Tensor, value: Tensor) -> Tensor:
    """Rows of the values, differentiable in them; gradients pass straight through the cut to whole numbers.

    Shape:
        affine [b or 1, 5, 6] float64: `AffineCoefficients`; value [b] -> [b, 6] float64.
    """
    value = value.double()
    angle = torch.deg2rad(value)
    whole = value + (value.trunc() - value).detach()
    parts = torch.stack([torch.ones_like(value), value, whole, angle.cos(), angle.sin()], 1)
    return (parts[:, None] @ affine)[:, 0]


def sample(images: Tensor, matrix: Tensor, border: BorderName = "zeros") -> None:
    """Reads each pixel from the one that its centre falls into, in place; with zeros equal to PIL bit for bit.

    Args:
        border: what pixels outside are: zeros, or the nearest pixel of the image.
    Shape:
        images [b, C, H, W] of any dtype, matrix [b, 6].
    """
    batch, channels, height, width = images.shape
    fixed = (_steps(matrix) * (1 << FIXED_POINT_BITS)).add_(0.5).floor_().int().transpose(0, 1).contiguous()
    per_x, per_y, start = fixed[..., None, None].unbind(2)
    x = counting(width, torch.int32, images.device)
    y = counting(height, torch.int32, images.device)[:, None]
    source = ((start + per_y * y) + per_x * x).bitwise_right_shift_(FIXED_POINT_BITS)
    column, row = source[0].clamp_(-1, width), source[1].clamp_(-1, height)
    # Positions outside are read from a border around the image.
    padded = pad(images, 1, border)
    plane = (height + 2) * (width + 2)
    size = channels * plane
    first = torch.arange(width + 3, width + 3 + batch * size, size, dtype=torch.int32, device=images.device)
    position = column.add_(row, alpha=width + 2).add_(first.view(-1, 1, 1)).view(-1)
    # One channel after another, so that all have the same positions.
    for channel in range(channels):
        levels = padded.view(-1)[channel * plane :].index_select(0, position)
        images[:, channel] = levels.view(batch, height, width)


def bilinear(images: Tensor, matrix: Tensor) -> Tensor:
    """Samples with bilinear interpolation, differentiable in both arguments.

    Shape:
        images [b, C, H, W] float, matrix [b, 6] -> like images.
    """
    height, width = images.shape[-2:]
    per_x, per_y, start = _steps(matrix)[..., None, None].unbind(2)
    x = counting(width, torch.float64, images.device)
    y = counting(height, torch.float64, images.device)[:, None]
    source_x, source_y = (per_x * x + per_y * y + start).unbind(1)
    # grid_sample's coordinates: -1 is the left edge of the first pixel, 1 the right edge of the last.
    grid = torch.stack([2 * source_x / width - 1, 2 * source_y / height - 1], 3).to(images.dtype)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _steps(matrix: Tensor) -> Tensor:
    """Steps of the source position per x and per y, and the source position of pixel (0, 0)'s centre.

    Shape:
        matrix [b, 6] -> [b, 2, 3]: of the source's x and y.
    """
    return matrix.view(-1, 2, 3) @ _to_pixel_centres(matrix.device)


@functools.cache
@torch.inference_mode(False)  # because `bilinear` differentiates, and the first caller may not
def _to_pixel_centres(device: torch.device) -> Tensor:
    """(a, b, c) -> (a, b, a / 2 + b / 2 + c), by multiplication from the right. Shape: -> [3, 3] float64."""
    return torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64, device=device)


@functools.cache
@torch.inference_mode(False)
def counting(stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0, 1, .. stop - 1; cached, because a batch needs it dozens of times. Shape: -> [stop]."""
    return torch.arange(stop, dtype=dtype, device=device)
