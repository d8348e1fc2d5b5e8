"""The kinds of policies: how each draws operations and their values for the images of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from autodo.augment.magnitude_ranges import (
    AUTOAUGMENT,
    COLOUR,
    FROM_A_TENTH,
    ORIGINAL,
    PAPER,
    PUBLISHED,
    WIDE,
    MagnitudeRanges,
    OperationSampler,
)
from autodo.augment.operations import NAMES
from autodo.augment.plugin_operations import ranges_of
from autodo.augment.policy_file import PolicyFile, ScheduleStage
from autodo.config.policy import Factors, OperationSet, PolicyConfig

IDENTITY = NAMES.index("Identity")
Steps = Sequence[tuple[str, float, float]]
"""Operations that follow one another, each as (name, probability, level)."""

# Probabilities of applying 0, 1, 2 operations of a schedule: Ho et al. 2019, section 3.2.
COUNT_PROBABILITIES = (0.2, 0.3, 0.5)
# Upper end of RandAugment's and TrivialAugment's scale of magnitudes.
LARGEST_MAGNITUDE = 30


class Draws(NamedTuple):
    """The operations of each image of a batch, one column per step.

    Shape:
        operation [B, L] int64: positions in `operations.NAMES`, 0 is Identity; value [B, L] float: in the operation's
        units, with its sign; centre [B, L, 2] in [0, 1): (x, y) of Cutout's square, as shares of the sides.
    """

    operation: Tensor
    value: Tensor
    centre: Tensor


class Policy(ABC):
    """A distribution over sequences of operations."""

    @abstractmethod
    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        """Draws a sequence for each of `batch` images, on the generator's device."""

    def at(self, progress: float) -> "Policy":
        """The policy at a share of the training, in [0, 1); the same policy throughout unless it is a schedule."""
        return self


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """U(0, 1) on the generator's device. Shape: -> `shape` float32."""
    return torch.rand(shape, generator=generator, device=generator.device)


def add_centres(operation: Tensor, value: Tensor, generator: torch.Generator) -> Draws:
    """Draws with these operations and values, and uniform centres. Shape: operation, value [B, L]."""
    return Draws(operation, value, uniform((*operation.shape, 2), generator))


class StepTable:
    """Lists of steps as tensors; short ones are padded with Identity."""

    def __init__(self, lists: Sequence[Steps]) -> None:
        longest = max(map(len, lists))
        padded = [[*steps, *[("Identity", 0.0, 0.0)] * (longest - len(steps))] for steps in lists]
        self.operation = torch.tensor([[NAMES.index(name) for name, _, _ in steps] for steps in padded])
        self.number = torch.tensor([[step[1:] for step in steps] for steps in padded])

    def __len__(self) -> int:
        return len(self.operation)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Operation, probability, level, copied to the device once. Shape: -> [lists, L] each."""
        self.operation, self.number = self.operation.to(device), self.number.to(device)
        return self.operation, self.number[..., 0], self.number[..., 1]


class SubPolicies(Policy):
    """Draws one sub-policy per image; its operations follow one another, each with its probability.

    Args:
        weights: relative probabilities of the sub-policies; None: they are equal. Shape: [sub-policies].
    Shape:
        draw -> [B, L] with L the longest sub-policy.
    Reference: Lim et al. 2019, section 3.1; Cubuk et al. 2019, section 3.
    """

    def __init__(
        self, sub_policies: Sequence[Steps], ranges: MagnitudeRanges = PUBLISHED, weights: Tensor | None = None
    ) -> None:
        self._table = StepTable(sub_policies)
        self._sampler = OperationSampler(ranges)
        self._ends = None if weights is None else weights.double().cumsum(0)

    def choose(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draws the number of a sub-policy for each image. Shape: -> [batch] int64."""
        device = generator.device
        if self._ends is None:
            return torch.randint(len(self._table), (batch,), generator=generator, device=device)
        self._ends = self._ends.to(device)
        place = torch.rand(batch, generator=generator, device=device, dtype=torch.float64) * self._ends[-1]
        return torch.searchsorted(self._ends, place, right=True).clamp(max=len(self._table) - 1)

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        operation, probability, level = self._table.on(generator.device)
        chosen = self.choose(batch, generator)
        operation = operation[chosen]
        applied = uniform((batch, operation.shape[1]), generator) < probability[chosen]
        operation = torch.where(applied, operation, IDENTITY)
        return add_centres(operation, self._sampler.draw_values(operation, level[chosen], generator), generator)


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


class ShuffledPolicy(Policy):
    """A stage of a schedule: its operations in random order, each tried with its probability, until k were applied.

    P(k = 0, 1, 2) = 0.2, 0.3, 0.5.

    Shape:
        draw -> [B, 2].
    Reference: Ho et al. 2019, section 3.2, algorithm 1.
    """

    def __init__(self, operations: Steps, ranges: MagnitudeRanges = PUBLISHED) -> None:
        self._table = StepTable([operations])
        self._sampler = OperationSampler(ranges)
        self._most = min(len(operations), len(COUNT_PROBABILITIES) - 1)

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        operation, probability, level = (column[0] for column in self._table.on(generator.device))
        shape = (batch, len(operation))
        # The order is that of random keys; operations that were not drawn come last.
        missed = uniform(shape, generator) >= probability
        key, first = (uniform(shape, generator) + missed).topk(self._most, largest=False, sorted=True)
        at_least_1, at_least_2 = COUNT_PROBABILITIES[1] + COUNT_PROBABILITIES[2], COUNT_PROBABILITIES[2]
        share = uniform((batch, 1), generator)
        count = (share < at_least_1).long() + (share < at_least_2)
        applied = (key < 1) & (torch.arange(self._most, device=generator.device) < count)
        chosen = torch.where(applied, operation[first], IDENTITY)
        return add_centres(chosen, self._sampler.draw_values(chosen, level[first], generator), generator)


