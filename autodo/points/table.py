"""A table of hyperparameters with one row per point, and the RMSprop that touches only a batch's rows."""

from typing import Any

import torch
from torch import Tensor


class PointTable:
    """Rows of lam and their row-sparse RMSprop.

    RMSprop without momentum moves a row only when its gradient is not zero; a zero gradient only decays the row's
    running mean of squares by `alpha`. So it is enough to remember when a row was last touched:
    sq_i <- alpha^(step - last_i) sq_i + (1 - alpha) g^2, which equals torch.optim.RMSprop on the dense table
    (same alpha and eps defaults) at the cost of the batch's rows.

    Shape:
        initial [N, K] float.
    Reference: Tieleman and Hinton 2012 (RMSprop).
    """

    alpha = 0.99
    eps = 1e-8

    def __init__(self, initial: Tensor) -> None:
        self.values = initial.clone()
        self.square_average = torch.zeros_like(self.values)
        self.last_touched = torch.zeros(len(initial), dtype=torch.int64, device=initial.device)
        self.steps = 0

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: Tensor) -> Tensor:
        """A copy of the rows. Shape: index [B] int64 -> [B, K]."""
        return self.values[index]

    @torch.no_grad()
    def rmsprop_step(self, index: Tensor, gradient: Tensor, lr: float) -> None:
        """One optimizer step, with a gradient that is zero outside the given rows.

        Shape:
            index [B] int64 without duplicates, gradient [B, K].
        """
        self.steps += 1
        decay = torch.full((), self.alpha, dtype=self.values.dtype, device=self.values.device)
        untouched = (self.steps - self.last_touched[index]).to(self.values.dtype)
        square = self.square_average[index] * (decay**untouched)[:, None] + (1 - self.alpha) * gradient.square()
        self.square_average[index] = square
        self.last_touched[index] = self.steps
        self.values[index] -= lr * gradient / (square.sqrt() + self.eps)

    def state_dict(self) -> dict[str, Any]:
        """All state, as tensors and numbers."""
        return {
            "values": self.values,
            "square_average": self.square_average,
            "last_touched": self.last_touched,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over the state of a table of the same shape."""
        for name in ("values", "square_average", "last_touched"):
            getattr(self, name).copy_(state[name])
        self.steps = int(state["steps"])
