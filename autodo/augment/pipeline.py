"""The pipeline from uint8 images to network inputs: augmented for training, untouched for validation and test.

Features, which are floating-point, are only standardised. Those of several views of an image are its rows: the first is
that of the image itself, and training draws one of the others.
"""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor

from autodo.augment import affine
from autodo.augment.apply_draws import apply_draws
from autodo.augment.crop_flip_erase import SMALLEST_ERASED, crop_and_flip, erase
from autodo.augment.policies import Policy
from autodo.config.bilevel import WarpName
from autodo.config.run import AugmentationConfig
from autodo.seeds import host_generator


class Pipeline:
    """Crop and flip, a policy's operations, the per-point affine warp, normalisation, erasing; on the images' device.

    `AugmentationConfig.order` may put the operations first and the warp last.

    Args:
        mean, std: of each channel over the train images, in [0, 1]. Shape: [C].
        policy: None for standard augmentation only; may be replaced between epochs.
        warp: implementation of the per-point warp; a key of `affine.WARPS`.
        gate_temperature: see `affine.magnitudes`.
    """

    def __init__(
        self,
        config: AugmentationConfig,
        mean: Tensor,
        std: Tensor,
        policy: Policy | None = None,
        warp: WarpName = "fused",
        gate_temperature: float = 0.5,
    ) -> None:
        self.config = config
        self.policy = policy
        self._warp_function = affine.WARPS[warp]
        self._gate_temperature = gate_temperature
        self.mean = mean.view(1, -1, 1, 1)
        self.std = std.view(1, -1, 1, 1)

    def train_view(self, images: Tensor, generator: torch.Generator, lam: Tensor | None = None) -> Tensor:
        """Randomly augmented images, differentiable in `lam` if it is given.

        Shape:
            images [B, C, H, W] uint8, lam [B, 14 or 35] (`affine`) -> [B, C, H, W] float.
        """
        if images.is_floating_point():
            return self.test_view(_drawn_view(images, generator))
        if self.config.order == "warp-last":
            images = self._crop_and_flip(self._apply_policy(images, generator), generator)
            return self._warp(self._erase(self.test_view(images), generator), generator, lam)
        images = self._apply_policy(self._crop_and_flip(images, generator), generator)
        pixels = self._warp(self._to_float(images), generator, lam)
        return self._erase(pixels.sub_(self.mean).div_(self.std), generator)

    def test_view(self, images: Tensor) -> Tensor:
        """The images, normalised, or features, standardised. Shape: [B, C, H, W] uint8 or float -> float."""
        return self._to_float(images).sub_(self.mean).div_(self.std)

    def _crop_and_flip(self, images: Tensor, generator: torch.Generator) -> Tensor:
        config = self.config
        return crop_and_flip(images, config.crop_padding, config.flip, generator, config.border)

    def _apply_policy(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.policy is None:
            return images
        return apply_draws(images, self.policy.draw(len(images), host_generator(generator)), self.config.border)

    def _warp(self, pixels: Tensor, generator: torch.Generator, lam: Tensor | None) -> Tensor:
        if lam is None:
            return pixels
        noise = affine.draw_noise(len(pixels), generator, lam.dtype)
        magnitudes = affine.magnitudes(lam, noise, self._gate_temperature)
        return self._warp_function(pixels, magnitudes, self.config.border)

    def _erase(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        config = self.config
        if not config.erase_probability:
            return pixels
        return erase(pixels, config.erase_probability, generator, (SMALLEST_ERASED, config.erase_area))

    def _to_float(self, images: Tensor) -> Tensor:
        if images.is_floating_point():
            return images[:, :, :1].to(self.mean.dtype, copy=True)
        return images.to(self.mean.dtype).div_(255)


def _drawn_view(features: Tensor, generator: torch.Generator) -> Tensor:
    """One of the views after the first, if there are any. Shape: [B, D, 1 + K, 1] -> [B, D, 1, 1]."""
    count, _, views, _ = features.shape
    if views == 1:
        return features
    drawn = torch.randint(1, views, (count,), generator=generator, device=features.device)
    return features[torch.arange(count, device=features.device), :, drawn].unsqueeze(2)


def channel_statistics(chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of uint8 images, in [0, 1]; a constant channel gets deviation 1.

    Computed from exact counts of the 256 levels, so the result does not depend on the order of the images. Of features,
    those of each feature.

    Args:
        chunks: the images, some thousand at a time: every pixel is widened to eight bytes. At least one.
    Shape:
        chunks of [n, C, H, W] uint8 or float -> ([C], [C]) float32.
    """
    counts = torch.zeros((), dtype=torch.float64)
    chunks = iter(chunks)
    first = next(chunks)
    if first.is_floating_point():
        return _feature_statistics(torch.cat([first, *chunks]))
    for chunk in itertools.chain([first], chunks):
        channels = [torch.bincount(pixels.reshape(-1).cpu(), minlength=256) for pixels in chunk.unbind(1)]
        counts = counts + torch.stack(channels)
    share = counts / counts.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ levels
    deviation = (share * (levels - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.float(), torch.where(deviation > 0, deviation, 1.0).float()


def _feature_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature. Shape: [N, D, 1, 1] -> ([D], [D]) float32."""
    variance, mean = torch.var_mean(features.double(), (0, 2, 3), correction=0)
    deviation = variance.sqrt()
    # Rounding errors of a constant feature must not be magnified.
    varies = deviation > 1e-6 * mean.abs()
    return mean.float(), torch.where(varies, deviation, 1.0).float()
