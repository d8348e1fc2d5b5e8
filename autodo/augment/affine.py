"""The differentiable per-point augmentation g_A: seven gated random operations composed into one affine warp.

A point's row lam^A [14] holds a magnitude logit and a gate logit per operation. Each operation draws a magnitude
N(0, (range * sigmoid(lam))^2) and passes a Bernoulli gate of probability sigmoid(lam). Both draws are written as
fixed noise passed through lam, so the warped image is differentiable in lam. With a full covariance, a row has 21 more
numbers, one for each pair of operations, which correlate the magnitudes.
Reference: Gudovskiy et al. 2021, section 4.1 and 5.1.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from autodo.augment.borders import PADDING_MODES
from autodo.config.bilevel import CovarianceName, WarpName
from autodo.config.run import BorderName

# Operation -> largest standard deviation of its magnitude, in order of a row's columns.
# Angles in radians, translations in shares of the side, scales as logarithms, shears as slopes.
WARP_OPERATIONS = {
    "rotate": math.radians(30),
    "scale-x": 0.5,
    "scale-y": 0.5,
    "translate-x": 0.45,
    "translate-y": 0.45,
    "shear-x": 0.3,
    "shear-y": 0.3,
}
COUNT = len(WARP_OPERATIONS)
COLUMNS = 2 * COUNT
"""Columns of a row, unless the covariance is full."""
PAIRS = COUNT * (COUNT - 1) // 2


class WarpNoise(NamedTuple):
    """Random numbers of a warp: `normal` and `logistic`, both [B, 7]."""

    normal: Tensor
    logistic: Tensor


def initial_row(gate_probability: float, covariance: CovarianceName = "diagonal") -> Tensor:
    """Initial lam^A: magnitudes in the middle of their range, without correlation; gates of the given probability.

    Shape:
        -> [14], or [35] with a full covariance.
    """
    gate_logit = math.log(gate_probability / (1 - gate_probability))
    pairs = torch.zeros(PAIRS if covariance == "full" else 0)
    return torch.cat([torch.zeros(COUNT), torch.full((COUNT,), gate_logit), pairs])


def magnitude_deviation(lam: Tensor) -> Tensor:
    """Standard deviation of each operation's magnitude. Shape: lam [B, 14 or 35] -> [B, 7]."""
    return _ranges(lam.dtype, lam.device) * torch.sigmoid(lam[:, :COUNT])


