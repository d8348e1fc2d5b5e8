"""Batches of point numbers; the images themselves stay where they are, as one uint8 tensor on the training device."""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup


class Batch(NamedTuple):
    """A worker's part of a batch.

    Shape:
        points [b] int64.
    """

    points: Tensor
    size: int
    """Points of the whole batch, over all workers."""


def epoch_batches(points: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Every point once, in random order, in ceil(N / batch_size) batches whose sizes differ by at most one.

    Even sizes leave no tiny last batch, on which batch norm would go astray, and drop no point.

    Shape:
        points [N] int64 -> tensors [B], B <= batch_size.
    """
    for batch in shuffled_batches(points, len(points), batch_size, generator, SINGLE_PROCESS):
        yield batch.points


def shuffled_batches(
    points: Tensor, total: int, batch_size: int, generator: torch.Generator, group: ProcessGroup
) -> Iterator[Batch]:
    """`epoch_batches` of the points of all workers: each shuffles its own and cuts them to its parts of the batches.

    Args:
        total: how many points there are over all workers.
    Shape:
        points [n] int64: as many as this worker is dealt of `total`.
    """
    order = points[torch.randperm(len(points), generator=generator, device=generator.device)]
    return _parts(order, even_sizes(total, batch_size), group)


def ordered_batches(points: Tensor, total: int, batch_size: int, group: ProcessGroup) -> Iterator[Batch]:
    """Every point once, in order, in batches of `batch_size`, the last one of what is left.

    Shape:
        points [n] int64: as many as this worker is dealt of `total`.
    """
    full, rest = divmod(total, batch_size)
    return _parts(points, [batch_size] * full + [rest] * (rest > 0), group)


def even_sizes(total: int, batch_size: int) -> list[int]:
    """Sizes of ceil(total / batch_size) batches that differ by at most one."""
    count = math.ceil(total / batch_size)
    return [total // count + (step < total % count) for step in range(count)]


def _parts(points: Tensor, sizes: Sequence[int], group: ProcessGroup) -> Iterator[Batch]:
    ends = [group.shard_size(end) for end in accumulate(sizes)]
    assert ends[-1] == len(points)
    parts = points.tensor_split(ends[:-1])
    return (Batch(part, size) for part, size in zip(parts, sizes, strict=True))
