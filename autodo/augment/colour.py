"""Operations on pixel values, on whole levels 0..255 as PIL computes them: uint8, changed in place.

Fractions are cut off where PIL cuts them off, so that a whole sequence of operations equals PIL's.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autodo.augment.geometry import counting

Base = Callable[[Tensor], Tensor]
"""Levels [b, C, H, W] float -> the image that an enhancement blends from, broadcastable to it."""

# Rec. 601 luma in PIL's 16-bit fixed point.
LUMA = (19595, 38470, 7471)
CUTOUT_FILL = (125, 123, 114)  # Fast AutoAugment's, the mean of CIFAR-10; grey images get its luma


def blend(images: Tensor, value: Tensor, bases: Sequence[tuple[Base, slice]]) -> None:
    """Blends to base + value (image - base), clipped: 0 is the base, 1 the image, more than 1 exaggerates.

    Args:
        bases: bases of consecutive groups of images.
    Shape:
        images [b, C, H, W] uint8, value [b].
    """
    levels = images.float()
    groups = [(levels[group], base(levels[group])) for base, group in bases]
    for blended, base in groups:
        blended.sub_(base)
    levels.mul_(value.view(-1, 1, 1, 1))
    for blended, base in groups:
        blended.add_(base)
    images.copy_(levels.to(torch.int16).clamp_(0, 255))


def blend_smooth(images: Tensor, value: Tensor, base: Base) -> Tensor:
    """Blends without the cut to whole levels, differentiable in images and value.

    Shape:
        images [b, C, H, W] float in [0, 1], value [b] -> like images.
    """
    levels = images * 255
    from_base = base(levels)
    return (from_base + value.to(levels.dtype).view(-1, 1, 1, 1) * (levels - from_base)).clamp(0, 255) / 255


def _cut(levels: Tensor) -> Tensor:
    """Converts float levels in [0, 256) to uint8; fractions are cut off."""
    return levels.to(torch.int16).to(torch.uint8)  # half the time of a cast in one step, on a CPU


def black(levels: Tensor) -> Tensor:
    """Base of Brightness."""
    return levels.new_zeros(())


def luma(levels: Tensor) -> Tensor:
    """Base of Color. Shape: [b, C, H, W] -> [b, 1, H, W]."""
    if levels.shape[1] == 1:
        return levels.clone()
    red, green, blue = levels.split(1, 1)
    # All sums are multiples of 2^-16 below 2^8, so float32 is exact.
    of_red, of_green, of_blue = (weight / (1 << 16) for weight in LUMA)
    return _whole((red * of_red).add_(green, alpha=of_green).add_(blue, alpha=of_blue).add_(0.5))


def mean_luma(levels: Tensor) -> Tensor:
    """Base of Contrast. Shape: [b, C, H, W] -> [b, 1, 1, 1]."""
    return _whole(luma(levels).mean((1, 2, 3), keepdim=True) + 0.5)


def smoothed(levels: Tensor) -> Tensor:
    """Base of Sharpness: weights 1 with 5 in the middle, over 13; the outermost pixels stay. Shape: as given."""
    batch, channels, height, width = levels.shape
    if min(height, width) < 3:  # nothing is inside
        return levels.clone()
    # Sums over the whole batch as one row of memory; those that reach over an image's edge are not used.
    row = levels.reshape(-1)
    three = (row[:-2] + row[1:-1]).add_(row[2:])
    nine = (three[: -2 * width] + three[width:-width]).add_(three[2 * width :])
    inner = _whole(nine.add_(row[width + 1 : -width - 1], alpha=4).mul_(1 / 13).add_(0.5))
    blurred = levels.clone()
    shape = batch, channels, height - 2, width - 2
    blurred[:, :, 1:-1, 1:-1] = inner.as_strided(shape, blurred.stride())
    return blurred


def _whole(levels: Tensor) -> Tensor:
    """Cuts fractions off; gradients pass straight through."""
    if levels.requires_grad:
        return levels + (levels.floor() - levels).detach()
    return levels.floor_()


def solarize(images: Tensor, threshold: Tensor) -> None:
    """Inverts levels from `threshold` (0..256) on. Shape: images [b, C, H, W] uint8, threshold [b]."""
    last_kept = threshold.ceil().to(torch.int16).view(-1, 1, 1, 1) - 1
    # The sign of the difference, spread over all bits: no comparison, which is slow on a CPU for uint8.
    images.bitwise_xor_((last_kept - images).bitwise_right_shift_(15).to(torch.uint8))


def posterize(images: Tensor, bits: Tensor) -> None:
    """Keeps the upper `bits` (1..8, a fraction cut off) of each level. Shape: images [b, C, H, W] uint8, bits [b]."""
    step = torch.exp2(8 - bits.floor())
    images.bitwise_and_((256 - step).to(torch.uint8).view(-1, 1, 1, 1))


def auto_contrast(images: Tensor, value: Tensor) -> None:
    """Stretches each channel to 0..255; a constant one stays. Shape: images [b, C, H, W] uint8."""
    lowest, highest = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    constant = lowest == highest
    # In float64 and in this order, because the cut turns each rounding error of PIL's into a level.
    lowest, highest = lowest.double().masked_fill_(constant, 0), highest.double().masked_fill_(constant, 255)
    scale = torch.full_like(lowest, 255) / (highest - lowest)  # `255 / span` would multiply by a rounded reciprocal
    images.copy_(images.double().mul_(scale).sub_(lowest * scale).to(torch.int16))


def equalize(images: Tensor, value: Tensor) -> None:
    """Flattens each channel's histogram, as PIL does; a channel of too few levels stays.

    A level goes to (step / 2 + number of pixels below it) / step with step = (number of pixels below the highest level)
    / 255, all divisions of whole numbers.

    Shape:
        images [b, C, H, W] uint8.
    """
    batch, channels = images.shape[:2]
    # Position of each pixel's level in a table [b, C, 256].
    starts = torch.arange(0, batch * channels * 256, 256, dtype=torch.int32, device=images.device)
    position = images.int().add_(starts.view(batch, channels, 1, 1)).view(-1)
    counts = position.new_zeros(batch * channels * 256)
    counts.index_add_(0, position, position.new_ones(1).expand(position.shape))
    # Whole numbers below 2^24, so float32 is exact, and so is the floor of a quotient.
    counts = counts.view(batch, channels, 256).float()
    below = counts.cumsum(2) - counts
    step = (below.gather(2, images.amax((2, 3))[..., None].long()) / 255).floor_()
    same = counting(256, torch.float32, images.device)
    mapped = below.add_((step / 2).floor_()).div_(step).clamp_(max=255)
    table = _cut(torch.where(step > 0, mapped, same))
    images.copy_(table.view(-1).index_select(0, position).view(images.shape))


def cutout(images: Tensor, side_frac: Tensor, centre: Tensor) -> None:
    """Fills a square of `side_frac` of the width with grey; it grows right and down from its clipped corner.

    Shape:
        images [b, C, H, W] uint8, side_frac [b], centre [b, 2] in [0, 1): (x, y) as shares.
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
    images.bitwise_xor_((images ^ fill).bitwise_and_(hidden.to(torch.uint8).mul_(255)))


@functools.cache
@torch.inference_mode(False)
def _fill(channels: int, device: torch.device) -> Tensor:
    """CUTOUT_FILL, or its luma for grey images. Shape: -> [channels, 1, 1] uint8."""
    grey = (sum(weight * level for weight, level in zip(LUMA, CUTOUT_FILL, strict=True)) + (1 << 15)) >> 16
    levels = CUTOUT_FILL if channels == 3 else (grey,)
    return torch.tensor(levels, dtype=torch.uint8, device=device).view(-1, 1, 1)
