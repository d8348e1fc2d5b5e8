"""A network as an encoder: images converted to what it expects, features in float32."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autodo.models.encoder import Encoder
from autodo.models.global_average import GlobalAverage


class Adapted(Encoder):
    """A network whose head was taken off, for images of one or three channels and of any size.

    Gray images are repeated to the channels of the network. `scale` and `shift` then make up for the fact that the
    input pipeline normalises one channel where the pretrained weights expect each channel normalised by itself.

    Args:
        features: outputs of the network.
        channels: of the images that the network takes.
        size: side in pixels to which images are resized; None: they are not.
    Shape:
        images [B, C, H, W] -> [B, features].
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, features: int, *, channels: int, size: int | None, opaque: bool) -> None:
        super().__init__()
        self.network = network
        self.features = features
        self.channels = channels
        self.size = size
        self.opaque = opaque
        self.register_buffer("scale", torch.ones(1, channels, 1, 1))
        self.register_buffer("shift", torch.zeros(1, channels, 1, 1))

    def encode(self, images: Tensor) -> Tensor:
        if images.shape[1] != self.channels:
            images = torch.addcmul(self.shift, images.expand(-1, self.channels, -1, -1), self.scale)
        if self.size is not None and images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        features: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return features.to(torch.promote_types(features.dtype, torch.float32))


def without_layer(network: nn.Module, name: str) -> nn.Module:
    """The network with an identity in place of a layer; changed in place, unless the layer is the network itself."""
    if not name:
        return nn.Identity()
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, nn.Identity())
    return network


def with_fast_averages(network: nn.Module) -> nn.Module:
    """The network with `GlobalAverage` in place of torch's pools to one position; changed in place."""
    for name, child in network.named_children():
        if type(child) is nn.AdaptiveAvgPool2d and child.output_size in (1, (1, 1)):
            setattr(network, name, GlobalAverage(keepdim=True))
        else:
            with_fast_averages(child)
    return network
