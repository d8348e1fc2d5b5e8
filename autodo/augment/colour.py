"""Operations on pixel values, on whole levels 0..255 as PIL computes them: uint8 in, uint8 out.

Fractions are cut off where PIL cuts them off, so that a whole sequence of operations gives what PIL gives.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from autodo.augment.geometry import counting

Base = Callable[[Tensor], Tensor]
"""Levels [b, C, H, W] float -> what an enhancement blends from, broadcastable to it."""

# Rec. 601 luma in PIL's 16-bit fixed point.
LUMA = (19595, 38470, 7471)
CUTOUT_FILL = (125, 123, 114)  # Fast AutoAugment's, the mean of CIFAR-10; grey images get its luma


def enhance(images: Tensor, value: Tensor, base: Base) -> Tensor:
    """base + value (image - base), clipped: 0 is the base, 1 the image, more than 1 exaggerates.

    Shape:
        images [b, C, H, W] uint8, value [b] -> like images.
    """
    levels = images.float()
    from_base = base(levels)
    blended = (levels - from_base).mul_(value.view(-1, 1, 1, 1)).add_(from_base).clamp_(0, 255)
    return _cut(blended)


def enhance_smooth(images: Tensor, value: Tensor, base: Base) -> Tensor:
    """The same without the cut to whole levels, differentiable in both arguments.

    Shape:
        images [b, C, H, W] float in [0, 1], value [b] -> like images.
    """
    levels = images * 255
    from_base = base(levels)
    return (from_base + value.to(levels.dtype).view(-1, 1, 1, 1) * (levels - from_base)).clamp(0, 255) / 255


def _cut(levels: Tensor) -> Tensor:
    """Float levels in [0, 256) as uint8, fractions cut off."""
    return levels.to(torch.int16).to(torch.uint8)  # half the time of a cast in one step, on a CPU


def black(levels: Tensor) -> Tensor:
    """Base of Brightness."""
    return levels.new_zeros(())


def luma(levels: Tensor) -> Tensor:
    """Base of Color. Shape: [b, C, H, W] -> [b, 1, H, W]."""
    if levels.shape[1] == 1:
        return levels
    red, green, blue = levels.split(1, 1)
    # All sums stay below 2^24, so float32 is exact.
    total = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return _whole(total.add_(1 << 15).mul_(2**-16))


def mean_luma(levels: Tensor) -> Tensor:
    """Base of Contrast. Shape: [b, C, H, W] -> [b, 1, 1, 1]."""
    return _whole(luma(levels).mean((1, 2, 3), keepdim=True) + 0.5)


def smoothed(levels: Tensor) -> Tensor:
    """Base of Sharpness: weights 1 with 5 in the middle, over 13; the outermost pixels stay. Shape: as given."""
    height, width = levels.shape[-2:]
    # Sums over the whole batch as one row of memory; those that reach over an image's edge are not used.
    row = levels.reshape(-1)
    three = row[:-2] + row[1:-1] + row[2:]
    nine = three[: -2 * width] + three[width:-width] + three[2 * width :]
    inner = _whole(nine.add_(row[width + 1 : -width - 1], alpha=4).div_(13).add_(0.5))
    blurred = F.pad(inner, (width + 1, width + 1)).view(levels.shape)
    return levels.lerp(blurred, _inside(height, width, levels.dtype, levels.device))


@functools.cache
def _inside(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 for the outermost pixels, 1 for all others. Shape: -> [height, width]."""
    inside = torch.zeros(height, width, dtype=dtype, device=device)
    inside[1:-1, 1:-1] = 1
    return inside


def _whole(levels: Tensor) -> Tensor:
    """Fractions cut off; gradients pass as if they were not (straight-through)."""
    if levels.requires_grad:
        return levels + (levels.floor() - levels).detach()
    return levels.floor_()


def invert(images: Tensor, value: Tensor) -> Tensor:
    """255 - level. Shape: images [b, C, H, W] uint8 -> the same."""
    return images.bitwise_not()


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Levels from `threshold` (0..256) on are inverted. Shape: images [b, C, H, W] uint8, threshold [b] -> images."""
    last_kept = threshold.ceil().to(torch.int16).view(-1, 1, 1, 1) - 1
    # The sign of the difference, spread over all bits: no comparison, which is slow on a CPU for uint8.
    inverted = (last_kept - images).bitwise_right_shift_(15).to(torch.uint8)
    return inverted.bitwise_xor_(images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Only the upper `bits` (1..8, a fraction cut off) of a level stay. Shape: images [b, C, H, W] uint8, bits [b]."""
    step = torch.exp2(8 - bits.floor())
    return images & (256 - step).to(torch.uint8).view(-1, 1, 1, 1)


