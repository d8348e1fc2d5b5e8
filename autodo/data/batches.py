"""Batches of point numbers; the images themselves stay where they are, as one uint8 tensor on the training device."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor


def epoch_batches(points: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Every point once, in random order, in ceil(N / batch_size) batches whose sizes differ by at most one.

    Even sizes leave no tiny last batch, on which batch norm would go astray, and drop no point.

    Shape:
        points [N] int64 -> tensors [B], B <= batch_size.
    """
    order = points[torch.randperm(len(points), generator=generator, device=generator.device)]
    yield from torch.tensor_split(order, math.ceil(len(points) / batch_size))
