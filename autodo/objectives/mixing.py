"""Mixup and CutMix: each image and label is mixed with another of its batch.

Each process mixes within its part of a batch, with its own share.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from autodo.config import objective
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep, cross_entropies
from autodo.seeds import host_generator


class Mixed(NamedTuple):
    """Mixed images, and the share of the first label.

    Shape:
        pixels [b, C, H, W].
    """

    pixels: Tensor
    share: float


class MixupLoss(Objective):
    """x = s x_i + (1 - s) x_j, loss s l(y_i) + (1 - s) l(y_j); s ~ Beta(alpha, alpha), one per batch.

    This is the cross-entropy of the mixed label, because cross-entropy is linear in the label.

    Reference: Zhang et al. 2018, section 2.
    """

    def __init__(self, config: objective.Mixup, context: ObjectiveContext) -> None:
        self.alpha = config.alpha

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        share = draw_beta(self.alpha, step.generator)
        partner = torch.randperm(len(step.points), generator=step.generator, device=step.generator.device)
        mixed = self.mix(step.pixels, step.pixels[partner], share, step.generator)
        logits = network(mixed.pixels)
        first, second = (cross_entropies(logits, labels) for labels in (step.labels, step.labels[partner]))
        return mixed.share * first + (1 - mixed.share) * second

    def mix(self, images: Tensor, others: Tensor, share: float, generator: torch.Generator) -> Mixed:
        """Mix images with others at the same positions. Shape: [b, C, H, W] both."""
        return Mixed(share * images + (1 - share) * others, share)


class CutMixLoss(MixupLoss):
    """A box of (1 - s) of the area, around a random centre and clipped to the image, shows the other image.

    The labels are mixed by the area of the clipped box. One box per batch, as published.

    Reference: Yun et al. 2019, section 3.1 and algorithm 1.
    """

    def mix(self, images: Tensor, others: Tensor, share: float, generator: torch.Generator) -> Mixed:
        height, width = images.shape[2:]
        centre = torch.rand(2, generator=host_generator(generator)).tolist()
        (top, bottom), (left, right) = (
            box_side(size, share, place) for size, place in zip((height, width), centre, strict=True)
        )
        pixels = images.clone()
        pixels[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        return Mixed(pixels, 1 - (bottom - top) * (right - left) / (height * width))


def box_side(size: int, share: float, place: float) -> tuple[int, int]:
    """Clipped begin and end of a box of floor(size sqrt(1 - share)) pixels around the pixel floor(size place)."""
    side, centre = int(size * math.sqrt(1 - share)), int(size * place)
    return max(centre - side // 2, 0), min(centre + side // 2, size)


def draw_beta(alpha: float, generator: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha); the sampler of torch takes no generator."""
    seed = torch.randint(2**62, (), generator=host_generator(generator))
    return float(np.random.default_rng(int(seed)).beta(alpha, alpha))
