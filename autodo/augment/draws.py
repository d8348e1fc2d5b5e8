"""What a policy is: a distribution over sequences of operations."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Draws(NamedTuple):
    """What is done to each image of a batch, step by step.

    Shape:
        operation [B, L] int64: positions in `operations.NAMES`, 0 is Identity; value [B, L] float: in the operation's
        units, with its sign; centre [B, L, 2] in [0, 1): (x, y) of Cutout's square, as shares of the sides.
    """

    operation: Tensor
    value: Tensor
    centre: Tensor


class Policy(Protocol):
    """A distribution over sequences of operations."""

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        """A sequence for each of `batch` images, on the generator's device."""

    def at(self, progress: float) -> "Policy":
        """The policy at a share of the training, in [0, 1); itself unless it is a schedule."""


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """U(0, 1) on the generator's device. Shape: -> `shape` float32."""
    return torch.rand(shape, generator=generator, device=generator.device)


def complete(operation: Tensor, value: Tensor, generator: torch.Generator) -> Draws:
    """With centres drawn uniformly. Shape: operation, value [B, L]."""
    return Draws(operation, value, uniform((*operation.shape, 2), generator))
