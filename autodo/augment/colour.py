"""Operations on pixel values, on whole levels 0..255 as PIL computes them: uint8 in, uint8 out.

Fractions are cut off where PIL cuts them off, so that a whole sequence of operations gives what PIL gives.
"""

from collections.abc import Callable

import torch
from torch import Tensor

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
    # The cast cuts off the fraction, as PIL does.
    return _blend(levels, value, base(levels)).to(torch.uint8)


def enhance_smooth(images: Tensor, value: Tensor, base: Base) -> Tensor:
    """The same without the cut to whole levels, differentiable in both arguments.

    Shape:
        images [b, C, H, W] float in [0, 1], value [b] -> like images.
    """
    levels = images * 255
    return _blend(levels, value.to(levels.dtype), base(levels)) / 255


def _blend(levels: Tensor, value: Tensor, base: Tensor) -> Tensor:
    return (base + value.view(-1, 1, 1, 1) * (levels - base)).clamp(0, 255)


def black(levels: Tensor) -> Tensor:
    """Base of Brightness."""
    return levels.new_zeros(())


def luma(levels: Tensor) -> Tensor:
    """Base of Color. Shape: [b, C, H, W] -> [b, 1, H, W]."""
    if levels.shape[1] == 1:
        return levels
    red, green, blue = levels.split(1, 1)
    # All sums stay below 2^24, so float32 is exact.
    return _whole((LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + (1 << 15)) / (1 << 16))


def mean_luma(levels: Tensor) -> Tensor:
    """Base of Contrast. Shape: [b, C, H, W] -> [b, 1, 1, 1]."""
    return _whole(luma(levels).mean((1, 2, 3), keepdim=True) + 0.5)


def smoothed(levels: Tensor) -> Tensor:
    """Base of Sharpness: weights 1 with 5 in the middle, over 13; the outermost pixels stay. Shape: as given."""
    rows = levels[..., :-2, :] + levels[..., 1:-1, :] + levels[..., 2:, :]
    square = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = levels[..., 1:-1, 1:-1]
    result = levels.clone()
    result[..., 1:-1, 1:-1] = _whole((square + 4 * inner) / 13 + 0.5)
    return result


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
    whole = threshold.ceil().view(-1, 1, 1, 1).to(torch.int16)
    return torch.where(images < whole, images, images.bitwise_not())


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Only the upper `bits` (1..8, a fraction cut off) of a level stay. Shape: images [b, C, H, W] uint8, bits [b]."""
    step = torch.exp2(8 - bits.floor())
    return images & (256 - step).to(torch.uint8).view(-1, 1, 1, 1)


def auto_contrast(images: Tensor, value: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a constant one stays. Shape: images [b, C, H, W] uint8 -> the same."""
    lowest = images.amin((2, 3), keepdim=True)
    highest = images.amax((2, 3), keepdim=True)
    # In float64 and in this order, because the cut makes a level of each rounding error of PIL's.
    span = (highest - lowest).double()
    scale = torch.full_like(span, 255) / span  # `255 / span` would multiply by a rounded reciprocal
    stretched = (images * scale - lowest * scale).clamp_(0, 255).to(torch.uint8)
    return torch.where(highest > lowest, stretched, images)


def equalize(images: Tensor, value: Tensor) -> Tensor:
    """Each channel's histogram made flat, as PIL does; one of too few levels stays.

    A level goes to (step / 2 + number of pixels below it) / step with step = (number of pixels below the highest level)
    / 255, all divisions of whole numbers.

    Shape:
        images [b, C, H, W] uint8 -> the same.
    """
    batch, channels = images.shape[:2]
    table = batch * channels
    offset = 256 * torch.arange(table, device=images.device).view(batch, channels, 1, 1)
    position = (images + offset).view(-1)
    ones = torch.ones(1, device=images.device).expand(position.shape)
    # Counts are whole numbers below 2^24, so float32 is exact, and so is the floor of a quotient.
    counts = torch.zeros(256 * table, device=images.device).scatter_add_(0, position, ones).view(table, 256)
    below = counts.cumsum(1) - counts
    highest = images.amax((2, 3)).view(table, 1).long()
    step = (below.gather(1, highest) / 255).floor_()
    mapped = ((below + (step / 2).floor_()) / step).floor_().clamp_(max=255)
    same = torch.arange(256, device=images.device, dtype=mapped.dtype)
    mapped = torch.where(step > 0, mapped, same).to(torch.uint8)
    return mapped.view(-1).index_select(0, position).view(images.shape)


def cutout(images: Tensor, side_frac: Tensor, centre: Tensor) -> Tensor:
    """A square of `side_frac` of the width filled with a grey; it grows right and down from its clipped corner.

    Shape:
        images [b, C, H, W] uint8, side_frac [b], centre [b, 2] in [0, 1): (x, y) as shares -> images.
    """
    _, channels, height, width = images.shape
    side = side_frac.double() * width

    def covered(share: Tensor, size: int) -> Tensor:
        first = (share.double() * size - side / 2).clamp(min=0).floor()
        last = (first + side).clamp(max=size).floor()  # PIL's rectangles include their last pixel
        position = torch.arange(size, device=images.device)
        return (position >= first[:, None]) & (position <= last[:, None]) & (side[:, None] > 0)

    hidden = covered(centre[:, 1], height)[:, None, :, None] & covered(centre[:, 0], width)[:, None, None, :]
    fill = CUTOUT_FILL if channels == 3 else (_grey_of(CUTOUT_FILL),)
    return torch.where(hidden, images.new_tensor(fill).view(1, -1, 1, 1), images)


def _grey_of(colour: tuple[int, int, int]) -> int:
    return (sum(weight * level for weight, level in zip(LUMA, colour, strict=True)) + (1 << 15)) >> 16
