"""Operations that move pixels: each is an affine map from an output pixel to where it is read from.

A row [a, b, c, d, e, f] of `matrix` sends the centre (x, y) of an output pixel to (a x + b y + c, d x + e y + f) in the
source; pixel (0, 0) covers [0, 1) x [0, 1), y points down, and zeros move in. This is PIL's `Image.transform(AFFINE)`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Matrix = Callable[[Tensor, int, int], Tensor]
"""(value [b], height, width) -> matrix [b, 6] float64, differentiable in the value."""

FIXED_POINT = 1 << 16  # PIL's nearest sampling computes in 16.16 fixed point


def shear_x(slope: Tensor, height: int, width: int) -> Tensor:
    """Rows slide left by `slope` pixels per pixel downwards; the top edge stays."""
    return _matrix(slope, b=slope)


def shear_y(slope: Tensor, height: int, width: int) -> Tensor:
    """Columns slide up by `slope` pixels per pixel to the right; the left edge stays."""
    return _matrix(slope, d=slope)


def translate_x(shift_frac: Tensor, height: int, width: int) -> Tensor:
    """Left by a share of the width."""
    return _matrix(shift_frac, c=shift_frac * width)


def translate_y(shift_frac: Tensor, height: int, width: int) -> Tensor:
    """Up by a share of the height."""
    return _matrix(shift_frac, f=shift_frac * height)


def translate_x_pixels(shift_px: Tensor, height: int, width: int) -> Tensor:
    """Left by whole pixels; a fraction is cut off, as in torchvision."""
    return _matrix(shift_px, c=shift_px.trunc())


def translate_y_pixels(shift_px: Tensor, height: int, width: int) -> Tensor:
    """Up by whole pixels; a fraction is cut off, as in torchvision."""
    return _matrix(shift_px, f=shift_px.trunc())


def rotate(angle_deg: Tensor, height: int, width: int) -> Tensor:
    """Counter-clockwise about the centre."""
    angle = torch.deg2rad(angle_deg.double())
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = width / 2, height / 2
    return _matrix(cos, a=cos, b=-sin, c=x - cos * x + sin * y, d=sin, e=cos, f=y - sin * x - cos * y)


def _matrix(like: Tensor, **entries: Tensor) -> Tensor:
    """Rows of the identity with some entries replaced."""
    zero, one = torch.zeros_like(like, dtype=torch.float64), torch.ones_like(like, dtype=torch.float64)
    identity = {"a": one, "b": zero, "c": zero, "d": zero, "e": one, "f": zero}
    return torch.stack([entry.double() for entry in (identity | entries).values()], 1)


def nearest(images: Tensor, matrix: Tensor) -> Tensor:
    """Each pixel from the one that its centre falls into; equal to PIL bit for bit.

    Shape:
        images [b, C, H, W] of any dtype, matrix [b, 6] -> like images.
    """
    batch, channels, height, width = images.shape
    x_row, y_row = matrix[:, :3], matrix[:, 3:]
    column = _source_positions(x_row, height, width).clamp_(-1, width)
    row = _source_positions(y_row, height, width).clamp_(-1, height)
    # What lies outside is read from a border of zeros.
    padded = images.new_zeros(batch, channels, height + 2, width + 2)
    padded[:, :, 1:-1, 1:-1] = images
    position = row.mul_(width + 2).add_(column).add_(width + 3).long()
    position = position.view(batch, 1, height * width).expand(-1, channels, -1)
    return padded.view(batch, channels, -1).gather(2, position).view(images.shape)


def _source_positions(row: Tensor, height: int, width: int) -> Tensor:
    """Shape: row [b, 3] of a matrix -> [b, H, W] int32: pixel along one axis, possibly outside the image."""
    per_x, per_y, start = row.unbind(1)
    start = start + per_x / 2 + per_y / 2
    per_x, per_y, start = torch.stack([per_x, per_y, start]).mul_(FIXED_POINT).add_(0.5).floor_().int()[..., None, None]
    x = torch.arange(width, dtype=torch.int32, device=row.device)
    y = torch.arange(height, dtype=torch.int32, device=row.device)[:, None]
    return ((start + per_y * y) + per_x * x).bitwise_right_shift_(16)


def bilinear(images: Tensor, matrix: Tensor) -> Tensor:
    """The same map with interpolation, differentiable in both arguments.

    Shape:
        images [b, C, H, W] float, matrix [b, 6] -> like images.
    """
    _, _, height, width = images.shape
    x = torch.arange(width, device=images.device, dtype=matrix.dtype) + 0.5
    y = (torch.arange(height, device=images.device, dtype=matrix.dtype) + 0.5)[:, None]
    a, b, c, d, e, f = matrix[:, :, None, None].unbind(1)
    # grid_sample's coordinates: -1 is the left edge of the first pixel, 1 the right edge of the last.
    grid = torch.stack([2 * (a * x + b * y + c) / width - 1, 2 * (d * x + e * y + f) / height - 1], 3)
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
