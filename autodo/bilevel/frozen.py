"""The encoder while theta stands still: the same function of the images, without what only training needs."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def frozen(module: nn.Module) -> nn.Module:
    """A copy in eval mode that shares all weights, in which every batch norm is the affine map that it is by now.

    Equal to `module.eval()` within rounding, in value and in the gradient by the images. Autograd's backward pass of a
    batch norm reads again the images that it kept, even in eval mode and when nobody asks for gradients of its weights;
    an affine map with constants keeps two numbers for each channel. Theta must not move while the copy is in use.

    Shape:
        of the module.
    """
    if isinstance(module, _BatchNorm):
        return ChannelAffine(module)
    shallow = copy.copy(module)
    shallow.training = False
    shallow._modules = {name: child and frozen(child) for name, child in module._modules.items()}
    return shallow


class ChannelAffine(nn.Module):
    """scale_c x + shift_c: a batch norm in eval mode, with its statistics and weights as constants.

    Shape:
        images [B, C, H, W] -> the same, and of their type, whatever that of scale and shift is.
    """

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
        return torch.addcmul(shift, images, scale).to(images.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return (gradients[0] * scale).to(gradients[0].dtype), None, None
