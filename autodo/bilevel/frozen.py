"""The encoder while theta stands still: the same function of the images, without what only training needs."""

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


def frozen(module: nn.Module) -> nn.Module:
    """A copy in eval mode that shares weights, in which every batch norm is the affine map that it is by now.

    Equal to `module.eval()` within rounding, in value and in the gradient by the images. Autograd's backward pass of a
    batch norm reads again the images that it kept, even in eval mode and when nobody asks for gradients of its weights;
    an affine map with constants keeps two numbers for each channel, and where it follows a convolution it becomes a
    part of that. Theta must not move while the copy is in use.

    Shape:
        of the module.
    """
    if isinstance(module, _BatchNorm):
        return ChannelAffine(module)
    shallow = copy.copy(module)
    shallow.training = False
    children = dict(module._modules)
    for convolution, norm in _normed(module):
        children[convolution] = NormedConvolution(children[convolution], children[norm])  # type: ignore[arg-type]
        children[norm] = nn.Identity()
    shallow._modules = {name: child and frozen(child) for name, child in children.items()}
    return shallow


def _normed(module: nn.Module) -> list[tuple[str, str]]:
    """Names of convolutions among the children, and of the batch norms that alone read their outputs."""
    if isinstance(module, nn.Sequential):
        pairs = pairwise(module.named_children())
        return [(a, b) for (a, one), (b, next_one) in pairs if _is_normed(one, next_one)]
    # A module that is no sequence says so itself.
    return list(getattr(module, "normed", {}).items())


def _is_normed(module: nn.Module, follower: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and isinstance(follower, _BatchNorm)


class NormedConvolution(nn.Module):
    """A convolution and the batch norm after it, in eval mode, as one convolution with constants.

    Shape:
        of the convolution.
    """

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
        images [B, C, H, W] -> the same, and of their type, whatever that of scale and shift is.
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
        # Into a tensor of their type: by itself autocast would make float32 of 16-bit images and back.
        return torch.addcmul(shift, images, scale, out=torch.empty_like(images))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return torch.mul(gradients[0], scale, out=torch.empty_like(gradients[0])), None, None
