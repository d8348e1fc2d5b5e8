"""What a checkpoint within an inner phase needs besides the networks, their optimizer and the objective."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from autodo.distributed.process_group import ProcessGroup


@dataclass(frozen=True)
class MidEpochState:
    """Where an inner phase stands. What each worker has is known to the first one, which writes it.

    Shape:
        loss_sums: of each worker [].
    """

    step: int
    """Steps of the epoch that are done."""
    seconds: float
    """That they took."""
    generators: list[Tensor]
    """State of each worker's generator."""
    loss_sums: list[Tensor]

    @classmethod
    def of(cls, step: int, seconds: float, generator: torch.Generator, loss_sum: Tensor, group: ProcessGroup) -> Self:
        """After a step; all workers must ask for it."""
        hands = group.gather((generator.get_state(), loss_sum.cpu()))
        return cls(step, seconds, [state for state, _ in hands], [own for _, own in hands])

    def restore(self, generator: torch.Generator, loss_sum: Tensor, group: ProcessGroup) -> None:
        """Takes a worker's generator and its sum of losses to where they were.

        Other workers than those that were there, or another kind of device, cannot take the same course: they draw
        anew, and the sum of all losses is the first one's.
        """
        lengths = {len(state) for state in (*self.generators, generator.get_state())}
        if len(self.generators) == group.size and len(lengths) == 1:
            generator.set_state(self.generators[group.rank])
            loss_sum.copy_(self.loss_sums[group.rank])
        elif group.is_first:
            loss_sum.copy_(torch.stack(self.loss_sums).sum())
