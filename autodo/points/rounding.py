"""Rounding to 16 bits by chance, so that what is lost in one step is not lost in every step."""

import torch
from torch import Tensor

_DROPPED = {torch.float16: 13, torch.bfloat16: 16}
"""Bits of a float32's mantissa that the type has no room for."""


def stochastically(values: Tensor, dtype: torch.dtype, noise: Tensor) -> Tensor:
    """The number above or below, with the probabilities that make the expected value right: E[result] = values.

    Below float16's normal numbers (6e-5 in size) it is the nearest one, in steps of 6e-8.

    Args:
        dtype: float16 or bfloat16.
        noise: random bits, of which the low 16 are used.
    Shape:
        values [...] float, noise [...] int32 -> [...] of dtype.
    Reference: Gupta et al., ICML 2015, section 3.
    """
    mask = (1 << _DROPPED[dtype]) - 1
    # A float's bits as an integer grow with its size, so noise below the kept bits carries into them now and then.
    bits = values.to(torch.float32).view(torch.int32)
    return ((bits + (noise & mask)) & ~mask).view(torch.float32).to(dtype)
