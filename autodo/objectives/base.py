"""What an objective is given, and what it gives."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline
from autodo.config.run import RunConfig
from autodo.data import DataSplits
from autodo.data.images.device_loader import DeviceLoader
from autodo.distributed.process_group import ProcessGroup
from autodo.points.model import PointView


@dataclass(frozen=True)
class ObjectiveContext:
    """What an objective may know of its run.

    Args:
        labels: observed labels of this worker's points.
        val_images, val_labels: this worker's share of the clean val set; for objectives that say that they read it.
        generator: for what an objective begins from.
    Shape:
        labels [n] int64, val_labels [m] int64; both on the training device.
    """

    config: RunConfig
    data: DataSplits
    labels: Tensor
    val_images: DeviceLoader
    val_labels: Tensor
    pipeline: Pipeline
    group: ProcessGroup
    generator: torch.Generator

    @property
    def classes(self) -> int:
        return len(self.data.class_names)

    def class_counts(self, *, oracle: bool) -> Tensor:
        """How many points of each class the inner problem has, over all workers; a class without any counts as one.

        Args:
            oracle: count the clean labels, not the observed ones.
        Shape:
            -> [C] float64, on the training device.
        """
        data, counts = self.data, np.zeros(self.classes, dtype=np.int64)
        if self.config.trains_on_train:
            counts += np.bincount(data.train.clean_labels if oracle else data.train.labels, minlength=self.classes)
        if self.config.trains_on_val:
            counts += np.bincount(data.val.labels, minlength=self.classes)
        return torch.from_numpy(counts).double().clamp(min=1).to(self.labels.device)


class TrainStep(NamedTuple):
    """What one step of the inner phase trains on: a worker's part of a batch.

    Shape:
        points [b] int64, positions among the worker's points; pixels [b, C, H, W]; labels [b] int64, as observed.
    """

    points: Tensor
    size: int
    """Points of the whole batch, over all workers."""
    pixels: Tensor
    labels: Tensor
    view: PointView
    """What lam says of the points."""
    epoch: int
    lr: float
    """Of the coming step of theta."""
    generator: torch.Generator


class Objective:
    """A train loss. What it learns besides theta moves when `losses` is called, once before every step of theta."""

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        """Loss of each point, whose mean over the batch theta descends. Calls `network` on a batch exactly once.

        Args:
            network: images -> logits, in train mode.
        Shape:
            -> [b].
        """
        raise NotImplementedError

    def rows(self) -> dict[str, Tensor]:
        """Its state that has a row for each of the worker's points."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The rest of its state, the same on all workers."""
        return {}

    def load(self, rows: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Takes over what `rows` and `state_dict` gave; `rows` may hold more."""
        for name, values in self.rows().items():
            values.copy_(rows[name])


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)_y of each point. Shape: [b, C], [b] int64 -> [b]."""
    return -logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)