class PolicySchedule(Policy):
    """A policy for each share of the training.

    Args:
        stages: by ascending start, the first at 0.
        sub_policies: those that the weights of the stages belong to.
    Reference: Ho et al. 2019, section 3.
    """

    def __init__(
        self, stages: Sequence[ScheduleStage], sub_policies: Sequence[Steps] = (), ranges: MagnitudeRanges = PUBLISHED
    ) -> None:
        self._stages = [(stage.start, _policy_of(stage, sub_policies, ranges)) for stage in stages]

    def at(self, progress: float) -> Policy:
        """The last stage that has begun."""
        return [policy for start, policy in self._stages if start <= progress][-1]

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        """Draws from the first stage."""
        return self.at(0.0).draw(batch, generator)


def _policy_of(stage: ScheduleStage, sub_policies: Sequence[Steps], ranges: MagnitudeRanges) -> Policy:
    if stage.weights:
        return SubPolicies(sub_policies, ranges, torch.tensor(stage.weights))
    return ShuffledPolicy(stage.operations, ranges)


class RandAugmentPolicy(Policy):
    """`draws` operations, uniformly with replacement, of level u M/30 with u = 1 or u ~ U(0, 1).

    Args:
        ranges: the operations drawn from and what their levels mean; see `autodo.augment.magnitude_ranges`.
        fixed: u = 1 (the original); otherwise u is drawn for each operation (AutoDO's configuration).
    Shape:
        draw -> [B, draws].
    Reference: Cubuk et al. 2020, section 3.1; Gudovskiy et al. 2021, section 5.1.
    """

    def __init__(self, ranges: MagnitudeRanges, draws: int, magnitude: float, fixed: bool) -> None:
        self._sampler = OperationSampler(ranges)
        self._draws = draws
        self._level = magnitude / LARGEST_MAGNITUDE
        self._fixed = fixed

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        shape = (batch, self._draws)
        operation = self._sampler.draw_operations(shape, generator)
        level = torch.ones(shape, device=generator.device) if self._fixed else uniform(shape, generator)
        return add_centres(operation, self._sampler.draw_values(operation, level * self._level, generator), generator)


class TrivialAugmentPolicy(Policy):
    """One operation of the wide ranges, drawn uniformly, of level i/30 with i drawn uniformly from 0..30.

    Shape:
        draw -> [B, 1].
    Reference: Müller and Hutter 2021, algorithm 1 and table 1 (wide).
    """

    def __init__(self) -> None:
        self._sampler = OperationSampler(WIDE)

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        operation = self._sampler.draw_operations((batch, 1), generator)
        bins = torch.randint(LARGEST_MAGNITUDE + 1, (batch, 1), generator=generator, device=generator.device)
        return add_centres(
            operation, self._sampler.draw_values(operation, bins / LARGEST_MAGNITUDE, generator), generator
        )


class UniformAugmentPolicy(Policy):
    """`draws` of the 15 operations, uniformly with replacement, each applied with a probability p ~ U(0, 1).

    Levels are U(0, 1) too.

    Shape:
        draw -> [B, draws].
    Reference: LingChen et al. 2020, section 3.3.
    """

    def __init__(self, draws: int) -> None:
        self._sampler = OperationSampler(PUBLISHED)
        self._draws = draws

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        shape = (batch, self._draws)
        applied = uniform(shape, generator) < uniform(shape, generator)
        operation = torch.where(applied, self._sampler.draw_operations(shape, generator), IDENTITY)
        return add_centres(
            operation, self._sampler.draw_values(operation, uniform(shape, generator), generator), generator
        )


_FACTORS: dict[Factors, MagnitudeRanges] = {"around-1": PAPER, "from-0.1": FROM_A_TENTH}


def _ranges(operations: OperationSet, factors: Factors) -> MagnitudeRanges:
    return ORIGINAL if operations == "original" else _FACTORS[factors]


def _colour_ranges(factors: Factors) -> MagnitudeRanges:
    return {name: _FACTORS[factors][name] for name in COLOUR}


def _from_data(found: PolicyFile | None) -> Policy:
    assert found is not None, "the policy must be read or searched before the training"
    ranges = ranges_of(found)
    if found.schedule:
        return PolicySchedule(found.schedule, found.sub_policies, ranges)
    return SubPolicies(found.sub_policies, ranges)


_BUILDERS: Mapping[str, Callable[[Any, PolicyFile | None], Policy]] = {
    "randaugment": lambda c, _: RandAugmentPolicy(_ranges(c.operations, c.factors), c.draws, c.magnitude, c.fixed),
    "colour": lambda c, _: RandAugmentPolicy(_colour_ranges(c.factors), c.draws, c.magnitude, fixed=False),
    "autoaugment": lambda c, _: autoaugment(c.table),
    "trivialaugment": lambda c, _: TrivialAugmentPolicy(),
    "uniformaugment": lambda c, _: UniformAugmentPolicy(c.draws),
    "file": lambda c, found: _from_data(found),
    "searched": lambda c, found: _from_data(found),
}


def build_policy(config: PolicyConfig, found: PolicyFile | None = None) -> Policy:
    """Builds the policy of a config.

    Args:
        found: the policy of the file or search, for the kinds `file` and `searched`.
    """
    return _BUILDERS[config.kind](config, found)
