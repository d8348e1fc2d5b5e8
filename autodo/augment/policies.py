"""The policies: how the operations, their probabilities and their levels are drawn for each image."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from autodo.augment.draws import Draws, complete, uniform
from autodo.augment.operations import NAMES
from autodo.augment.policy_file import Stage
from autodo.augment.ranges import AUTOAUGMENT, PUBLISHED, WIDE, Ranges, Scale

IDENTITY = NAMES.index("Identity")
Steps = Sequence[tuple[str, float, float]]
"""(operation, probability, level), one after another."""

# Of applying 0, 1, 2 operations of a schedule: Ho et al. 2019, section 3.2.
COUNT_PROBABILITIES = (0.2, 0.3, 0.5)
# Where RandAugment and TrivialAugment end their scale of magnitudes.
LARGEST_MAGNITUDE = 30


class Unchanging:
    """A policy that is the same throughout the training."""

    def at(self, progress: float) -> Self:
        """Itself."""
        return self


class StepTable:
    """Lists of steps as tensors, short ones filled up with Identity."""

    def __init__(self, lists: Sequence[Steps]) -> None:
        longest = max(map(len, lists))
        padded = [[*steps, *[("Identity", 0.0, 0.0)] * (longest - len(steps))] for steps in lists]
        self.operation = torch.tensor([[NAMES.index(name) for name, _, _ in steps] for steps in padded])
        self.number = torch.tensor([[step[1:] for step in steps] for steps in padded])

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Operation, probability, level, copied to the device once. Shape: -> [lists, L] each."""
        self.operation, self.number = self.operation.to(device), self.number.to(device)
        return self.operation, self.number[..., 0], self.number[..., 1]


class SubPolicies(Unchanging):
    """One sub-policy drawn uniformly per image; its operations in order, each with its probability.

    Shape:
        draw -> [B, L] with L the longest sub-policy.
    Reference: Lim et al. 2019, section 3.1; Cubuk et al. 2019, section 3.
    """

    def __init__(self, sub_policies: Sequence[Steps], ranges: Ranges = PUBLISHED) -> None:
        self._table = StepTable(sub_policies)
        self._scale = Scale(ranges)

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        operation, probability, level = self._table.on(generator.device)
        chosen = torch.randint(len(operation), (batch,), generator=generator, device=generator.device)
        operation = operation[chosen]
        applied = uniform((batch, operation.shape[1]), generator) < probability[chosen]
        operation = torch.where(applied, operation, IDENTITY)
        return complete(operation, self._scale.values(operation, level[chosen], generator), generator)


def autoaugment(table: str) -> SubPolicies:
    """A published table of 25 sub-policies, as torchvision ships it: bins 0..9 of the range are levels 0..1.

    Args:
        table: cifar10, svhn or imagenet.
    Reference: Cubuk et al. 2019, tables 7 to 9.
    """
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    policies = AutoAugment(AutoAugmentPolicy(table)).policies
    sub_policies = [[(name, probability, (bin_ or 0) / 9) for name, probability, bin_ in steps] for steps in policies]
    return SubPolicies(sub_policies, AUTOAUGMENT)


class Shuffled(Unchanging):
    """A stage of a schedule: its operations in random order, each tried with its probability, until k were applied.

    P(k = 0, 1, 2) = 0.2, 0.3, 0.5.

    Shape:
        draw -> [B, 2].
    Reference: Ho et al. 2019, section 3.2, algorithm 1.
    """

    def __init__(self, operations: Steps) -> None:
        self._table = StepTable([operations])
        self._scale = Scale(PUBLISHED)
        self._most = min(len(operations), len(COUNT_PROBABILITIES) - 1)

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        operation, probability, level = (column[0] for column in self._table.on(generator.device))
        shape = (batch, len(operation))
        # The order is that of random keys; what was not drawn comes last.
        missed = uniform(shape, generator) >= probability
        key, first = (uniform(shape, generator) + missed).topk(self._most, largest=False, sorted=True)
        at_least_1, at_least_2 = COUNT_PROBABILITIES[1] + COUNT_PROBABILITIES[2], COUNT_PROBABILITIES[2]
        share = uniform((batch, 1), generator)
        count = (share < at_least_1).long() + (share < at_least_2)
        applied = (key < 1) & (torch.arange(self._most, device=generator.device) < count)
        chosen = torch.where(applied, operation[first], IDENTITY)
        return complete(chosen, self._scale.values(chosen, level[first], generator), generator)


class Schedule:
    """A policy for each share of the training.

    Args:
        stages: by ascending start, the first at 0.
    Reference: Ho et al. 2019, section 3.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = [(stage.start, Shuffled(stage.operations)) for stage in stages]

    def at(self, progress: float) -> Shuffled:
        """The last stage that has begun."""
        return [policy for start, policy in self._stages if start <= progress][-1]

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        """Of the first stage."""
        return self.at(0.0).draw(batch, generator)


class RandAugment(Unchanging):
    """`draws` operations, uniformly with replacement, of level u M/30 with u = 1 or u ~ U(0, 1).

    Args:
        ranges: the operations drawn from and what their levels mean; see `autodo.augment.ranges`.
        fixed: u = 1 (the original); otherwise u is drawn for each operation (AutoDO's configuration).
    Shape:
        draw -> [B, draws].
    Reference: Cubuk et al. 2020, section 3.1; Gudovskiy et al. 2021, section 5.1.
    """

    def __init__(self, ranges: Ranges, draws: int, magnitude: float, fixed: bool) -> None:
        self._scale = Scale(ranges)
        self._draws = draws
        self._level = magnitude / LARGEST_MAGNITUDE
        self._fixed = fixed

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        shape = (batch, self._draws)
        operation = self._scale.draw(shape, generator)
        level = torch.ones(shape, device=generator.device) if self._fixed else uniform(shape, generator)
        return complete(operation, self._scale.values(operation, level * self._level, generator), generator)


class TrivialAugment(Unchanging):
    """One operation of the wide ranges, drawn uniformly, of level i/30 with i drawn uniformly from 0..30.

    Shape:
        draw -> [B, 1].
    Reference: Müller and Hutter 2021, algorithm 1 and table 1 (wide).
    """

    def __init__(self) -> None:
        self._scale = Scale(WIDE)

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        operation = self._scale.draw((batch, 1), generator)
        bins = torch.randint(LARGEST_MAGNITUDE + 1, (batch, 1), generator=generator, device=generator.device)
        return complete(operation, self._scale.values(operation, bins / LARGEST_MAGNITUDE, generator), generator)


class UniformAugment(Unchanging):
    """`draws` of the 15 operations, uniformly with replacement, each applied with a probability p ~ U(0, 1).

    Levels are U(0, 1) too.

    Shape:
        draw -> [B, draws].
    Reference: LingChen et al. 2020, section 3.3.
    """

    def __init__(self, draws: int) -> None:
        self._scale = Scale(PUBLISHED)
        self._draws = draws

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        shape = (batch, self._draws)
        applied = uniform(shape, generator) < uniform(shape, generator)
        operation = torch.where(applied, self._scale.draw(shape, generator), IDENTITY)
        return complete(operation, self._scale.values(operation, uniform(shape, generator), generator), generator)
