"""Loss weight of a point, g_W."""

import math

from torch import Tensor
from torch.nn import functional as F


def weight(lam: Tensor) -> Tensor:
    """w = softplus(lam) / ln 2: exactly 1 at lam = 0, in (0, inf).

    Shape:
        lam [B] -> [B].
    Reference: Gudovskiy et al. 2021, section 4.2 (which rounds 1 / ln 2 to 1.44).
    """
    return F.softplus(lam) / math.log(2)
