"""g(lambda): what a method learns per point, as columns of one table."""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from autodo.augment import affine
from autodo.config.bilevel import Part, PointsConfig
from autodo.data.batches import Batch
from autodo.losses import one_hot
from autodo.points import reweight, soft_labels
from autodo.points.storage import ON_DEVICE, TableStorage
from autodo.points.table import PointTable

ROW_CHUNK_SIZE = 2**14
"""Points whose rows are on the device at a time when all are asked for."""


class PointView(NamedTuple):
    """What the rows of a batch mean.

    Shape:
        augment [B, 14] or None, weights [B], log_targets [B, C] (logarithms of probabilities; -inf allowed).
    """

    augment: Tensor | None
    weights: Tensor
    log_targets: Tensor


class PointModel:
    """The per-point model. A part that is not learned has its plain value: no warp, weight 1, the hard label.

    Args:
        config: what is learned; None for methods that learn nothing.
        labels: observed label of each point. Shape: [N] int64, on the training device.
        storage: where lam is kept; nothing else about it depends on that.
        rounding: bits of a step for values that are kept in 16 bits, from the number of the step.
        eps: RMSprop's epsilon.
    """

    def __init__(
        self,
        config: PointsConfig | None,
        labels: Tensor,
        classes: int,
        dtype: torch.dtype = torch.float32,
        *,
        storage: TableStorage = ON_DEVICE,
        rounding: Callable[[int], torch.Generator] | None = None,
        eps: float = 1e-8,
    ) -> None:
        self.labels = labels
        self.classes = classes
        self.learned = config.learn if config is not None else ()
        self.shared = config is not None and config.shared
        starts: dict[Part, tuple[int, Callable[[Tensor], Tensor]]] = {}
        if config is not None:
            gates = affine.initial_row(config.gate_probability).to(labels.device, dtype)
            smoothing = config.label_smoothing
            starts = {
                "augment": (len(gates), lambda points: gates.expand(len(points), -1)),
                "weight": (1, lambda points: gates.new_zeros(len(points), 1)),
                "soft-label": (
                    classes,
                    lambda points: soft_labels.initial_logits(labels[points], classes, smoothing, dtype),
                ),
            }
        learned = [starts[part] for part in self.learned]
        widths = [width for width, _ in learned]
        ends = list(accumulate(widths))
        self._columns = {
            part: slice(end - width, end) for part, width, end in zip(self.learned, widths, ends, strict=True)
        }

        def initial(points: Tensor) -> Tensor:
            parts = [rows(points) for _, rows in learned]
            return torch.cat(parts, 1) if parts else torch.empty(len(points), 0, dtype=dtype, device=labels.device)

        self.table = PointTable(
            initial,
            1 if self.shared else len(labels),
            widths,
            dtype=dtype,
            device=labels.device,
            # One row is read by every batch, so it stays where they are; so do rows of no columns.
            storage=storage if self.learned and not self.shared else ON_DEVICE,
            precision=config.precision if config is not None else "fp32",
            square_average=config.square_average if config is not None else "element",
            rounding=rounding,
            eps=eps,
        )

    def prefetch(self, batches: Iterable[Batch], *, moves: bool) -> Iterator[Batch]:
        """The batches; while one is worked on, the rows of the next are sent to the device that trains.

        Args:
            moves: whether each batch's rows take a step.
        """
        if self.shared or not self.learned:
            yield from batches
            return
        coming = list(batches)
        index = [batch.points for batch in coming]
        # Once for all, because the host would wait for a GPU at each of them. There may be none left of an epoch.
        hosts = torch.cat(index).cpu().split([len(points) for points in index]) if index else ()
        for step, batch in enumerate(coming):
            if step + 2 < len(coming):
                self.table.will_need(hosts[step + 2], moves=moves)
            if step + 1 < len(coming):
                self.table.prefetch(index[step + 1], hosts[step + 1], moves=moves)
            yield batch

    @property
    def learns_augmentation(self) -> bool:
        """Whether the warp depends on lam."""
        return "augment" in self._columns

    def row_index(self, points: Tensor) -> Tensor:
        """The table's rows of these points, without duplicates: one row for all if shared. Shape: [B] -> [R]."""
        return points.new_zeros(1) if self.shared else points

    def view_on_host(self, points: range) -> PointView:
        """What lam says of these points, in host memory; only a part of them is on the device at a time."""
        parts = torch.arange(points.start, points.stop, device=self.labels.device).split(ROW_CHUNK_SIZE)
        views = [_on_host(self.view(points)) for points in parts]
        augments = [view.augment for view in views if view.augment is not None]
        return PointView(
            torch.cat(augments) if augments else None,
            torch.cat([view.weights for view in views]),
            torch.cat([view.log_targets for view in views]),
        )

    def weights(self, points: Tensor) -> Tensor:
        """Loss weights of any number of points; only a part of their rows is on the device at a time.

        Shape:
            points [B] int64 -> [B].
        """
        return torch.cat([self.view(part).weights for part in points.split(ROW_CHUNK_SIZE)])

    def view(self, points: Tensor, rows: Tensor | None = None) -> PointView:
        """What lam says of these points.

        Args:
            rows: `table.rows(row_index(points))`, if the view shall be differentiable in them.
        Shape:
            points [B] int64, rows [R, K].
        """
        lam = self.table.rows(self.row_index(points)) if rows is None else rows
        lam = lam.expand(len(points), -1)
        augment = lam[:, self._columns["augment"]] if "augment" in self._columns else None
        weights = (
            reweight.weight(lam[:, self._columns["weight"]].squeeze(1))
            if "weight" in self._columns
            else lam.new_ones(len(points))
        )
        if "soft-label" in self._columns:
            log_targets = soft_labels.log_soft_label(lam[:, self._columns["soft-label"]])
        else:
            log_targets = one_hot(self.labels[points], self.classes, lam.dtype).log()
        return PointView(augment, weights, log_targets)


def _on_host(view: PointView) -> PointView:
    augment = None if view.augment is None else view.augment.cpu()
    return PointView(augment, view.weights.cpu(), view.log_targets.cpu())
