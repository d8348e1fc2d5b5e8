"""Encoder with constant weights, for outer passes: the same function of the images at a lower cost."""

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


def frozen_copy(module: nn.Module) -> nn.Module:
    """Copy a module in eval mode; every batch norm becomes an affine map, or part of the convolution before it.

    Equal to `module.eval()` up to rounding, in value and in the gradient with respect to the images. The copy is
    cheaper: the backward pass of a batch norm in autograd reads its input again, even in eval mode and without
    gradients of its weights, while an affine map with constants stores two numbers per channel. The copy shares weights
    with the module, so theta must not change while it is in use. A network that is not of this package
    (`Encoder.opaque`) is used itself, in eval mode.
    """
    if getattr(module, "opaque", False):
        # Its layers may be used in any way: only calling it shows what it computes.
        return module.eval()
    if isinstance(module, _BatchNorm):
        return ChannelAffine(module)
    shallow = copy.copy(module)
    shallow.training = False
    children = dict(module._modules)
    for convolution, norm in _conv_norm_pairs(module):
        children[convolution] = FusedConvolution(children[convolution], children[norm])  # type: ignore[arg-type]
        children[norm] = nn.Identity()
    shallow._modules = {name: child and frozen_copy(child) for name, child in children.items()}
    return shallow


def _conv_norm_pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of child convolutions, each with the batch norm that alone reads its output."""
    if isinstance(module, nn.Sequential):
        pairs = pairwise(module.named_children())
        return [(a, b) for (a, x), (b, y) in pairs if isinstance(x, nn.Conv2d) and isinstance(y, _BatchNorm)]
    # Other modules name the pairs themselves.
    return list(getattr(module, "conv_norm_pairs", {}).items())


class FusedConvolution(nn.Module):
    """A convolution and the batch norm after it, in eval mode, as one convolution with constants."""

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: _BatchNorm) -> None:
        super().__init__()
        assert convolution.padding_mode == "zeros"
        assert convolution.bias is None
        assert not isinstance(convolution.padding, str)
        affine = ChannelAffine(norm)
        with torch.no_grad():
            self.register_buffer("weight", convolution.weight * affine.scale.view(-1, 1, 1, 1))
        self.register_buffer("bias", affine.shift.flatten())
        self.options = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight, self.bias, *self.options)


class ChannelAffine(nn.Module):
    """scale_c x + shift_c: a batch norm in eval mode, with its statistics and weights as constants.

    Shape:
        images [B, C, H, W] -> same shape and type, whatever the type of scale and shift.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            shift = norm.bias - norm.running_mean * scale
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = _Affine.apply(images, self.scale, self.shift)
        return result


class _Affine(torch.autograd.Function):
    """scale x + shift for constants, in one pass over the images in each direction."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        # With `out`, because autocast would convert 16-bit images to float32 and back.
        return torch.addcmul(shift, images, scale, out=torch.empty_like(images))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return torch.mul(gradients[0], scale, out=torch.empty_like(gradients[0])), None, None