@functools.cache
def _ranges(dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached, because a copy from the host to a GPU at every step would make the host wait.
    return torch.tensor(list(WARP_OPERATIONS.values()), dtype=dtype, device=device)


def gate_probability(lam: Tensor) -> Tensor:
    """Probability of each operation. Shape: lam [B, 14 or 35] -> [B, 7]."""
    return torch.sigmoid(_gate_logits(lam))


def correlation_factor(lam: Tensor) -> Tensor:
    """Cholesky factor L of the correlation matrix L L' of the magnitudes.

    Row a of L is (lam_a1, ..., lam_a(a-1), 1, 0, ..., 0), divided by its length. So L is the identity at lam = 0, every
    positive definite correlation matrix has exactly one lam, and lam does not change the standard deviations.

    Shape:
        lam [B, 35] -> [B, 7, 7], lower triangular.
    """
    numbers = torch.cat([lam.new_zeros(len(lam), 1), lam.new_ones(len(lam), 1), lam[:, COLUMNS:]], 1)
    rows = numbers.index_select(1, _places(lam.device)).view(-1, COUNT, COUNT)
    return rows / rows.square().sum(2, keepdim=True).sqrt()


@functools.cache
def _places(device: torch.device) -> Tensor:
    """Place of each entry of a lower triangular matrix with ones on its diagonal in (0, 1, pairs). Shape: -> [49]."""
    places = torch.eye(COUNT, dtype=torch.int64)
    places[*torch.tril_indices(COUNT, COUNT, -1)] = torch.arange(2, 2 + PAIRS)
    return places.view(-1).to(device)


def _gate_logits(lam: Tensor) -> Tensor:
    return lam[:, COUNT:COLUMNS]


def draw_noise(batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> WarpNoise:
    """Noise for a batch, on the generator's device."""
    shape = (batch, COUNT)
    normal = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
    uniform = torch.rand(shape, generator=generator, device=generator.device, dtype=dtype)
    eps = torch.finfo(dtype).eps
    return WarpNoise(normal, torch.logit(uniform, eps=eps))


def magnitudes(lam: Tensor, noise: WarpNoise, temperature: float = 0.5) -> Tensor:
    """Gated magnitude of each operation; exactly 0 where the gate is closed.

    Before the gates, the magnitudes are S L eps for standard deviations S, the factor L of their correlation and normal
    noise eps; with a diagonal covariance L is the identity.
    The gate is open (1) if its logit plus logistic noise is positive: a Bernoulli draw of probability sigmoid(logit).
    Its derivative is that of the relaxed gate sigmoid((logit + noise) / temperature) (straight-through).

    Args:
        temperature: of the relaxed gate; it does not change the magnitudes, only their derivative.
    Shape:
        lam [B, 14 or 35] -> [B, 7].
    """
    relaxed = torch.sigmoid((_gate_logits(lam) + noise.logistic) / temperature)
    hard = (relaxed > 0.5).to(relaxed.dtype)
    gate = hard + relaxed - relaxed.detach()
    normal = noise.normal
    if lam.shape[1] > COLUMNS:
        # A sum instead of a matrix product: exactly the noise itself where L is the identity, on every device.
        normal = (correlation_factor(lam) * normal[:, None]).sum(2)
    return gate * magnitude_deviation(lam) * normal


def warp(images: Tensor, magnitude: Tensor, border: BorderName = "zeros") -> Tensor:
    """Warps images about their centre by translate(rotate(shear(scale(x)))), as one bilinear sampling.

    A point at pixel offset v from the centre moves to R Sx Sy S v + t: counter-clockwise rotation by an angle in
    radians, slopes of shear, scale factors exp(magnitude) (the paper's 1 + m to first order, and always positive),
    then a translation in shares of the side, x to the right and y down. What moves in is zeros or the nearest
    pixel of the image, by `border`.

    Shape:
        images [B, C, H, W] float, magnitude [B, 7] -> [B, C, H, W].
    """
    height, width = images.shape[-2:]
    grid = sampling_grid(sampling_maps(magnitude, height, width), height, width)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=PADDING_MODES[border], align_corners=False)


def warp_with_kornia(images: Tensor, magnitude: Tensor, border: BorderName = "zeros") -> Tensor:
    """The same warp, composed of kornia's matrices and sampled by kornia's `warp_affine`.

    kornia works in pixels, where the first one's centre is (0, 0). It turns counter-clockwise by degrees and shears by
    the negative tangent of an angle, along x before y; its shears are applied one at a time here, in the order of
    `warp`.

    Shape:
        images [B, C, H, W] float, magnitude [B, 7] -> [B, C, H, W].
    """
    # Imported here because it takes half a second, which only runs with this setting should pay.
    from kornia.geometry.conversions import convert_affinematrix_to_homography
    from kornia.geometry.transform import (
        get_rotation_matrix2d,
        get_shear_matrix2d,
        get_translation_matrix2d,
        warp_affine,
    )

    height, width = images.shape[-2:]
    angle, scale_x, scale_y, shift_x, shift_y, shear_x, shear_y = magnitude.unbind(1)
    middle = torch.stack([torch.full_like(angle, (width - 1) / 2), torch.full_like(angle, (height - 1) / 2)], 1)
    scale = torch.stack([scale_x, scale_y], 1).exp()
    rotate = get_rotation_matrix2d(middle, torch.rad2deg(angle), torch.ones_like(scale))
    enlarge = get_rotation_matrix2d(middle, torch.zeros_like(angle), scale)
    matrix = (
        get_translation_matrix2d(torch.stack([width * shift_x, height * shift_y], 1))
        @ convert_affinematrix_to_homography(rotate)
        @ get_shear_matrix2d(middle, sx=-torch.atan(shear_x))
        @ get_shear_matrix2d(middle, sy=-torch.atan(shear_y))
        @ convert_affinematrix_to_homography(enlarge)
    )
    padding_mode = PADDING_MODES[border]
    return warp_affine(images, matrix[:, :2], (height, width), padding_mode=padding_mode, align_corners=False)


WARPS: dict[WarpName, Callable[[Tensor, Tensor, BorderName], Tensor]] = {"fused": warp, "kornia": warp_with_kornia}
"""Implementations of the warp, by the setting `points.warp`."""


def sampling_maps(magnitude: Tensor, height: int, width: int) -> Tensor:
    """The inverse of the map of `warp`: from each output pixel to the position that it is read from.

    Shape:
        magnitude [B, 7] -> [B, 2, 3], for grid_sample's coordinates of [-1, 1] on each side.
    """
    angle, scale_x, scale_y, shift_x, shift_y, shear_x, shear_y = magnitude.unbind(1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    # Sampling needs the inverse map: undo the translation, then the rotation, the shears and the scale.
    # Rows of S^-1 Sy^-1 Sx^-1 R^-1, with Sx = [[1, a], [0, 1]], Sy = [[1, 0], [b, 1]]; y points down.
    x_row = (cos - shear_x * sin, -sin - shear_x * cos)
    y_row = (sin - shear_y * x_row[0], cos - shear_y * x_row[1])
    shrink_x, shrink_y = torch.exp(-scale_x), torch.exp(-scale_y)
    # grid_sample works in coordinates of [-1, 1] on each side: pixels times 2/W and 2/H.
    a, b = shrink_x * x_row[0], shrink_x * x_row[1] * (height / width)
    c, d = shrink_y * y_row[0] * (width / height), shrink_y * y_row[1]
    move_x, move_y = 2 * shift_x, 2 * shift_y
    return torch.stack(
        [
            torch.stack([a, b, -(a * move_x + b * move_y)], 1),
            torch.stack([c, d, -(c * move_x + d * move_y)], 1),
        ],
        1,
    )


def sampling_grid(maps: Tensor, height: int, width: int) -> Tensor:
    """Source position of each output pixel: `F.affine_grid(..., align_corners=False)` as one product of matrices.

    F.affine_grid multiplies image by image, which takes longer in each direction.

    Shape:
        maps [B, 2, 3] -> [B, height, width, 2], both in coordinates of [-1, 1] on each side.
    """
    grid = maps.reshape(-1, 3) @ _positions(height, width, maps.dtype, maps.device)
    return grid.view(-1, 2, height, width).permute(0, 2, 3, 1)


@functools.cache
@torch.inference_mode(False)
def _positions(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(x, y, 1) of every pixel's centre in grid_sample's coordinates. Shape: -> [3, H * W]."""
    identity = torch.eye(2, 3, dtype=dtype, device=device)[None]
    grid = F.affine_grid(identity, [1, 1, height, width], align_corners=False)
    return torch.cat([grid.view(-1, 2), grid.new_ones(height * width, 1)], 1).T.contiguous()
