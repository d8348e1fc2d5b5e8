"""Stochastic rounding to 16 bits, so that small updates are not lost in every step."""

import torch
from torch import Tensor

_DROPPED = {torch.float16: 13, torch.bfloat16: 16}
"""Mantissa bits of a float32 that the type lacks."""


def round_stochastically(values: Tensor, dtype: torch.dtype, noise: Tensor) -> Tensor:
    """Round up or down with probabilities such that E[result] = values.

    Below the normal numbers of float16 (6e-5 in size) the result is the nearest multiple of 6e-8.

    Args:
        dtype: float16 or bfloat16.
        noise: random bits; the low 16 are used.
    Shape:
        values [...] float, noise [...] int32 -> [...] of dtype.
    Reference: Gupta et al., ICML 2015, section 3.
    """
    mask = (1 << _DROPPED[dtype]) - 1
    # The bits of a float as an integer grow with its size, so noise below the kept bits sometimes carries into them.
    bits = values.to(torch.float32).view(torch.int32)
    return ((bits + (noise & mask)) & ~mask).view(torch.float32).to(dtype)
