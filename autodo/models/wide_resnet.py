"""Wide ResNets WRN-d-k (pre-activation blocks, no dropout) with CELU."""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from autodo.errors import ConfigError
from autodo.models.encoder import Encoder
from autodo.models.global_average import GlobalAverage


class Block(nn.Module):
    """Two 3x3 convolutions, each after batch norm and CELU, with a shortcut.

    Shape:
        [B, in, H, W] -> [B, out, H/stride, W/stride].
    """

    conv_norm_pairs: ClassVar = {"conv1": "norm2"}
    """Each convolution with the batch norm that alone reads its output, for `bilevel.frozen`."""

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, out_width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        same = in_width == out_width and stride == 1
        self.shortcut = None if same else nn.Conv2d(in_width, out_width, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = F.celu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        residual: torch.Tensor = self.conv2(F.celu(self.norm2(self.conv1(active))))
        return shortcut + residual


class WideResNet(Encoder):
    """Shape: images [B, C, H, W] float -> [B, 64 * width]. Reference: Zagoruyko and Komodakis, BMVC 2016."""

    def __init__(self, in_channels: int, depth: int, width: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        widths = (16, 16 * width, 32 * width, 64 * width)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)]
        for group in range(3):
            for block in range(blocks):
                in_width = widths[group] if block == 0 else widths[group + 1]
                stride = 2 if group > 0 and block == 0 else 1
                layers.append(Block(in_width, widths[group + 1], stride))
        layers += [nn.BatchNorm2d(widths[3]), nn.CELU(), GlobalAverage()]
        self.layers = nn.Sequential(*layers)
        self.features = widths[3]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(images)
        return result


def build_encoder(in_channels: int, image_size: int, depth: int, width: int) -> WideResNet:
    """Build the encoder; see `MODELS`."""
    if image_size < 8:
        raise ConfigError(
            f"a wide ResNet needs images of at least 8 x 8 pixels, not {image_size} x {image_size}; small-cnn takes "
            "smaller ones"
        )
    return WideResNet(in_channels, depth, width)
