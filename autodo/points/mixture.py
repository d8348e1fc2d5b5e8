"""Augmentation strengths of a point as a mean of rows that all points share."""

import torch
from torch import Tensor


def draw_offsets(rows: int, width: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Fixed differences between the rows, standard normal in each column.

    Without them equal rows would stay equal: their gradients, and those of all logits of a point, would be the same.

    Shape:
        -> [K, W], on the generator's device.
    """
    return torch.randn(rows, width, generator=generator, device=generator.device, dtype=dtype)


def mean_row(logits: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    """sum_k pi_k (rows_k + offsets_k - mean of the offsets), where pi is the softmax of a point's logits.

    Written such that points with equal logits have exactly `rows` if these are equal, and all points have exactly the
    row if there is one.

    Shape:
        logits [B, K] (of K = 1 nothing is read), rows and offsets [K, W] -> [B, W].
    """
    if len(rows) == 1:
        return rows.expand(len(logits), -1)
    shares = logits.softmax(1)
    equal = torch.zeros_like(logits).softmax(1)
    return rows[:1] + shares @ (rows - rows[:1]) + (shares - equal) @ offsets
