"""Population-based augmentation: 60 integers that a population of models trains with, and how they change.

Each member trains with its own policy, of 15 operations twice, each with a probability of 0..10 tenths and a magnitude
of 0..9. Every few epochs the worst members continue from the weights of the best with numbers changed a little
(`explore`). What the best member used, epoch after epoch, is the schedule that a run replays.
Here is one member; who trains which and when is population-based training's affair (`orchestration/population.py`).
Reference: Ho et al., ICML 2019, section 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch

from autodo.augment.policy import build_policy
from autodo.augment.policy_file import OperationName, PolicyFile, Stage, Step
from autodo.config import RunConfig
from autodo.data.prepare import Prepared
from autodo.data.split import stratified_split
from autodo.policy_config import PopulationSearch, SearchedPolicy
from autodo.search.reduced import reduced
from autodo.search.task_model import TaskModel
from autodo.seeds import derive, numpy_generator, torch_generator

OPERATIONS: tuple[OperationName, ...] = get_args(OperationName) * 2
NUMBERS = 2 * len(OPERATIONS)
"""Of a genome: probability and magnitude of each operation, in turn."""
PROBABILITIES, MAGNITUDES = 11, 10
LARGEST_MOVE = 3
_SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")

Genome = list[int]


def settings(config: RunConfig) -> PopulationSearch:
    """The settings of the search that a run needs."""
    assert isinstance(config.policy, SearchedPolicy)
    assert isinstance(config.policy.search, PopulationSearch)
    return config.policy.search


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


def operations(genome: Sequence[int]) -> tuple[Step, ...]:
    """The genome as operations with probabilities and levels.

    A policy's level runs from one end of the range to the other, and for operations with a sign 1/2 is nothing: there
    magnitude 0..9 becomes level 0.5..1, so that a larger number is always a stronger warp.
    """
    steps: list[Step] = []
    for name, (probability, magnitude) in zip(OPERATIONS, zip(genome[::2], genome[1::2], strict=True), strict=True):
        level = magnitude / (MAGNITUDES - 1)
        steps.append((name, probability / (PROBABILITIES - 1), 0.5 + level / 2 if name in _SIGNED else level))
    return tuple(steps)


def as_schedule(history: Sequence[tuple[int, Genome]], epochs: int, source: str = "") -> PolicyFile:
    """What a member used: `history` holds the epoch from which on it used a genome, the first of them 0."""
    stages: list[Stage] = []
    for epoch, genome in history:
        if not stages or stages[-1].operations != operations(genome):
            stages.append(Stage.model_validate({"from": epoch / epochs, "operations": operations(genome)}))
    return PolicyFile(source=source, schedule=tuple(stages))


class Member:
    """One of the population: a model on a part of the distorted train points, scored on another part of them.

    Args:
        data: from `autodo.data.prepare` with the same config.
        number: in the population; the models of two members begin with other weights.
    Raises:
        DataError: if a class has fewer than two images.
    """

    def __init__(self, config: RunConfig, data: Prepared, number: int, device: str = "cpu") -> None:
        search = settings(config)
        self._seed, self._number, self._epochs = config.seed, number, search.epochs
        images, labels = reduced(data, search.images, config.seed)
        rest, held = stratified_split(
            labels,
            search.held_share,
            numpy_generator(config.seed, "search", "split"),
            class_names=data.class_names,
            where="the part of the train points that the search uses",
        )
        self._held = torch.from_numpy(images[held]).to(device), torch.from_numpy(labels[held]).to(device)
        self._model = TaskModel(
            search.model,
            torch.from_numpy(images[rest]).to(device),
            torch.from_numpy(labels[rest]).to(device),
            classes=len(data.class_names),
            augmentation=config.augmentation,
            epochs=search.epochs,
            batch_size=search.batch_size,
            lr=search.lr,
            seed=derive(config.seed, "search", "member", number),
        )
        self.history: list[tuple[int, Genome]] = []
        self.accuracy = 0.0

    @property
    def epoch(self) -> int:
        """Epochs that it has been trained, itself or what it continues from."""
        return self._model.epoch

    def train_epoch(self, genome: Genome) -> float:
        """One epoch with this genome's policy; returns the accuracy on the held-out part."""
        if not self.history or self.history[-1][1] != genome:
            self.history.append((self.epoch, list(genome)))
        policy = build_policy(
            _ANY, PolicyFile(schedule=(Stage.model_validate({"from": 0.0, "operations": operations(genome)}),))
        )
        generator = torch_generator(
            self._seed, "search", "member", self._number, self.epoch, device=self._held[0].device
        )
        self._model.train_epoch(generator, policy)
        self.accuracy = self._model.accuracy(*self._held)
        return self.accuracy

    def state_dict(self) -> dict[str, Any]:
        """All that another member needs to continue from here, as tensors, numbers and lists."""
        return {"model": self._model.state_dict(), "history": self.history, "accuracy": self.accuracy}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from where another member was."""
        self._model.load_state_dict(state["model"])
        self.history = [(int(epoch), list(genome)) for epoch, genome in state["history"]]
        self.accuracy = float(state["accuracy"])


_ANY = SearchedPolicy(search=PopulationSearch())


def _sizes() -> list[int]:
    return [PROBABILITIES, MAGNITUDES] * len(OPERATIONS)
