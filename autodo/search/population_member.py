"""Population-based augmentation: 60 integers that a population of models trains with, and how they change.

Each member trains with its own policy, of 15 operations twice, each with a probability of 0..10 tenths and a magnitude
of 0..9. Every few epochs the worst members continue from the weights of the best with numbers changed a little
(`explore`). What the best member used, epoch after epoch, is the schedule that a run replays.
Here is one member; which member trains when is decided in `orchestration/search/population_searches.py`.
Reference: Ho et al., ICML 2019, section 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autodo.augment.operations import OPERATIONS
from autodo.augment.policies import build_policy
from autodo.augment.policy_file import OPERATION_NAMES, OperationStep, PolicyFile, ScheduleStage
from autodo.config.policy import PopulationSearch, SearchedPolicy
from autodo.config.run import RunConfig
from autodo.data.prepare import DataSplits
from autodo.results.provenance import device_name
from autodo.search.proxy_task import proxy_data, proxy_run, split_held_out
from autodo.search.subset import search_subset
from autodo.search.tasks import search_config
from autodo.seeds import numpy_generator
from autodo.training.trainer import Trainer

STEPS = OPERATION_NAMES * 2
NUMBERS = 2 * len(STEPS)
"""Of a genome: probability and magnitude of each operation, in turn."""
PROBABILITIES, MAGNITUDES = 11, 10
LARGEST_MOVE = 3

Genome = list[int]


def random_genome(generator: np.random.Generator) -> Genome:
    """Every number uniform in its range."""
    return [int(generator.integers(size)) for size in _sizes()]


def explore(genome: Sequence[int], resample: float, generator: np.random.Generator) -> Genome:
    """The genome with each number drawn anew, with probability `resample`, or else moved by 0 to 3 up or down."""
    changed = []
    for number, size in zip(genome, _sizes(), strict=True):
        if generator.random() < resample:
            changed.append(int(generator.integers(size)))
        else:
            move = int(generator.integers(LARGEST_MOVE + 1)) * (1 if generator.random() < 0.5 else -1)
            changed.append(min(max(number + move, 0), size - 1))
    return changed


def operations(genome: Sequence[int]) -> tuple[OperationStep, ...]:
    """The genome as operations with probabilities and levels.

    A policy's level runs from one end of the range to the other, and for operations with a sign 1/2 is nothing: there
    magnitude 0..9 becomes level 0.5..1, so that a larger number is always a stronger warp.
    """
    steps: list[OperationStep] = []
    for name, (probability, magnitude) in zip(STEPS, zip(genome[::2], genome[1::2], strict=True), strict=True):
        level = magnitude / (MAGNITUDES - 1)
        steps.append((name, probability / (PROBABILITIES - 1), 0.5 + level / 2 if OPERATIONS[name].signed else level))
    return tuple(steps)


def as_schedule(history: Sequence[tuple[int, Genome]], epochs: int, source: str = "") -> PolicyFile:
    """What a member used: `history` holds the epoch from which on it used a genome, the first of them 0."""
    stages: list[ScheduleStage] = []
    for epoch, genome in history:
        if not stages or stages[-1].operations != operations(genome):
            stages.append(ScheduleStage.model_validate({"from": epoch / epochs, "operations": operations(genome)}))
    return PolicyFile(source=source, schedule=tuple(stages))


class PopulationMember:
    """One of the population: a network on a part of the distorted train points, scored on another part of them.

    All members begin with the same weights and see the same batches: what they differ in is their policies.

    Args:
        data: from `autodo.data.prepare` with the same config.
    Raises:
        DataError: if fewer than two classes have two images.
    """

    def __init__(self, config: RunConfig, data: DataSplits, device: str = "cpu") -> None:
        search: PopulationSearch = search_config(config)
        images, labels = search_subset(data, search.images, config.seed)
        parts = split_held_out(labels, search.held_share, numpy_generator(config.seed, "search", "split"))
        run = proxy_run(config, "member", policy=config.policy)
        nothing = _policy([0] * NUMBERS)
        self._training = Trainer(
            run, proxy_data(images, labels, *parts, data.class_names), device=device, policy=nothing
        )
        self._epochs = iter(self._training)
        self.history: list[tuple[int, Genome]] = []

    @property
    def epoch(self) -> int:
        """Epochs of training, its own and of those whose heir it is."""
        return self._training.epoch

    @property
    def device_name(self) -> str:
        """Of the device that it is trained on."""
        return device_name(self._training.device)

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that are recognised, after the last epoch."""
        return 1 - float(self._training.history[-1]["val_error"])

    def train_epoch(self, genome: Genome) -> float:
        """One epoch with this genome's policy; returns the accuracy after it."""
        if not self.history or self.history[-1][1] != genome:
            self.history.append((self.epoch, list(genome)))
        self._training.policy = build_policy(SearchedPolicy(search=PopulationSearch()), _policy(genome))
        next(self._epochs)
        return self.accuracy

    def state_dict(self) -> dict[str, Any]:
        """All that another member needs to continue from here, as tensors and plain values."""
        return {"training": self._training.state_dict(), "history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from where another member was."""
        self._training.load_state_dict(state["training"])
        self.history = [(int(epoch), list(genome)) for epoch, genome in state["history"]]


def _policy(genome: Sequence[int]) -> PolicyFile:
    return as_schedule([(0, list(genome))], epochs=1)


def _sizes() -> list[int]:
    return [PROBABILITIES, MAGNITUDES] * len(STEPS)
