"""Borders of an image: zeros, or the nearest pixel of the image (`augmentation.border`)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from autodo.config.run import BorderName

PADDING_MODES: dict[BorderName, str] = {"zeros": "zeros", "edge": "border"}
"""Names of the borders in `F.grid_sample` and kornia."""


def pad(images: Tensor, padding: int, border: BorderName) -> Tensor:
    """Adds pixels on each side. Shape: [B, C, H, W] of any dtype -> [B, C, H + 2 padding, W + 2 padding]."""
    if border == "zeros":
        return F.pad(images, (padding, padding, padding, padding))
    # By index, because torch does not replicate the edges of uint8 images.
    rows, columns = (
        torch.arange(-padding, size + padding, device=images.device).clamp_(0, size - 1) for size in images.shape[-2:]
    )
    return images.index_select(2, rows).index_select(3, columns)
