"""Interface of a train loss: its context, its batch, and its result."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline
from autodo.config.run import RunConfig
from autodo.data import DataSplits
from autodo.data.images.device_loader import DeviceLoader
from autodo.distributed.process_group import ProcessGroup
from autodo.evaluation import Evaluation
from autodo.models.encoder import Encoder
from autodo.points.model import PointView


class Optimizer(Protocol):
    """An optimizer that descends the gradients of its parameters."""

    lr: float

    def reset(self, parameters: Iterable[nn.Parameter] | None = None) -> None:
        """Discard the momenta of these parameters; None: of all."""

    def zero_grad(self) -> None:
        """Discard the gradients."""

    def step(self) -> None:
        """Update the parameters."""

    def state_dict(self) -> dict[str, Any]:
        """State that `load_state_dict` continues from."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from such a state."""


class TrainableNetwork(NamedTuple):
    """Encoder and head, `network` of both as it is trained, and its optimizer."""

    encoder: Encoder
    head: nn.Linear
    network: nn.Module
    optimizer: Optimizer


@dataclass(frozen=True)
class ObjectiveContext:
    """Data and settings of a run that an objective may use.

    Args:
        labels: observed labels of the points on this process.
        train_size: number of train points among them; trusted val points, if any, come after them.
        val_images, val_labels: share of the clean val set on this process; only for methods that read val.
        generator: generator of the initial state of the objective.
        second_network: builds another network like that of the run, with other initial weights.
    Shape:
        labels [n] int64, val_labels [m] int64; both on the training device.
    """

    config: RunConfig
    data: DataSplits
    labels: Tensor
    train_size: int
    val_images: DeviceLoader
    val_labels: Tensor
    pipeline: Pipeline
    group: ProcessGroup
    generator: torch.Generator
    second_network: Callable[[], TrainableNetwork]

    @property
    def classes(self) -> int:
        return len(self.data.class_names)

    def class_counts(self, *, oracle: bool) -> Tensor:
        """Number of points of each class in the inner problem, on all processes; at least one.

        Args:
            oracle: count clean labels instead of observed ones.
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
    """Part of a batch on this process, for one step of the inner problem.

    Shape:
        points [b] int64, positions among the points of the process; pixels [b, C, H, W]; labels [b] int64, as observed.
    """

    points: Tensor
    size: int
    """Number of points in the whole batch, on all processes."""
    pixels: Tensor
    labels: Tensor
    view: PointView
    """Meaning of lam for the points."""
    epoch: int
    lr: float
    """Learning rate of the next step of theta."""
    generator: torch.Generator


class Objective:
    """A train loss. `losses` is called once before each step of theta, and updates other state that is learned."""

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        """Loss of each point; theta descends the mean over the batch. Calls `network` exactly once.

        Args:
            network: images -> logits, in train mode.
        Shape:
            -> [b].
        """
        raise NotImplementedError

    def soft_labels(self) -> Tensor | None:
        """Labels of all points on this process that the objective has estimated. Shape: -> [n, C], or None."""
        return None

    def restarts_network(self, epoch: int) -> bool:
        """Whether the epoch begins with the initial weights of the run."""
        return False

    def prepares(self, epoch: int) -> bool:
        """Whether the epoch belongs to a first training, on the train points alone, that yields no classifier."""
        return False

    def epoch_ended(self, epoch: int, val: Evaluation, train: Callable[[], Iterable[Evaluation]]) -> None:
        """Learn from the outputs of the network after the epoch, without augmentation; val is for methods that read it.

        Args:
            val: outputs for this process's val images.
            train: evaluates this process's train points, in chunks.
        """

    def rows(self) -> dict[str, Tensor]:
        """State with a row for each point on this process."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State that is equal on all processes."""
        return {}

    def load(self, rows: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Load the results of `rows` and `state_dict`; `rows` may contain more."""
        for name, values in self.rows().items():
            values.copy_(rows[name])


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)_y of each point. Shape: [b, C], [b] int64 -> [b]."""
    return -logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)
