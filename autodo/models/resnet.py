"""ResNet-18 with CELU: torchvision's network, its activations exchanged, with a stem for small or large images."""

import torch
from torch import nn

from autodo.models.encoder import Encoder
from autodo.models.global_average import GlobalAverage

# Up to this side the stem keeps the resolution: a 7x7 stride-2 convolution and a pool would leave 8x8 of 32x32.
SMALL_IMAGE = 64


class ResNetEncoder(Encoder):
    """Shape: images [B, C, H, W] float -> [B, 512]. Reference: He et al., CVPR 2016; Barron 2017 (CELU)."""

    def __init__(self, in_channels: int, image_size: int) -> None:
        from torchvision.models import ResNet, resnet18
        from torchvision.models.resnet import BasicBlock

        super().__init__()
        net = resnet18(weights=None)
        self.features: int = net.fc.in_features
        net.fc = nn.Identity()
        net.avgpool = GlobalAverage()
        if image_size <= SMALL_IMAGE:
            net.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
            net.maxpool = nn.Identity()
        elif in_channels != net.conv1.in_channels:
            net.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        exchange_relu_for_celu(net)
        for module in net.modules():
            if isinstance(module, (ResNet, BasicBlock)):
                # Convolutions whose output only a batch norm reads, and that batch norm.
                pairs = {"conv1": "bn1", "conv2": "bn2"}
                module.normed = {a: b for a, b in pairs.items() if hasattr(module, a)}
        self.net = net

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.net(images)
        return result


def exchange_relu_for_celu(module: nn.Module) -> None:
    """Replaces every ReLU in place: the implicit function theorem needs a C1 network (paper, appendix A)."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.CELU())
        else:
            exchange_relu_for_celu(child)


def build_encoder(in_channels: int, image_size: int) -> ResNetEncoder:
    """The encoder for `autodo.models.build`."""
    return ResNetEncoder(in_channels, image_size)
