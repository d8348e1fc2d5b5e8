"""Actors on Ray that perform tasks of searches, each with the resources of a run, and one task after another."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Literal

import ray
import torch
from ray.exceptions import RayError

from autodo import plugins
from autodo.config.run import RunConfig
from autodo.search.tasks import Json, Task
from orchestration.execution.process import load_plugins
from orchestration.grid.resources import ResourcesConfig

# First of all that touches Ray: it sets the environment that Ray reads at its import.
from orchestration.ray_cluster import cluster as clusters
from orchestration.search.task_runner import TaskRunner
from orchestration.store.failures import reason_of
from orchestration.store.store import Store

TaskOutcome = tuple[Literal["done"], Json] | tuple[Literal["failed"], tuple[str, str, str, str]]
"""The result of a task, or the parts of a `failures.Reason`."""


@dataclasses.dataclass(frozen=True)
class SearchTask:
    """A task of a search, and a run that needs the policy, as JSON."""

    search_id: str
    config: Json
    task: Task


class SearchActor:
    """An actor that performs one task after another.

    Args:
        files: those with plug-ins.
    """

    def __init__(
        self,
        store: str,
        data_dir: str | None,
        resources: ResourcesConfig,
        files: tuple[plugins.PluginFile, ...] = (),
    ) -> None:
        self._files = files
        torch.set_num_threads(resources.cpus)
        self._store = Store(store)
        self._runner = TaskRunner(self._store, data_dir=data_dir, device="cuda" if resources.gpus else "cpu")

    def begin(self) -> None:
        """Returns once the actor has found room."""

    def perform(self, config: Json, task: Task) -> TaskOutcome:
        """Performs a task. Returns its result, or why there is none."""
        try:
            self._store.check_on_node()
            load_plugins(self._files)
            return "done", self._runner.perform(RunConfig.model_validate(config), task)
        except Exception as error:  # as data: an exception may not survive serialisation
            cause, kind, last_line, trace = reason_of(error)
            return "failed", (cause.value, kind, last_line, trace)


class ActorPool:
    """Actors that are busy with a task or idle; they are started when there are tasks for them.

    Args:
        store: path or URI.
        slots: largest number of actors.
    """

    def __init__(self, store: str, data_dir: str | None, resources: ResourcesConfig, slots: int) -> None:
        amounts = resources.per_worker
        memory = {"memory": amounts["memory"]} if "memory" in amounts else {}
        self._arguments = (store, data_dir, resources, plugins.files())
        self._resources, self._slots = resources, slots
        actor: Any = ray.remote(SearchActor)
        self._actor = actor.options(num_cpus=resources.cpus, num_gpus=resources.gpus, **memory)
        self._idle: list[tuple[Any, str]] = []
        self._busy: dict[Any, tuple[Any, SearchTask]] = {}
        self._begins: list[Any] = []
        self._begun = False

    @property
    def busy(self) -> list[SearchTask]:
        """The tasks at work."""
        return [search_task for _, search_task in self._busy.values()]

    def has_begun(self) -> bool:
        """Whether an actor has found room."""
        return self._begun or bool(self._busy and ray.wait(self._begins, num_returns=1, timeout=0)[0])

    def need(self) -> str:
        """The resources of an actor, and those of the cluster."""
        return clusters.need(self._resources.model_copy(update={"workers": 1}))

    def start(self, tasks: Sequence[SearchTask]) -> list[SearchTask]:
        """Starts as many tasks as there is room for. Returns the others."""
        # Long ones first: the trials of a fold wait for its network.
        left = sorted(tasks, key=lambda search_task: not search_task.task.long)
        while left and len(self._busy) < self._slots:
            actor, last = self._idle.pop() if self._idle else (self._new_actor(), "")
            # An actor has the data of its last search in memory.
            first = left[0]
            same_kind = (one for one in left if one.search_id == last and one.task.long == first.task.long)
            near = next(same_kind, first)
            left.remove(near)
            self._busy[actor.perform.remote(near.config, near.task)] = actor, near
        return left

    def _new_actor(self) -> Any:
        actor = self._actor.remote(*self._arguments)
        self._begins.append(actor.begin.remote())
        return actor

    def outcomes(self, seconds: float) -> list[tuple[SearchTask, TaskOutcome | RayError]]:
        """The tasks that have ended; waits up to `seconds` for the first."""
        if not self._busy:
            time.sleep(seconds)
            return []
        ready, _ = ray.wait(list(self._busy), num_returns=1, timeout=seconds)
        more, _ = ray.wait(list(self._busy), num_returns=len(self._busy), timeout=0)
        outcomes: list[tuple[SearchTask, TaskOutcome | RayError]] = []
        for reference in {*ready, *more}:
            actor, search_task = self._busy.pop(reference)
            try:
                outcome = ray.get(reference)
                outcomes.append((search_task, outcome))
                self._begun = True
                if outcome[0] == "done":
                    self._idle.append((actor, search_task.search_id))
                else:
                    ray.kill(actor)  # every later task of the process would meet, say, the same CUDA error
            except RayError as error:
                ray.kill(actor)
                outcomes.append((search_task, error))
        return outcomes

    def end(self) -> None:
        """Ends all actors."""
        for actor, _ in [*self._idle, *self._busy.values()]:
            ray.kill(actor)
        self._idle, self._busy = [], {}
