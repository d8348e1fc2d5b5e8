"""The operations one image at a time with PIL, as the published implementations have them: the engine's oracle."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images
from torch import Tensor

from autodo.augment.operations import NAMES
from autodo.augment.policies import Draws

Picture = Image.Image
Centre = tuple[float, float]
FILL = (125, 123, 114)


def affine(*entries: Callable[[float, Picture], float] | float) -> Callable[[Picture, float, Centre], Picture]:
    """`Image.transform(AFFINE)` with six entries, each a number or a function of the value and the image."""

    def apply(image: Picture, value: float, centre: Centre) -> Picture:
        data = tuple(entry(value, image) if callable(entry) else entry for entry in entries)
        return image.transform(image.size, Image.Transform.AFFINE, data)

    return apply


def enhance(kind: type) -> Callable[[Picture, float, Centre], Picture]:
    """One of `ImageEnhance`'s classes."""
    return lambda image, value, _: kind(image).enhance(value)


def cutout(image: Picture, value: float, centre: Centre) -> Picture:
    """Fast AutoAugment's: a rectangle from the clipped corner of a square around the centre."""
    if value <= 0:
        return image
    side = value * image.width
    left = int(max(0, centre[0] * image.width - side / 2))
    top = int(max(0, centre[1] * image.height - side / 2))
    right, bottom = min(image.width, left + side), min(image.height, top + side)
    fill = FILL if image.mode == "RGB" else Image.new("RGB", (1, 1), FILL).convert("L").getpixel((0, 0))
    result = image.copy()
    ImageDraw.Draw(result).rectangle((left, top, right, bottom), fill)
    return result


def slope(value: float, image: Picture) -> float:
    """The value itself."""
    return value


PIL_OPERATIONS: dict[str, Callable[[Picture, float, Centre], Picture]] = {
    "Identity": lambda image, value, centre: image,
    "ShearX": affine(1, slope, 0, 0, 1, 0),
    "ShearY": affine(1, 0, 0, slope, 1, 0),
    "TranslateX": affine(1, 0, lambda value, image: value * image.width, 0, 1, 0),
    "TranslateY": affine(1, 0, 0, 0, 1, lambda value, image: value * image.height),
    "Rotate": lambda image, value, centre: image.rotate(value),
    "TranslateXPixels": affine(1, 0, lambda value, image: int(value), 0, 1, 0),
    "TranslateYPixels": affine(1, 0, 0, 0, 1, lambda value, image: int(value)),
    "AutoContrast": lambda image, value, centre: ImageOps.autocontrast(image),
    "Invert": lambda image, value, centre: ImageOps.invert(image),
    "Equalize": lambda image, value, centre: ImageOps.equalize(image),
    "Solarize": lambda image, value, centre: ImageOps.solarize(image, value),  # type: ignore[arg-type]  # PIL compares, and takes any number
    "Posterize": lambda image, value, centre: ImageOps.posterize(image, int(value)),
    "Contrast": enhance(ImageEnhance.Contrast),
    "Color": enhance(ImageEnhance.Color),
    "Brightness": enhance(ImageEnhance.Brightness),
    "Sharpness": enhance(ImageEnhance.Sharpness),
    "Cutout": cutout,
}


def apply(images: Tensor, draws: Draws) -> Tensor:
    """Expected images of the engine. Shape: images [B, C, H, W] uint8 -> the same."""
    result = []
    steps = zip(draws.operation.tolist(), draws.value.tolist(), draws.centre.tolist(), strict=True)
    for image, sequence in zip(images, steps, strict=True):
        picture = to_picture(image)
        for operation, value, centre in zip(*sequence, strict=True):
            picture = PIL_OPERATIONS[NAMES[operation]](picture, value, centre)
        result.append(from_picture(picture))
    return torch.stack(result) if result else images


def to_picture(image: Tensor) -> Picture:
    """Shape: [C, H, W] uint8, C = 1 or 3."""
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())


def from_picture(picture: Picture) -> Tensor:
    """Shape: -> [C, H, W] uint8."""
    array = torch.from_numpy(np.array(picture))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)


def photographs(height: int, width: int, channels: int) -> Tensor:
    """Pieces of scikit-learn's two photographs, and images of one, two and of extreme levels.

    Shape: -> [n, channels, height, width] uint8.
    """
    pieces: list[Tensor] = []
    for whole in load_sample_images().images:
        picture = Image.fromarray(whole).convert("RGB" if channels == 3 else "L")
        for left in range(0, 600, 150):
            for top in range(0, 400, 100):
                pieces.append(from_picture(picture.crop((left, top, left + width, top + height))))
    flat = torch.full_like(pieces[0], 77)
    two_levels, extreme = flat.clone(), flat.clone()
    two_levels[:, : height // 3] = 80
    extreme[:, 0], extreme[:, :, 0] = 0, 255
    return torch.stack([*pieces, flat, two_levels, extreme])
