"""Per-point model g(lambda): the hyperparameters that a method learns, as columns of one table."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from autodo.augment import affine
from autodo.config.bilevel import Part, PointsConfig
from autodo.data.batches import Batch
from autodo.losses import one_hot
from autodo.points import mixture, reweight, soft_labels
from autodo.points.table import PointTable
from autodo.points.table_storage import ON_DEVICE, TableStorage

ROW_CHUNK_SIZE = 2**14
"""Points whose rows are on the device at a time when all are read."""


class PointView(NamedTuple):
    """Meaning of the rows of a batch.

    Shape:
        augment [B, 14 or 35] (`affine`) or None, weights [B], log_targets [B, C] (logarithms of probabilities; -inf
        allowed).
    """

    augment: Tensor | None
    weights: Tensor
    log_targets: Tensor


class Leaves(NamedTuple):
    """Values of lam behind a view, in which it is differentiable.

    Shape:
        rows [B, K] of the points; shared [R, W], or None without shared rows.
    """

    rows: Tensor
    shared: Tensor | None


class PointModel:
    """Per-point model. A part that is not learned has its neutral value: no warp, weight 1, the hard label.

    Soft labels that are posteriors are not columns of lam, but rows of their own; `set_posterior` replaces them.

    Args:
        config: parts to learn; None for methods that learn no lambda.
        labels: observed label of each point. Shape: [N] int64, on the training device.
        storage: place of the rows of points, which changes no result. Shared rows, which every batch reads, stay on the
            device.
        rounding, eps: see `PointTable`.
        shared_generator: function from the name and the number of an event to its generator, equal on all processes,
            for shared rows.
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
        shared_generator: Callable[[str, int], torch.Generator] | None = None,
    ) -> None:
        self.labels = labels
        self.classes = classes
        self.learned = config.learn if config is not None else ()
        self.shared_table: PointTable | None = None
        """Rows of strengths that all points share; None if there are none."""
        initials: dict[Part, tuple[int, Callable[[Tensor], Tensor]]] = {}
        table = partial(
            PointTable,
            dtype=dtype,
            device=labels.device,
            precision=config.precision if config is not None else "fp32",
            square_average=config.square_average if config is not None else "element",
            eps=eps,
        )
        if config is not None:
            strengths = affine.initial_row(config.gate_probability, config.covariance).to(labels.device, dtype)
            smoothing = config.label_smoothing
            count = 1 if config.shared else config.mixture
            own = strengths
            if count is not None:
                assert shared_generator is not None
                self.shared_table = table(
                    lambda rows: strengths.expand(len(rows), -1),
                    count,
                    [len(strengths)],
                    rounding=partial(shared_generator, "rounding of lambda"),
                )
                self._all_shared = torch.arange(count, device=labels.device)
                offsets = mixture.draw_offsets(count, len(strengths), shared_generator("rows of lambda", 0), dtype)
                self._offsets = offsets.to(labels.device)
                # Logits, initially equal; with one row there is nothing to choose.
                own = strengths.new_zeros(count if count > 1 else 0)
            initials = {
                "augment": (len(own), lambda points: own.expand(len(points), -1)),
                "weight": (1, lambda points: strengths.new_zeros(len(points), 1)),
                "soft-label": (
                    classes,
                    lambda points: soft_labels.initial_logits(labels[points], classes, smoothing, dtype),
                ),
            }
        self.posterior: Tensor | None = None
        """Posterior of the clean label of each point, if it is the soft label. Shape: [N, C]."""
        if config is not None and config.soft_label == "posterior":
            self.posterior = one_hot(labels, classes, dtype)
        columns = config.columns if config is not None else ()
        learned = [initials[part] for part in columns]
        widths = [width for width, _ in learned]
        ends = list(accumulate(widths))
        self._columns = {part: slice(end - width, end) for part, width, end in zip(columns, widths, ends, strict=True)}

        def initial(points: Tensor) -> Tensor:
            parts = [rows(points) for _, rows in learned]
            return torch.cat(parts, 1) if parts else torch.empty(len(points), 0, dtype=dtype, device=labels.device)

        stored = [width for width in widths if width]
        self.has_rows = bool(stored)
        """Whether each point has a row of its own."""
        # Without columns there is nothing to store.
        self.table = table(
            initial, len(labels), stored, storage=storage if self.has_rows else ON_DEVICE, rounding=rounding
        )

    def prefetch(self, batches: Iterable[Batch], *, for_update: bool) -> Iterator[Batch]:
        """Yield the batches, while the rows of the next one are sent to the training device.

        Args:
            for_update: whether the rows of each batch take a step.
        """
        if not self.has_rows:
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

    def leaves(self, points: Tensor) -> Leaves:
        """Copies of the values of lam behind these points, as leaves of autograd. Shape: [B] int64."""
        shared = None if self.shared_table is None else self.shared_table.rows(self._all_shared).requires_grad_()
        return Leaves(self.table.rows(points).requires_grad_(), shared)

    def rmsprop_step(self, points: Tensor, gradient: Leaves, lr: float, mask: Tensor | None = None) -> None:
        """Take one optimizer step.

        Args:
            gradient: of `leaves(points)`, that of the shared rows summed over all processes.
            mask: points whose own rows take the step. None: all.
        Shape:
            points [B] int64 without duplicates, mask [B] bool.
        """
        if self.has_rows:
            self.table.rmsprop_step(points, gradient.rows, lr, mask)
        if self.shared_table is not None:
            assert gradient.shared is not None
            self.shared_table.rmsprop_step(self._all_shared, gradient.shared, lr)

    def pop_update_sum(self) -> Tensor:
        """Sum of all values written since the last call; it is not finite if one of them is not."""
        total = self.table.pop_update_sum()
        return total if self.shared_table is None else total + self.shared_table.pop_update_sum()

    def set_posterior(self, posterior: Tensor) -> None:
        """Replace the soft labels of the first points, those of train. Shape: [n, C]."""
        assert self.posterior is not None
        self.posterior[: len(posterior)] = posterior.to(self.posterior)

    def rows(self) -> dict[str, Tensor]:
        """State with a row for each point, in addition to the table."""
        return {} if self.posterior is None else {"posterior": self.posterior}

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

    def view(self, points: Tensor, rows: Tensor | None = None, shared: Tensor | None = None) -> PointView:
        """View of these points.

        Args:
            rows, shared: `leaves(points)`, if the view must be differentiable in them.
        Shape:
            points [B] int64, rows [B, K], shared [R, W].
        """
        lam = self.table.rows(points) if rows is None else rows
        augment = lam[:, self._columns["augment"]] if "augment" in self._columns else None
        if augment is not None and self.shared_table is not None:
            every = self.shared_table.rows(self._all_shared) if shared is None else shared
            augment = mixture.mean_row(augment, every, self._offsets)
        weights = (
            reweight.weight(lam[:, self._columns["weight"]].squeeze(1))
            if "weight" in self._columns
            else lam.new_ones(len(points))
        )
        if "soft-label" in self._columns:
            log_targets = soft_labels.log_soft_label(lam[:, self._columns["soft-label"]])
        elif self.posterior is not None:
            log_targets = self.posterior[points].log()
        else:
            log_targets = one_hot(self.labels[points], self.classes, lam.dtype).log()
        return PointView(augment, weights, log_targets)


def _on_host(view: PointView) -> PointView:
    augment = None if view.augment is None else view.augment.cpu()
    return PointView(augment, view.weights.cpu(), view.log_targets.cpu())