def auto_contrast(images: Tensor, value: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a constant one stays. Shape: images [b, C, H, W] uint8 -> the same."""
    lowest, highest = images.amin((2, 3)), images.amax((2, 3))
    # In float64 and in this order, because the cut makes a level of each rounding error of PIL's.
    lowest, highest = lowest.double()[..., None], highest.double()[..., None]
    scale = torch.full_like(lowest, 255) / (highest - lowest)  # `255 / span` would multiply by a rounded reciprocal
    same = counting(256, torch.float64, images.device)
    stretched = (same * scale).sub_(lowest * scale).clamp_(0, 255)
    return _look_up(torch.where(highest > lowest, stretched, same), images)


def _look_up(table: Tensor, images: Tensor) -> Tensor:
    """Each level replaced. Shape: table [b, C, 256] float in [0, 256), images [b, C, H, W] uint8 -> images."""
    return _cut(table).view(-1).index_select(0, _positions(images, torch.int32).view(-1)).view(images.shape)


def _positions(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Where each pixel's level stands in a table [b, C, 256]. Shape: as images."""
    starts = counting(images.shape[0] * images.shape[1], dtype, images.device) * 256
    return images + starts.view(*images.shape[:2], 1, 1)


def equalize(images: Tensor, value: Tensor) -> Tensor:
    """Each channel's histogram made flat, as PIL does; one of too few levels stays.

    A level goes to (step / 2 + number of pixels below it) / step with step = (number of pixels below the highest level)
    / 255, all divisions of whole numbers.

    Shape:
        images [b, C, H, W] uint8 -> the same.
    """
    batch, channels = images.shape[:2]
    position = _positions(images, torch.int64).view(-1)
    # Counts are whole numbers below 2^24, so float32 is exact, and so is the floor of a quotient.
    ones = torch.ones(1, device=images.device).expand(position.shape)
    counts = torch.zeros(batch * channels * 256, device=images.device).scatter_add_(0, position, ones)
    counts = counts.view(batch, channels, 256)
    below = counts.cumsum(2) - counts
    step = (below.gather(2, images.amax((2, 3))[..., None].long()) / 255).floor_()
    same = counting(256, torch.float32, images.device)
    mapped = ((below + (step / 2).floor_()) / step).clamp_(max=255)
    table = _cut(torch.where(step > 0, mapped, same))
    return table.view(-1).index_select(0, position).view(images.shape)


def cutout(images: Tensor, side_frac: Tensor, centre: Tensor) -> Tensor:
    """A square of `side_frac` of the width filled with a grey; it grows right and down from its clipped corner.

    Shape:
        images [b, C, H, W] uint8, side_frac [b], centre [b, 2] in [0, 1): (x, y) as shares -> images.
    """
    _, channels, height, width = images.shape
    side = side_frac.double() * width
    pixels = (side + (side > 0)).floor_()[:, None]  # PIL's rectangles include their last pixel

    def covered(share: Tensor, size: int) -> Tensor:
        first = (share.double() * size).sub_(side, alpha=0.5).clamp_(min=0).floor_()[:, None]
        beyond = counting(size, torch.float64, images.device) - first
        return (beyond >= 0) & (beyond < pixels)

    fill = _fill(channels, images.device)
    hidden = covered(centre[:, 1], height)[:, None, :, None] & covered(centre[:, 0], width)[:, None, None, :]
    # 255 where hidden: exchanges all bits there.
    return (images ^ fill).bitwise_and_(hidden.to(torch.uint8).mul_(255)).bitwise_xor_(images)


@functools.cache
def _fill(channels: int, device: torch.device) -> Tensor:
    """CUTOUT_FILL, or its luma for grey images. Shape: -> [channels, 1, 1] uint8."""
    grey = (sum(weight * level for weight, level in zip(LUMA, CUTOUT_FILL, strict=True)) + (1 << 15)) >> 16
    levels = CUTOUT_FILL if channels == 3 else (grey,)
    return torch.tensor(levels, dtype=torch.uint8, device=device).view(-1, 1, 1)
