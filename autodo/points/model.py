"""Per-point model g(lambda): the hyperparameters that a method learns, as columns of one table."""

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
from autodo.points.table import PointTable
from autodo.points.table_storage import ON_DEVICE, TableStorage

ROW_CHUNK_SIZE = 2**14
"""Points whose rows are on the device at a time when all are read."""


class PointView(NamedTuple):
    """Meaning of the rows of a batch.

    Shape:
        augment [B, 14] or None, weights [B], log_targets [B, C] (logarithms of probabilities; -inf allowed).
    """

    augment: Tensor | None
    weights: Tensor
    log_targets: Tensor


class PointModel:
    """Per-point model. A part that is not learned has its neutral value: no warp, weight 1, the hard label.

    Args:
        config: parts to learn; None for methods that learn no lambda.
        labels: observed label of each point. Shape: [N] int64, on the training device.
        storage: place of lam, which changes no result.
        rounding, eps: see `PointTable`.
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
        initials: dict[Part, tuple[int, Callable[[Tensor], Tensor]]] = {}
        if config is not None:
            gates = affine.initial_row(config.gate_probability).to(labels.device, dtype)
            smoothing = config.label_smoothing
            initials = {
                "augment": (len(gates), lambda points: gates.expand(len(points), -1)),
                "weight": (1, lambda points: gates.new_zeros(len(points), 1)),
                "soft-label": (
                    classes,
                    lambda points: soft_labels.initial_logits(labels[points], classes, smoothing, dtype),
                ),
            }
        learned = [initials[part] for part in self.learned]
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
            # A shared row is read by every batch, so it stays on the device; so do rows without columns.
            storage=storage if self.learned and not self.shared else ON_DEVICE,
            precision=config.precision if config is not None else "fp32",
            square_average=config.square_average if config is not None else "element",
            rounding=rounding,
            eps=eps,
        )

    def prefetch(self, batches: Iterable[Batch], *, for_update: bool) -> Iterator[Batch]:
        """Yield the batches, while the rows of the next one are sent to the training device.

        Args:
            for_update: whether the rows of each batch take a step.
        """
        if self.shared or not self.learned:
            yield from batches
            return
        batches = list(batches)
        index = [batch.points for batch in batches]
        # One copy for all batches, because each copy makes the host wait for the GPU. An epoch may have none left.
        hosts = torch.cat(index).cpu().split([len(points) for points in index]) if index else ()
        for step, batch in enumerate(batches):
            if step + 2 < len(batches):
                self.table.will_need(hosts[step + 2], for_update=for_update)
            if step + 1 < len(batches):
                self.table.prefetch(index[step + 1], hosts[step + 1], for_update=for_update)
            yield batch

    @property
    def learns_augmentation(self) -> bool:
        """Whether the warp depends on lam."""
        return "augment" in self._columns

    def row_index(self, points: Tensor) -> Tensor:
        """Rows of the table for these points, without duplicates: one for all if shared. Shape: [B] -> [R]."""
        return points.new_zeros(1) if self.shared else points

    def view_on_host(self, points: range) -> PointView:
        """View of these points in host memory; only a chunk of them is on the device at a time."""
        parts = torch.arange(points.start, points.stop, device=self.labels.device).split(ROW_CHUNK_SIZE)
        views = [_on_host(self.view(points)) for points in parts]
        augments = [view.augment for view in views if view.augment is not None]
        return PointView(
            torch.cat(augments) if augments else None,
            torch.cat([view.weights for view in views]),
            torch.cat([view.log_targets for view in views]),
        )

    def weights(self, points: Tensor) -> Tensor:
        """Loss weights of any number of points; only a chunk of their rows is on the device at a time.

        Shape:
            points [B] int64 -> [B].
        """
        return torch.cat([self.view(part).weights for part in points.split(ROW_CHUNK_SIZE)])

    def view(self, points: Tensor, rows: Tensor | None = None) -> PointView:
        """View of these points.

        Args:
            rows: `table.rows(row_index(points))`, if the view must be differentiable in them.
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
