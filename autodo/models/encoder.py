"""What all encoders are, and the precision that they compute in."""

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """images -> features, in bfloat16 where that is asked for; weights, statistics and features are float32 then, too.

    torch's autocast computes convolutions in bfloat16 and passes what they give on; batch norm sums in float32.

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
        """In the precision of the images, or of an autocast around."""
        raise NotImplementedError
