"""Mean over positions, the last layer of every encoder."""

import torch
from torch import Tensor, nn


class GlobalAverage(nn.Module):
    """`nn.AdaptiveAvgPool2d(1)` and `nn.Flatten()`, bit for bit, with a faster backward pass.

    With `keepdim` it is the pool alone.

    The gradient of torch's pool is always channels-first. With channels-last images, as here, activation and batch norm
    before it would compute across two layouts, which takes ten times as long.

    Shape:
        images [B, C, H, W] -> [B, C], or [B, C, 1, 1]; float32 for 16-bit images.
    """

    def __init__(self, *, keepdim: bool = False) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, images: Tensor) -> Tensor:
        dtype = torch.promote_types(images.dtype, torch.float32)
        average = images.permute(0, 2, 3, 1).mean((1, 2), dtype=dtype)
        return average[:, :, None, None] if self.keepdim else average
