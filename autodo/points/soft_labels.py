"""Soft label of a point, g_S."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def initial_logits(labels: Tensor, classes: int, smoothing: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Initial lam^S, whose softmax is exactly the smoothed label (1 - alpha) onehot + alpha / C.

    The paper prints log(1 - C - C / alpha), which has no real value; the sign before C / alpha must be plus.

    Args:
        smoothing: alpha, in (0, 1).
    Shape:
        labels [N] int64 -> [N, C].
    Reference: Gudovskiy et al. 2021, section 4.2.
    """
    spread = math.log(1 - classes + classes / smoothing)
    rows = torch.full((len(labels), classes), -spread / 2, dtype=dtype, device=labels.device)
    return rows.scatter_(1, labels[:, None], spread / 2)


def log_soft_label(lam: Tensor) -> Tensor:
    """Logarithm of softmax(lam). Shape: lam [B, C] -> [B, C]."""
    return F.log_softmax(lam, dim=1)
