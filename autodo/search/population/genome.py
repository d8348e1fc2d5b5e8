"""Genomes of population-based augmentation: the 60 integers of a member's policy, and how they change.

The policy has the 15 operations twice, each with a probability of 0..10 tenths and a magnitude of 0..9. Every few
epochs the worst members continue from the weights of the best with numbers changed a little (`explore`). The genomes
of the best member, epoch after epoch, are the schedule that a run replays.
Reference: Ho et al., ICML 2019, section 3.
"""

from collections.abc import Sequence

import numpy as np

from autodo.augment.operations import level_of
from autodo.augment.policy_file import OPERATION_NAMES, OperationStep, PolicyFile, ScheduleStage

NAMES = OPERATION_NAMES * 2
PROBABILITIES, MAGNITUDES = 11, 10
SIZES = (PROBABILITIES, MAGNITUDES) * len(NAMES)
"""Number of values of each number of a genome: probability and magnitude of each operation, in turn."""
LARGEST_MOVE = 3

Genome = list[int]


def random_genome(generator: np.random.Generator) -> Genome:
    """A genome with every number uniform in its range."""
    return [int(generator.integers(size)) for size in SIZES]


def explore(genome: Sequence[int], resample: float, generator: np.random.Generator) -> Genome:
    """Draws each number again with probability `resample`, and otherwise moves it by 0 to 3 up or down."""
    changed = []
    for number, size in zip(genome, SIZES, strict=True):
        if generator.random() < resample:
            changed.append(int(generator.integers(size)))
        else:
            move = int(generator.integers(LARGEST_MOVE + 1)) * (1 if generator.random() < 0.5 else -1)
            changed.append(min(max(number + move, 0), size - 1))
    return changed


def operations(genome: Sequence[int]) -> tuple[OperationStep, ...]:
    """The genome as operations with probabilities and levels; a larger number is always a stronger warp."""
    steps: list[OperationStep] = []
    for name, probability, magnitude in zip(NAMES, genome[::2], genome[1::2], strict=True):
        steps.append((name, probability / (PROBABILITIES - 1), level_of(name, magnitude / (MAGNITUDES - 1))))
    return tuple(steps)


def as_schedule(history: Sequence[tuple[int, Genome]], epochs: int, source: str = "") -> PolicyFile:
    """The schedule of a member.

    Args:
        history: the genomes that it used, each with the epoch from which it used it; the first epoch is 0.
    """
    stages: list[ScheduleStage] = []
    for epoch, genome in history:
        if not stages or stages[-1].operations != operations(genome):
            stages.append(ScheduleStage.model_validate({"from": epoch / epochs, "operations": operations(genome)}))
    return PolicyFile(source=source, schedule=tuple(stages))
