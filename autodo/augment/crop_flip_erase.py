"""Standard augmentation of a whole batch at once: random crop, horizontal flip, random erasing."""

import math

import torch
from torch import Tensor

from autodo.augment.borders import pad
from autodo.config.run import BorderName

SMALLEST_ERASED = 0.02
"""Smallest share of an image that is erased."""


def crop_and_flip(
    images: Tensor, padding: int, flip: bool, generator: torch.Generator, border: BorderName = "zeros"
) -> Tensor:
    """Shifts each image by up to `padding` pixels and, if `flip`, mirrors it with probability 1/2.

    Args:
        border: pixels that move in: zeros, or the nearest pixel of the image.
    Shape:
        images [B, C, H, W] of any dtype -> the same.
    """
    batch, channels, height, width = images.shape
    device = images.device
    top = torch.randint(2 * padding + 1, (batch, 1), generator=generator, device=device)
    left = torch.randint(2 * padding + 1, (batch, 1), generator=generator, device=device)
    rows = top + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(batch, width)
    if flip:
        mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    columns = left + columns
    padded = pad(images, padding, border)
    plane = padded.shape[-2] * padded.shape[-1]
    first = torch.arange(0, padded.numel(), channels * plane, device=device)[:, None, None]
    position = (first + rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).int().view(-1)
    # One channel after another, so that all have the same positions: a quarter of the time of advanced indices.
    cropped = torch.empty_like(images, memory_format=torch.contiguous_format)
    for channel in range(channels):
        pixels = padded.view(-1)[channel * plane :].index_select(0, position)
        cropped[:, channel] = pixels.view(batch, height, width)
    return cropped


def erase(
    images: Tensor,
    probability: float,
    generator: torch.Generator,
    area: tuple[float, float] = (SMALLEST_ERASED, 0.4),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Tensor:
    """Sets a random rectangle of each image to zero, with the given probability.

    Args:
        area: range of the rectangle's share of the image, drawn uniformly.
        aspect: range of its height over its width, drawn log-uniformly.
    Shape:
        images [B, C, H, W] float, normalised so that zero is the mean -> the same.
    Reference: Zhong et al., AAAI 2020, section 3 (s_l = 0.02, s_h = 0.4, r_1 = 0.3).
    """
    batch, _, height, width = images.shape
    draws = torch.rand(5, batch, 1, generator=generator, device=images.device)
    share = area[0] + (area[1] - area[0]) * draws[0]
    ratio = torch.exp(math.log(aspect[0]) + math.log(aspect[1] / aspect[0]) * draws[1])
    box_height = (height * torch.sqrt(share * ratio)).clamp(max=height)
    box_width = (width * torch.sqrt(share / ratio)).clamp(max=width)
    top = (height - box_height) * draws[2]
    left = (width - box_width) * draws[3]
    # A pixel is erased if its centre lies in the rectangle.
    y = torch.arange(height, device=images.device) + 0.5
    x = torch.arange(width, device=images.device) + 0.5
    in_rows = (y >= top) & (y < top + box_height)
    in_columns = (x >= left) & (x < left + box_width)
    rows, columns = ((in_rows & (draws[4] < probability)).to(images.dtype), in_columns.to(images.dtype))
    # As a product, which takes a fifth of the time of masks on a CPU.
    return images * (1 - rows[:, None, :, None] * columns[:, None, None, :])
