"""The differentiable operations of `differentiable_operations`, computed by kornia: the same up to 0.5 of 255 levels.

Signs and edges are PIL's, as in `autodo.augment.operations`: shears and translations move pixels the other way than
kornia's, and shears keep the image's edge, half a pixel outside of kornia's origin. AutoContrast, Equalize, Posterize
and Cutout are not here, because they have no derivative. Importing this module imports kornia, which takes half a
second.
"""

from collections.abc import Callable

import torch
from kornia import enhance
from kornia.geometry import transform
from torch import Tensor


def _shear(images: Tensor, slope_x: Tensor, slope_y: Tensor) -> Tensor:
    """Keeps the top and the left edge. Shape: images [b, C, H, W], slopes [b] -> like images."""
    edge = slope_x.new_full((len(images), 2), -0.5)
    matrix = transform.get_shear_matrix2d(edge, sx=torch.atan(slope_x), sy=torch.atan(slope_y))
    return transform.affine(images, matrix[:, :2], align_corners=False)


def _translate(images: Tensor, left: Tensor, up: Tensor) -> Tensor:
    """Translates images by pixels or fractions of them. Shape: images [b, C, H, W], left, up [b] -> like images."""
    return transform.translate(images, torch.stack([-left, -up], 1), align_corners=False)


def _invert(images: Tensor, value: Tensor) -> Tensor:
    return enhance.invert(images, images.new_ones(()))  # its own one would be copied from the host to a GPU


KORNIA_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ShearX": lambda images, value: _shear(images, value, torch.zeros_like(value)),
    "ShearY": lambda images, value: _shear(images, torch.zeros_like(value), value),
    "TranslateX": lambda images, value: _translate(images, images.shape[3] * value, torch.zeros_like(value)),
    "TranslateY": lambda images, value: _translate(images, torch.zeros_like(value), images.shape[2] * value),
    "Rotate": lambda images, value: transform.rotate(images, value, align_corners=False),
    "Invert": _invert,
    "Solarize": lambda images, value: enhance.solarize(images, value / 255),
    "Contrast": enhance.adjust_contrast_with_mean_subtraction,
    "Color": enhance.adjust_saturation_with_gray_subtraction,
    "Brightness": enhance.adjust_brightness_accumulative,
    "Sharpness": enhance.sharpness,
}
"""(images [b, C, H, W] float in [0, 1], value [b] in the operation's units) -> like images."""
