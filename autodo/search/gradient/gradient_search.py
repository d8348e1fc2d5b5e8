"""Searches that follow a gradient: one training, whose state is kept after every epoch. It is a search of one task."""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from autodo.augment.policy_file import OperationName, PolicyFile, SearchedSubPolicy, Unit
from autodo.config.run import RunConfig
from autodo.data.prepare import DataSplits
from autodo.errors import TrainingDiverged
from autodo.io.storage import Location
from autodo.results.provenance import device_name
from autodo.search.gradient.differentiable_operations import SEARCHED
from autodo.search.search_data import SearchData
from autodo.search.tasks import Algorithm, Json, Report, Task, TaskContext, provenance, search_config
from autodo.training import checkpoint as checkpoints

logger = logging.getLogger(__name__)


class FoundPolicy(NamedTuple):
    """The sub-policies that were found, and the weights for their provenance."""

    sub_policies: tuple[SearchedSubPolicy, ...]
    weights: dict[str, Any]


class Stateful(Protocol):
    """A module or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class GradientSearch(ABC):
    """A search on a run's own train points, as they are observed; neither val nor test is read.

    Its whole state lies in `parts`; every random stream derives from (seed, epoch).
    """

    parts: dict[str, Stateful]

    def __init__(self, config: RunConfig, data: DataSplits, device: str) -> None:
        self.settings = search_config(config)
        self.seed = config.seed
        self.data = SearchData(config, data, self.settings.images, device)

    @abstractmethod
    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Passes over the images once. Returns the losses and other figures of the epoch."""

    @abstractmethod
    def found(self) -> FoundPolicy:
        """The policy in its present state."""


Build = Callable[[RunConfig, DataSplits, str], GradientSearch]
"""(config, data, device) -> a search at its beginning."""


def run_search(
    build: Build, config: RunConfig, data: DataSplits, *, device: str, checkpoint: Path | None, report: Report
) -> PolicyFile:
    """Runs a search to its end, from its checkpoint if there is one.

    On a CPU a search that is cut and continued finds what an uninterrupted one does, bit for bit.

    Args:
        data: from `autodo.data.prepare` with the same config.
        checkpoint: file to continue from, if it exists, and to write to after every epoch.
        report: called with a line after every epoch.
    Raises:
        TrainingDiverged: if a loss is no longer finite.
    """
    assert config.search_id is not None
    settings = search_config(config)
    search, history = _continued(lambda: build(config, data, device), checkpoint, config.search_id)
    kept = len(history)
    for epoch in range(len(history), settings.epochs):
        started = time.perf_counter()
        row = search.run_epoch(epoch)
        for name, value in row.items():
            if not math.isfinite(value):
                raise TrainingDiverged(f"{settings.algorithm} search: {name.replace('_', ' ')}", epoch, kept)
        history.append({**row, "seconds": time.perf_counter() - started})
        if checkpoint is not None:
            state = {
                "epoch": epoch + 1,
                "search": {name: part.state_dict() for name, part in search.parts.items()},
                "history": history,
            }
            if checkpoints.save(checkpoint, config.search_id, state, rows={}):
                kept = epoch + 1
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in history[-1].items())
        report(f"{settings.algorithm} search, epoch {epoch + 1} of {settings.epochs}: {figures}")
    found = search.found()
    return PolicyFile(
        source=f"{settings.algorithm} on {config.dataset.label} {config.distortion}, seed {config.seed}",
        sub_policies=found.sub_policies,
        provenance={
            "seconds": sum(row["seconds"] for row in history),
            "device": device_name(torch.device(device)),
            "epochs": history,
            "weights": found.weights,
        },
    )


def _continued(
    build: Callable[[], GradientSearch], checkpoint: Path | None, search_id: str
) -> tuple[GradientSearch, list[dict[str, float]]]:
    """The search in the state of its checkpoint, and its rows so far; a new one if no checkpoint can be used."""
    search = build()
    kept = None if checkpoint is None else checkpoints.load(checkpoint, search_id)
    if kept is None:
        return search, []
    try:
        for name, part in search.parts.items():
            part.load_state_dict(kept["search"][name])
        history: list[dict[str, float]] = kept["history"]
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        logger.warning("%s cannot be used, the search starts again: %s: %s", checkpoint, type(error).__name__, error)
        return build(), []
    return search, history


def rounded_step(operation: int, probability: Tensor, level: Tensor) -> tuple[OperationName, Unit, Unit]:
    """A step of a policy file; four decimals are more than a policy can feel."""
    return SEARCHED[operation], round(float(probability.detach()), 4), round(float(level.detach()), 4)


class GradientSearchDriver:
    """Driver of a single task, whose result is the policy."""

    def __init__(self, config: RunConfig, files: Location) -> None:
        self._config = config
        self._tasks = [Task("training", {}, long=True)]
        self.policy: PolicyFile | None = None

    def ready(self) -> list[Task]:
        """The task, once."""
        tasks, self._tasks = self._tasks, []
        return tasks

    def task_done(self, task: Task, result: Json) -> None:
        """Keeps the policy, and completes its provenance."""
        found = PolicyFile.model_validate(result)
        self.policy = found.model_copy(update={"provenance": provenance(self._config, **found.provenance)})

    def status_line(self) -> str:
        """Says only whether the task is done; its log says more."""
        return "found" if self.policy else "one training"


class GradientSearchWorker:
    """Worker that runs the whole search."""

    def __init__(self, context: TaskContext, build: Build) -> None:
        self._context, self._build = context, build

    def perform(self, task: Task, checkpoint: Path | None, report: Report) -> Json:
        """Runs the search. Returns the policy as JSON."""
        context = self._context
        policy = run_search(
            self._build, context.config, context.data, device=context.device, checkpoint=checkpoint, report=report
        )
        return policy.model_dump(mode="json", by_alias=True)


def gradient_search(build: Build) -> Algorithm:
    """The algorithm that runs such a search as a single task."""
    return Algorithm(GradientSearchDriver, lambda context: GradientSearchWorker(context, build))
