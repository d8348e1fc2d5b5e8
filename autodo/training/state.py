"""Everything that changes while a run trains, and its form in a checkpoint."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from autodo.augment.adversarial.adversarial_policy import AdversarialPolicy
from autodo.distributed.process_group import ProcessGroup
from autodo.evaluation import Scores
from autodo.objectives import Objective
from autodo.points.model import PointModel
from autodo.progress import ProgressReporter
from autodo.results.outcome import BestEpoch
from autodo.training.finetune import HeadFinetune
from autodo.training.task_model import TaskModel

EpochRow = dict[str, Any]
"""A row of `records.SCHEMAS["epochs"]`."""


@dataclass(frozen=True)
class MidEpochState:
    """Position within an inner loop. The first process has the states of all processes, and writes them.

    Shape:
        loss_sums: [] for each process.
    """

    step: int
    """Steps of the epoch that are done."""
    seconds: float
    """Time that they took."""
    generators: list[Tensor]
    """State of each process's generator."""
    loss_sums: list[Tensor]

    @classmethod
    def gather(
        cls, step: int, seconds: float, generator: torch.Generator, loss_sum: Tensor, group: ProcessGroup
    ) -> Self:
        """The position after a step; all processes must call this."""
        states = group.gather((generator.get_state(), loss_sum.cpu()))
        return cls(step, seconds, [generator for generator, _ in states], [own for _, own in states])

    def restore(self, generator: torch.Generator, loss_sum: Tensor, group: ProcessGroup) -> None:
        """Sets a process's generator and its sum of losses to this position.

        With another number of processes or another kind of device the same course is impossible: they draw other
        numbers, and the first process takes the sum of all losses.
        """
        lengths = {len(state) for state in (*self.generators, generator.get_state())}
        if len(self.generators) == group.size and len(lengths) == 1:
            generator.set_state(self.generators[group.rank])
            loss_sum.copy_(self.loss_sums[group.rank])
        elif group.is_first:
            loss_sum.copy_(torch.stack(self.loss_sums).sum())


@dataclass(eq=False)
class TrainState:
    """Epochs that are done and their figures, and the parts of the run that learn.

    Args:
        fingerprint: of the images; a checkpoint of other images cannot be used.
        online_policy: policy that learns within the run, if it has one.
    """

    fingerprint: str
    model: TaskModel
    points: PointModel
    objective: Objective
    finetune: HeadFinetune | None
    progress: ProgressReporter
    online_policy: AdversarialPolicy | None = None
    epoch: int = 0
    mid_epoch: MidEpochState | None = None
    history: list[EpochRow] = field(default_factory=list)
    best: BestEpoch | None = None

    @property
    def step(self) -> int:
        """Steps of the present epoch that are done, as far as the checkpoint has them."""
        return 0 if self.mid_epoch is None else self.mid_epoch.step

    def pop_mid_epoch(self) -> MidEpochState | None:
        """The position within the present epoch; None from then on."""
        mid_epoch, self.mid_epoch = self.mid_epoch, None
        return mid_epoch

    def improves(self, val: Scores) -> bool:
        """Whether an epoch has a lower val error than the best one so far; ties go to the lower val loss."""
        return self.best is None or (val.error, val.loss) < (self.best.val_error, self.best.val_loss)

    def advance(self, row: EpochRow) -> None:
        """Counts an epoch as done."""
        self.history.append(row)
        self.progress.epoch_ended(row)
        self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that another training of this run needs to continue, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "data": self.fingerprint,
            "midway": None if self.mid_epoch is None else dataclasses.asdict(self.mid_epoch),
            "encoder": self.model.encoder.state_dict(),
            "head": self.model.head.state_dict(),
            "optimizer": self.model.optimizer.state_dict(),
            "average": None if self.model.average is None else self.model.average.state_dict(),
            "history": self.history,
            "best": None if self.best is None else self.best._asdict(),
            "objective": self.objective.state_dict(),
            "finetune": {} if self.finetune is None else self.finetune.optimizer.state_dict(),
            "policy": {} if self.online_policy is None else self.online_policy.state_dict(),
            "points": {**self.points.table.state_dict(), **self.points.rows(), **self.objective.rows()},
            "shared_rows": {} if self.points.shared_table is None else self.points.shared_table.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from such a state."""
        self.model.encoder.load_state_dict(state["encoder"])
        self.model.head.load_state_dict(state["head"])
        self.model.optimizer.load_state_dict(state["optimizer"])
        if self.model.average is not None:
            self.model.average.load_state_dict(state["average"])
        self.points.table.load_state_dict(state["points"])
        if self.points.shared_table is not None:
            self.points.shared_table.load_state_dict(state["shared_rows"])
        for name, rows in self.points.rows().items():
            rows.copy_(state["points"][name])
        self.objective.load(state["points"], state["objective"])
        if self.finetune is not None:
            self.finetune.optimizer.load_state_dict(state["finetune"])
        if self.online_policy is not None:
            self.online_policy.load_state_dict(state["policy"])
        self.history = list(state["history"])
        for row in self.history:
            self.progress.epoch_ended(row)
        self.best = None if state["best"] is None else BestEpoch(**state["best"])
        self.mid_epoch = None if state["midway"] is None else MidEpochState(**state["midway"])
        self.epoch = state["epoch"]
