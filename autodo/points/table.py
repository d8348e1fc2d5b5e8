"""Table of hyperparameters with one row per point, and an RMSprop that touches only the rows of a batch."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from autodo.points.rounding import round_stochastically
from autodo.points.row_store import build_store
from autodo.points.table_storage import ON_DEVICE, TableStorage

_READ = ("values", "last_touched")
_UPDATE = ("values", "last_touched", "square_average")


class PointTable:
    """Rows of lam with a row-sparse RMSprop.

    In RMSprop without momentum, a zero gradient only decays the running mean of squares of a row by `alpha`. So it is
    enough to remember the step at which a row was last touched:
    sq_i <- alpha^(step - last_i) sq_i + (1 - alpha) g^2, which equals torch.optim.RMSprop on the dense table
    (same alpha and eps defaults) at the cost of the rows in the batch. A row that was never touched is not stored; its
    value is `initial`.

    Args:
        initial: function from points to their initial rows. Shape: index [B] int64, on the device -> [B, K].
        count: N.
        widths: number of columns of each part of a row; their sum is K.
        dtype: type of the computation.
        device: training device.
        storage: place of the rows.
        precision: `fp32` stores values in `dtype`. `fp16` stores differences from the initial values in float16 and the
            mean of squares in bfloat16, stochastically rounded.
        square_average: per element, as in RMSprop; or per part of a row, sq_i <- ... mean_k(g_k^2), which stores one
            number per part.
        rounding: function from the number of a step to the generator of its stochastic rounding.
        eps: epsilon of RMSprop, added to the root of the mean of squares.
    Reference: Tieleman and Hinton 2012 (RMSprop).
    """

    alpha = 0.99

    def __init__(
        self,
        initial: Callable[[Tensor], Tensor],
        count: int,
        widths: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        storage: TableStorage = ON_DEVICE,
        precision: Literal["fp32", "fp16"] = "fp32",
        square_average: Literal["element", "part"] = "element",
        rounding: Callable[[int], torch.Generator] | None = None,
        eps: float = 1e-8,
    ) -> None:
        self._initial = initial
        self._eps = eps
        self._rounding = rounding
        self._dtype = dtype
        self._device = torch.device(device)
        self._half = precision == "fp16"
        assert not self._half or rounding is not None
        self._widths = tuple(widths) if square_average == "part" else ()
        columns, squares = sum(widths), len(widths) if self._widths else sum(widths)
        self._store = build_store(
            storage,
            {
                "values": ((count, columns), torch.float16 if self._half else dtype),
                "square_average": ((count, squares), torch.bfloat16 if self._half and not self._widths else dtype),
                "last_touched": ((count,), torch.int32),
            },
            device,
        )
        self._count = count
        self._last_read: tuple[Tensor, dict[str, Tensor]] | None = None
        self._update_sum = torch.zeros((), dtype=dtype, device=device)
        self.steps = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> Tensor:
        """Copy of all rows, on the device. Shape: [N, K]."""
        everything = torch.arange(self._count, device=self._device)
        return self._decoded(everything, self._store.read(everything, _READ))

    @property
    def square_average(self) -> Tensor:
        """Mean of squares of each row when it was last touched. Shape: [N, K], or [N, parts]."""
        self._store.flush()
        return self._store.columns["square_average"]

    @property
    def last_touched(self) -> Tensor:
        """Step at which each row was last touched; 0: never. Shape: [N] int32."""
        self._store.flush()
        return self._store.columns["last_touched"]

    def rows(self, index: Tensor) -> Tensor:
        """Copy of some rows. Shape: index [B] int64 -> [B, K]."""
        stored = self._store.read(index, _READ)
        self._last_read = (index, stored)
        return self._decoded(index, stored)

    def prefetch(self, index: Tensor, host: Tensor, *, for_update: bool) -> None:
        """Start sending rows to the device that `rows` will read.

        Args:
            index: the tensor object that `rows` will be called with.
            host: the same numbers in host memory.
            for_update: whether a step follows.
        """
        self._store.prefetch(index, host, _UPDATE if for_update else _READ)

    def will_need(self, host: Tensor, *, for_update: bool) -> None:
        """Start reading rows from disk that will be prefetched or read soon."""
        self._store.will_need(host, _UPDATE if for_update else _READ)

    @torch.no_grad()
    def rmsprop_step(self, index: Tensor, gradient: Tensor, lr: float, mask: Tensor | None = None) -> None:
        """Take one optimizer step, with a gradient that is zero outside the given rows.

        Args:
            mask: rows that take the step; the others stay as if not given. None: all.
        Shape:
            index [B] int64 without duplicates, gradient [B, K], mask [B] bool.
        """
        self.steps += 1
        stored = self._stored(index)
        # In place where possible: with a thousand columns, the step is bound by memory.
        decay = torch.full((), self.alpha, dtype=self._dtype, device=self._device)
        untouched = (self.steps - stored["last_touched"]).to(self._dtype)
        square = stored["square_average"].to(self._dtype, copy=mask is not None)
        square.mul_((decay**untouched)[:, None])
        square.add_(self._squared(gradient).mul_(1 - self.alpha))
        descent = (lr * gradient).div_(self._expand_parts(square).sqrt().add_(self._eps))
        values = self._decoded(index, stored).sub_(descent)
        last = torch.full_like(stored["last_touched"], self.steps)
        rows = {**self._encoded(index, values, square), "last_touched": last}
        if mask is not None:
            # The others are written unchanged; to leave them out, the host would have to wait for their number.
            rows = {name: _select_rows(mask, row, stored[name]) for name, row in rows.items()}
            values = values.masked_fill(~mask[:, None], 0)
        self._update_sum += values.sum()
        self._last_read = None
        self._store.write(index, rows)

    def pop_update_sum(self) -> Tensor:
        """Return the sum of all values written since the last call; it is not finite if one of them is not."""
        total, self._update_sum = self._update_sum, torch.zeros_like(self._update_sum)
        return total

    def state_dict(self) -> dict[str, Any]:
        """All state, as tensors and numbers; the tensors are not copies."""
        if self.steps == 0:
            return {"steps": 0}  # all rows have their initial values
        self._store.flush()
        return {**self._store.columns, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of a table of the same shape, whatever its storage."""
        self._store.flush()
        self._last_read = None
        for name, column in self._store.columns.items():
            if name in state:
                column.copy_(state[name])
            elif self.steps:
                column.zero_()
        self.steps = int(state["steps"])

    # ----- conversion between stored and computed values

    def _stored(self, index: Tensor) -> dict[str, Tensor]:
        """Stored columns of the rows; those that `rows` has just read are not read again."""
        known = self._last_read[1] if self._last_read is not None and self._last_read[0] is index else {}
        missing = [name for name in _UPDATE if name not in known]
        return {**known, **self._store.read(index, missing)} if missing else known

    def _decoded(self, index: Tensor, stored: dict[str, Tensor]) -> Tensor:
        if self._half:
            return self._initial(index) + stored["values"].to(self._dtype)
        return torch.where(stored["last_touched"][:, None] > 0, stored["values"], self._initial(index))

    def _encoded(self, index: Tensor, values: Tensor, square: Tensor) -> dict[str, Tensor]:
        if not self._half:
            return {"values": values, "square_average": square}
        assert self._rounding is not None
        noise = torch.empty(values.shape, dtype=torch.int32, device=self._device)
        noise.random_(generator=self._rounding(self.steps))
        values = round_stochastically(values - self._initial(index), torch.float16, noise)
        if not self._widths:
            square = round_stochastically(square, torch.bfloat16, noise >> 13)
        return {"values": values, "square_average": square}

    def _squared(self, gradient: Tensor) -> Tensor:
        """Squares of the gradient, or their means over each part. Shape: [B, K] -> [B, K] or [B, parts]."""
        if not self._widths:
            return gradient.square()
        return torch.stack([part.square().mean(1) for part in gradient.split(self._widths, 1)], 1)

    def _expand_parts(self, square: Tensor) -> Tensor:
        """Repeat the value of each part for its columns. Shape: [B, K] or [B, parts] -> [B, K]."""
        if not self._widths:
            return square
        parts = zip(square.unbind(1), self._widths, strict=True)
        return torch.cat([part[:, None].expand(-1, width) for part, width in parts], 1)


def _select_rows(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Select whole rows. Shape: mask [B], new and old [B, ...] -> [B, ...]."""
    return torch.where(mask.view(-1, *[1] * (new.ndim - 1)), new, old)
