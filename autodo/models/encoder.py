"""Base class of encoders, which sets their precision and what of them stands still."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autodo.errors import ConfigError


class Encoder(nn.Module):
    """Network from images to features, in bfloat16 if `bf16`; weights, statistics and features are always float32.

    Autocast computes convolutions in bfloat16; batch norm sums in float32.

    Shape:
        images [B, C, H, W] -> [B, `features`].
    """

    features: int
    bf16: bool = False
    opaque: bool = False
    """Whether only calling the network shows what it computes, because its layers may be used in any way."""
    freeze: str = "none"
    """What stays as it is in training: `none`, the whole `encoder`, or its `bn` (weights and statistics)."""
    settings: dict[str, Any]
    """Settings with which `autodo.models.assemble` builds the same network again."""
    normalisation: tuple[Tensor, Tensor] | None = None
    """Mean and standard deviation of each channel of the images that the weights expect; None: those of the data."""

    def forward(self, images: Tensor) -> Tensor:
        if not self.bf16:
            return self.encode(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.encode(images)

    def train(self, mode: bool = True) -> Self:
        """Set train mode, except for what is frozen."""
        super().train(mode and self.freeze != "encoder")
        if self.freeze == "bn":
            for norm in self.norms():
                norm.eval()
        return self

    def frozen(self, freeze: str) -> Self:
        """This encoder, of which a part stays as it is from now on.

        Raises:
            ConfigError: if it has no such part.
        """
        self.freeze = freeze
        if freeze == "bn" and not self.norms():
            raise ConfigError("model.freeze 'bn': the network has no batch norm")
        still: dict[str, list[nn.Module]] = {"none": [], "encoder": [self], "bn": self.norms()}
        for module in still[freeze]:
            module.requires_grad_(False)
        return self

    def norms(self) -> list[nn.Module]:
        """Its batch norms."""
        return [module for module in self.modules() if isinstance(module, _BatchNorm)]

    def encode(self, images: Tensor) -> Tensor:
        """Compute features in the precision of the images, or of an enclosing autocast."""
        raise NotImplementedError
