"""Small convolutional network for CPUs: about 24,000 parameters, 2 million multiply-adds at 28x28."""

import torch
from torch import nn

from autodo.errors import ConfigError
from autodo.models.encoder import Encoder
from autodo.models.global_average import GlobalAverage


class SmallCNN(Encoder):
    """Three blocks of convolution, max pooling (not in the last), batch norm and CELU; then the global average.

    Pooling comes before batch norm and CELU, which cost more than convolutions on a CPU; on a quarter of the values, a
    train step takes half the time.

    Shape:
        images [B, C, H, W] float, H and W at least 4 -> [B, 64].
    """

    widths = (16, 32, 64)

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, width in enumerate(self.widths):
            layers += [
                nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
                *([nn.MaxPool2d(2)] if index < 2 else []),
                nn.BatchNorm2d(width),
                nn.CELU(),
            ]
            in_channels = width
        self.layers = nn.Sequential(*layers, GlobalAverage())
        self.features = in_channels

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(images)
        return result


def build_encoder(in_channels: int, image_size: int) -> SmallCNN:
    """Build the encoder; see `MODELS`."""
    if image_size < 4:
        raise ConfigError(f"small-cnn needs images of at least 4 x 4 pixels, not {image_size} x {image_size}")
    return SmallCNN(in_channels)
