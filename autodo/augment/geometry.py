"""Operations that move pixels: each is an affine map from an output pixel to where it is read from.

A row [a, b, c, d, e, f] of `matrix` sends the centre (x, y) of an output pixel to (a x + b y + c, d x + e y + f) in the
source; pixel (0, 0) covers [0, 1) x [0, 1), y points down, and zeros move in. This is PIL's `Image.transform(AFFINE)`.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Fill = Callable[[Tensor, Tensor, int, int], None]
"""(matrix [b, 6], value [b], height, width): replaces entries of identity rows, differentiably in the value."""

FIXED_POINT_BITS = 16  # PIL's nearest sampling computes in 16.16 fixed point


def shear_x(matrix: Tensor, slope: Tensor, height: int, width: int) -> None:
    """Rows slide left by `slope` pixels per pixel downwards; the top edge stays."""
    matrix[:, 1] = slope


def shear_y(matrix: Tensor, slope: Tensor, height: int, width: int) -> None:
    """Columns slide up by `slope` pixels per pixel to the right; the left edge stays."""
    matrix[:, 3] = slope


def translate_x(matrix: Tensor, shift_frac: Tensor, height: int, width: int) -> None:
    """Left by a share of the width."""
    matrix[:, 2] = shift_frac.double() * width


def translate_y(matrix: Tensor, shift_frac: Tensor, height: int, width: int) -> None:
    """Up by a share of the height."""
    matrix[:, 5] = shift_frac.double() * height


def translate_x_pixels(matrix: Tensor, shift_px: Tensor, height: int, width: int) -> None:
    """Left by whole pixels; a fraction is cut off, as in torchvision."""
    matrix[:, 2] = shift_px.trunc()


def translate_y_pixels(matrix: Tensor, shift_px: Tensor, height: int, width: int) -> None:
    """Up by whole pixels; a fraction is cut off, as in torchvision."""
    matrix[:, 5] = shift_px.trunc()


def rotate(matrix: Tensor, angle_deg: Tensor, height: int, width: int) -> None:
    """Counter-clockwise about the centre."""
    angle = torch.deg2rad(angle_deg.double())
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = width / 2, height / 2
    matrix.copy_(torch.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y], 1))


def identity(batch: int, device: torch.device) -> Tensor:
    """Rows that move nothing. Shape: -> [batch, 6] float64."""
    matrix = torch.zeros(batch, 6, dtype=torch.float64, device=device)
    matrix[:, ::4] = 1
    return matrix


def nearest(images: Tensor, matrix: Tensor) -> Tensor:
    """Each pixel from the one that its centre falls into, as PIL does it.

    Equal to PIL bit for bit up to sides of 64 pixels; in larger images, float32 may take the neighbour of a pixel whose
    source lies within 1e-5 pixels of an edge.

    Shape:
        images [b, C, H, W] uint8, matrix [b, 6] -> like images.
    """
    # PIL's 16.16 fixed point; half a unit more, so that no source lies on an edge, where grid_sample would round to even.
    steps = matrix.view(-1, 2, 3) @ _to_pixel_centres(matrix.device)
    unit = 1 / (1 << FIXED_POINT_BITS)
    steps = (steps / unit + 0.5).floor_().mul_(unit)
    steps[:, :, 2] += unit / 2
    return _sample(images.float(), steps, "nearest").to(torch.int16).to(torch.uint8)


def bilinear(images: Tensor, matrix: Tensor) -> Tensor:
    """The same map with interpolation, differentiable in both arguments.

    Shape:
        images [b, C, H, W] float, matrix [b, 6] -> like images.
    """
    return _sample(images, matrix.view(-1, 2, 3) @ _to_pixel_centres(matrix.device), "bilinear")


def _sample(images: Tensor, steps: Tensor, mode: str) -> Tensor:
    """Shape: images [b, C, H, W] float, steps [b, 2, 3]: source (x, y) per pixel of x, of y, and of pixel (0, 0)."""
    height, width = images.shape[-2:]
    # grid_sample's coordinates: -1 is the left edge of the first pixel, 1 the right edge of the last.
    steps = steps * _side_scales(height, width, images.device)
    per_x, per_y, start = steps[..., None, None].unbind(2)
    x = counting(width, torch.float64, images.device)
    y = counting(height, torch.float64, images.device)[:, None]
    grid = (per_x * x).to(images.dtype) + (per_y * y + start - 1).to(images.dtype)
    return F.grid_sample(images, grid.permute(0, 2, 3, 1), mode=mode, padding_mode="zeros", align_corners=False)


@functools.cache
def _to_pixel_centres(device: torch.device) -> Tensor:
    """(a, b, c) -> (a, b, source of pixel (0, 0)'s centre), by multiplication from the right. Shape: -> [3, 3]."""
    rows = [[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]
    return torch.tensor(rows, dtype=torch.float64, device=device)


@functools.cache
def _side_scales(height: int, width: int, device: torch.device) -> Tensor:
    """Shape: -> [2, 1] float64."""
    return torch.tensor([[2 / width], [2 / height]], dtype=torch.float64, device=device)


@functools.cache
def counting(stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0, 1, .. stop - 1; kept, because a batch needs it dozens of times. Shape: -> [stop]."""
    return torch.arange(stop, dtype=dtype, device=device)
