"""ResNet-18 of torchvision with CELU activations, and a stem for small or large images."""

import torch
from torch import nn

from autodo.models.encoder import Encoder
from autodo.models.global_average import GlobalAverage

# Up to this side, the stem keeps the resolution: the usual 7x7 stride-2 convolution and pool would turn 32x32 into 8x8.
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
        replace_relu_with_celu(net)
        for module in net.modules():
            if isinstance(module, (ResNet, BasicBlock)):
                # Each convolution with the batch norm that alone reads its output, for `bilevel.frozen`.
                pairs = {"conv1": "bn1", "conv2": "bn2"}
                module.conv_norm_pairs = {a: b for a, b in pairs.items() if hasattr(module, a)}
        self.net = net

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.net(images)
        return result


def replace_relu_with_celu(module: nn.Module) -> None:
    """Replace every ReLU in place, because the implicit function theorem needs a C1 network (paper, appendix A)."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.CELU())
        else:
            replace_relu_with_celu(child)


def build_encoder(in_channels: int, image_size: int) -> ResNetEncoder:
    """Build the encoder; see `MODELS`."""
    return ResNetEncoder(in_channels, image_size)
