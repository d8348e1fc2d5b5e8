"""g(lambda): what a method learns per point, as columns of one table."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from autodo.augment import affine
from autodo.config import PointsConfig
from autodo.points import reweight, soft_labels
from autodo.points.table import PointTable


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
    """

    def __init__(
        self, config: PointsConfig | None, labels: Tensor, classes: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.labels = labels
        self.classes = classes
        self.learned = config.learn if config is not None else ()
        self.shared = config is not None and config.shared
        blocks: list[Tensor] = []
        self._columns: dict[str, slice] = {}
        width = 0
        for part in self.learned:
            assert config is not None
            if part == "augment":
                block = affine.initial_row(config.gate_probability).to(labels.device, dtype).expand(len(labels), -1)
            elif part == "weight":
                block = torch.zeros(len(labels), 1, dtype=dtype, device=labels.device)
            else:
                block = soft_labels.initial_logits(labels, classes, config.label_smoothing, dtype)
            blocks.append(block)
            self._columns[part] = slice(width, width + block.shape[1])
            width += block.shape[1]
        initial = torch.cat(blocks, 1) if blocks else torch.empty(len(labels), 0, dtype=dtype, device=labels.device)
        self.table = PointTable(initial[:1] if self.shared else initial)

    @property
    def learns_augmentation(self) -> bool:
        """Whether the warp depends on lam."""
        return "augment" in self._columns

    def row_index(self, points: Tensor) -> Tensor:
        """The table's rows of these points, without duplicates: one row for all if shared. Shape: [B] -> [R]."""
        return points.new_zeros(1) if self.shared else points

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
            log_targets = F.one_hot(self.labels[points], self.classes).to(lam.dtype).log()
        return PointView(augment, weights, log_targets)
