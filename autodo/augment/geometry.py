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
    matrix[:, 2] = _whole(shift_px)


def translate_y_pixels(matrix: Tensor, shift_px: Tensor, height: int, width: int) -> None:
    """Up by whole pixels; a fraction is cut off, as in torchvision."""
    matrix[:, 5] = _whole(shift_px)


def _whole(shift_px: Tensor) -> Tensor:
    """The fraction cut off; gradients pass as if it were not."""
    return shift_px + (shift_px.trunc() - shift_px).detach()


def rotate(matrix: Tensor, angle_deg: Tensor, height: int, width: int) -> None:
    """Counter-clockwise about the centre."""
    angle = torch.deg2rad(angle_deg.double())
    parts = torch.stack([torch.cos(angle), torch.sin(angle)], 1)
    constant, of_parts = _rotations(height, width, matrix.device)
    matrix.copy_(torch.addmm(constant, parts, of_parts))


@functools.cache
@torch.inference_mode(False)
def _rotations(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A rotation about the centre (x, y) as constant + cos first + sin second. Shape: -> [6], [2, 6] float64."""
    x, y = width / 2, height / 2
    of_parts = [[1, 0, -x, 0, 1, -y], [0, -1, y, 1, 0, -x]]
    constant = torch.tensor([0, 0, x, 0, 0, y], dtype=torch.float64, device=device)
    return constant, torch.tensor(of_parts, dtype=torch.float64, device=device)


def identity(batch: int, device: torch.device) -> Tensor:
    """Rows that move nothing. Shape: -> [batch, 6] float64."""
    matrix = torch.zeros(batch, 6, dtype=torch.float64, device=device)
    matrix[:, ::4] = 1
    return matrix


def sample(images: Tensor, matrix: Tensor) -> None:
    """Each pixel from the one that its centre falls into, in place; equal to PIL bit for bit.

    Shape:
        images [b, C, H, W] of any dtype, matrix [b, 6].
    """
    batch, channels, height, width = images.shape
    steps = _steps(matrix).transpose(0, 1).contiguous()
    fixed = steps.mul_(1 << FIXED_POINT_BITS).add_(0.5).floor_().int()
    per_x, per_y, start = fixed[..., None, None].unbind(2)
    x = counting(width, torch.int32, images.device)
    y = counting(height, torch.int32, images.device)[:, None]
    source = ((start + per_y * y) + per_x * x).bitwise_right_shift_(FIXED_POINT_BITS)
    column, row = source[0].clamp_(-1, width), source[1].clamp_(-1, height)
    # What lies outside is read from a border of zeros.
    padded = F.pad(images, (1, 1, 1, 1))
    plane = (height + 2) * (width + 2)
    first = counting(batch, torch.int32, images.device) * (channels * plane) + (width + 3)
    position = column.add_(row, alpha=width + 2).add_(first.view(-1, 1, 1)).view(-1)
    # One channel after another with the same positions, which are computed once and stay four bytes wide.
    for channel in range(channels):
        levels = padded.view(-1)[channel * plane :].index_select(0, position)
        images[:, channel] = levels.view(batch, height, width)


def bilinear(images: Tensor, matrix: Tensor) -> Tensor:
    """The same map with interpolation, differentiable in both arguments.

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
    """Where pixels are read from: steps of the source per x and per y, and the source of pixel (0, 0)'s centre.

    Shape:
        matrix [b, 6] -> [b, 2, 3]: of the source's x and y.
    """
    return matrix.view(-1, 2, 3) @ _to_pixel_centres(matrix.device)


@functools.cache
@torch.inference_mode(False)
def _to_pixel_centres(device: torch.device) -> Tensor:
    """(a, b, c) -> (a, b, a / 2 + b / 2 + c), by multiplication from the right. Shape: -> [3, 3] float64."""
    return torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64, device=device)


@functools.cache
@torch.inference_mode(False)
def counting(stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0, 1, .. stop - 1; kept, because a batch needs it dozens of times. Shape: -> [stop]."""
    return torch.arange(stop, dtype=dtype, device=device)
