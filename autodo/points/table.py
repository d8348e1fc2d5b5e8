"""A table of hyperparameters with one row per point, and the RMSprop that touches only a batch's rows."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from autodo.points.rounding import stochastically
from autodo.points.row_store import build_store
from autodo.points.storage import ON_DEVICE, TableStorage

_READ = ("values", "last_touched")
_MOVED = ("values", "last_touched", "square_average")


class PointTable:
    """Rows of lam and their row-sparse RMSprop.

    RMSprop without momentum moves a row only when its gradient is not zero; a zero gradient only decays the row's
    running mean of squares by `alpha`. So it is enough to remember when a row was last touched:
    sq_i <- alpha^(step - last_i) sq_i + (1 - alpha) g^2, which equals torch.optim.RMSprop on the dense table
    (same alpha and eps defaults) at the cost of the batch's rows. A row that was never touched is not kept at all:
    it is what `initial` says.

    Args:
        initial: rows of lam at the start, of any points. Shape: index [B] int64, on the device -> [B, K].
        count: N.
        widths: columns of each part of a row; K together.
        dtype: that is reckoned with.
        device: that trains.
        storage: where the rows are kept.
        precision: `fp32` keeps values as they are reckoned. `fp16` keeps their differences from the initial ones in
            float16 and the mean of squares in bfloat16, rounded stochastically.
        square_average: of each element, as RMSprop has it; or of each part of a row, sq_i <- ... mean_k(g_k^2), of
            which only a number for each part is kept.
        rounding: bits of a step for the stochastic rounding, from the number of the step.
        eps: what RMSprop adds to the root of the mean of squares.
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
        self._seen: tuple[Tensor, dict[str, Tensor]] | None = None
        self._written = torch.zeros((), dtype=dtype, device=device)
        self.steps = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> Tensor:
        """All rows of lam, as a copy on the device. Shape: [N, K]."""
        everything = torch.arange(self._count, device=self._device)
        return self._decoded(everything, self._store.read(everything, _READ))

    @property
    def square_average(self) -> Tensor:
        """The mean of squares of all rows, as it was when each was last touched. Shape: [N, K], or [N, parts]."""
        self._store.flush()
        return self._store.columns["square_average"]

    @property
    def last_touched(self) -> Tensor:
        """The step that moved each row last; 0 if none did. Shape: [N] int32."""
        self._store.flush()
        return self._store.columns["last_touched"]

    def rows(self, index: Tensor) -> Tensor:
        """A copy of the rows. Shape: index [B] int64 -> [B, K]."""
        kept = self._store.read(index, _READ)
        self._seen = (index, kept)
        return self._decoded(index, kept)

    def prefetch(self, index: Tensor, host: Tensor, *, moves: bool) -> None:
        """Has rows sent to the device that are asked for next.

        Args:
            index: the very tensor that `rows` is given.
            host: the same numbers in host memory.
            moves: whether a step follows.
        """
        self._store.prefetch(index, host, _MOVED if moves else _READ)

    def will_need(self, host: Tensor, *, moves: bool) -> None:
        """Has rows read from the disk, if they are there, that are sent or asked for soon."""
        self._store.will_need(host, _MOVED if moves else _READ)

    @torch.no_grad()
    def rmsprop_step(self, index: Tensor, gradient: Tensor, lr: float, moves: Tensor | None = None) -> None:
        """One optimizer step, with a gradient that is zero outside the given rows.

        Args:
            moves: which of them take the step; the others stay as if they had not been given. All if None.
        Shape:
            index [B] int64 without duplicates, gradient [B, K], moves [B] bool.
        """
        self.steps += 1
        kept = self._kept(index)
        # In place where it can be: with a thousand columns the step is bound by memory.
        decay = torch.full((), self.alpha, dtype=self._dtype, device=self._device)
        untouched = (self.steps - kept["last_touched"]).to(self._dtype)
        square = kept["square_average"].to(self._dtype, copy=moves is not None)
        square.mul_((decay**untouched)[:, None])
        square.add_(self._squared(gradient).mul_(1 - self.alpha))
        descent = (lr * gradient).div_(self._of_elements(square).sqrt().add_(self._eps))
        values = self._decoded(index, kept).sub_(descent)
        last = torch.full_like(kept["last_touched"], self.steps)
        rows = {**self._encoded(index, values, square), "last_touched": last}
        if moves is not None:
            # Written as they were: to leave them out, the host would have to wait for how many there are.
            rows = {name: _where(moves, row, kept[name]) for name, row in rows.items()}
            values = values.masked_fill(~moves[:, None], 0)
        self._written += values.sum()
        self._seen = None
        self._store.write(index, rows)

    def pop_update_sum(self) -> Tensor:
        """The sum of all values written since it was last taken, which is not finite if one of them is not."""
        written, self._written = self._written, torch.zeros_like(self._written)
        return written

    def state_dict(self) -> dict[str, Any]:
        """All state, as tensors and numbers; the tensors are not copies."""
        if self.steps == 0:
            return {"steps": 0}  # all rows are what they were at the start
        self._store.flush()
        return {**self._store.columns, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over the state of a table of the same shape, wherever that was kept."""
        self._store.flush()
        self._seen = None
        for name, column in self._store.columns.items():
            if name in state:
                column.copy_(state[name])
            elif self.steps:
                column.zero_()
        self.steps = int(state["steps"])

    # ----- from what is kept to what is reckoned with, and back

    def _kept(self, index: Tensor) -> dict[str, Tensor]:
        """What is kept of the rows; what `rows` has just read is not read again."""
        seen = self._seen[1] if self._seen is not None and self._seen[0] is index else {}
        missing = [name for name in _MOVED if name not in seen]
        return {**seen, **self._store.read(index, missing)} if missing else seen

    def _decoded(self, index: Tensor, kept: dict[str, Tensor]) -> Tensor:
        if self._half:
            return self._initial(index) + kept["values"].to(self._dtype)
        return torch.where(kept["last_touched"][:, None] > 0, kept["values"], self._initial(index))

    def _encoded(self, index: Tensor, values: Tensor, square: Tensor) -> dict[str, Tensor]:
        if not self._half:
            return {"values": values, "square_average": square}
        assert self._rounding is not None
        noise = torch.empty(values.shape, dtype=torch.int32, device=self._device)
        noise.random_(generator=self._rounding(self.steps))
        values = stochastically(values - self._initial(index), torch.float16, noise)
        if not self._widths:
            square = stochastically(square, torch.bfloat16, noise >> 13)
        return {"values": values, "square_average": square}

    def _squared(self, gradient: Tensor) -> Tensor:
        """Squares of the gradient, or their mean over each part. Shape: [B, K] -> [B, K] or [B, parts]."""
        if not self._widths:
            return gradient.square()
        return torch.stack([part.square().mean(1) for part in gradient.split(self._widths, 1)], 1)

    def _of_elements(self, square: Tensor) -> Tensor:
        """Shape: [B, K] or [B, parts] -> [B, K]."""
        if not self._widths:
            return square
        parts = zip(square.unbind(1), self._widths, strict=True)
        return torch.cat([part[:, None].expand(-1, width) for part, width in parts], 1)


def _where(moves: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Rows of the one or the other. Shape: [B], [B, ...] twice -> [B, ...]."""
    return torch.where(moves.view(-1, *[1] * (new.ndim - 1)), new, old)
