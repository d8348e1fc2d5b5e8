"""Batches of positions in a set; a loader gives the images."""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup


class Batch(NamedTuple):
    """This process's part of a batch.

    Shape:
        points [b] int64.
    """

    points: Tensor
    size: int
    """Number of points of the whole batch, over all processes."""


def epoch_batches(points: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Every point once, in random order, in ceil(N / batch_size) batches whose sizes differ by at most one.

    Even sizes drop no point and leave no tiny last batch, whose statistics would mislead batch norm.

    Shape:
        points [N] int64 -> tensors [B], B <= batch_size.
    """
    for batch in shuffled_batches(points, len(points), batch_size, generator, SINGLE_PROCESS):
        yield batch.points


def shuffled_batches(
    points: Tensor,
    total: int,
    batch_size: int,
    generator: torch.Generator,
    group: ProcessGroup,
    *,
    drop_last: bool = False,
) -> Iterator[Batch]:
    """`epoch_batches` over all processes: each shuffles its own points and splits them into its parts of the batches.

    Args:
        total: number of points over all processes.
        drop_last: see `batch_sizes`.
    Shape:
        points [n] int64: this process's shard of `total` points.
    """
    order = points[torch.randperm(len(points), generator=generator, device=generator.device)]
    sizes = batch_sizes(total, batch_size, drop_last=drop_last)
    return _parts(order[: group.shard_size(sum(sizes))], sizes, group)


def ordered_batches(points: Tensor, total: int, batch_size: int, group: ProcessGroup) -> Iterator[Batch]:
    """Every point once, in order, in batches of `batch_size`; the last one may be smaller.

    Shape:
        points [n] int64: this process's shard of `total` points.
    """
    full, rest = divmod(total, batch_size)
    return _parts(points, [batch_size] * full + [rest] * (rest > 0), group)


def batch_sizes(total: int, batch_size: int, *, drop_last: bool = False) -> list[int]:
    """Sizes of ceil(total / batch_size) batches that differ by at most one.

    Args:
        drop_last: full batches only, with fewer than `batch_size` points left over; if the points do not fill a batch,
            one batch of all of them.
    """
    if drop_last:
        return [min(batch_size, total)] * max(1, total // batch_size)
    count = math.ceil(total / batch_size)
    return [total // count + (step < total % count) for step in range(count)]


def _parts(points: Tensor, sizes: Sequence[int], group: ProcessGroup) -> Iterator[Batch]:
    ends = [group.shard_size(end) for end in accumulate(sizes)]
    assert ends[-1] == len(points)
    parts = points.tensor_split(ends[:-1])
    return (Batch(part, size) for part, size in zip(parts, sizes, strict=True))
