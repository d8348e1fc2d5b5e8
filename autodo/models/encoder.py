"""Base class of encoders, which sets their precision."""

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Network from images to features, in bfloat16 if `bf16`; weights, statistics and features are always float32.

    Autocast computes convolutions in bfloat16; batch norm sums in float32.

    Shape:
        images [B, C, H, W] -> [B, `features`].
    """

    features: int
    bf16: bool = False

    def forward(self, images: Tensor) -> Tensor:
        if not self.bf16:
            return self.encode(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.encode(images)

    def encode(self, images: Tensor) -> Tensor:
        """Compute features in the precision of the images, or of an enclosing autocast."""
        raise NotImplementedError
