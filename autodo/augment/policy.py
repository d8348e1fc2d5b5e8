"""The batched policy engine: operations are drawn for each image and applied to a whole batch on its device."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from autodo.augment.policy_file import PolicyFile
from autodo.policy_config import PolicyConfig


class Draws(NamedTuple):
    """What is done to each image of a batch, step by step.

    Shape:
        operation [B, L] int64: positions in `operations.NAMES`, 0 is Identity; value [B, L] float: in the operation's
        units, with its sign.
    """

    operation: Tensor
    value: Tensor


class Policy(Protocol):
    """A distribution over sequences of operations."""

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        """A sequence for each of `batch` images, on the generator's device."""

    def at(self, progress: float) -> "Policy":
        """The policy at a share of the training, in [0, 1); itself unless it is a schedule."""


def apply(images: Tensor, draws: Draws) -> Tensor:
    """The images after their operations, grouped by operation at each step.

    Shape:
        images [B, C, H, W] float in [0, 1], C = 1 or 3 -> the same.
    """
    raise NotImplementedError


def build_policy(config: PolicyConfig, found: PolicyFile | None = None) -> Policy:
    """The policy that a config describes.

    Args:
        found: what a file or a search gave, for the kinds `file` and `searched`.
    """
    raise NotImplementedError
