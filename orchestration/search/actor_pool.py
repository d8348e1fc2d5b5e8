"""Actors on Ray that do tasks of searches: each occupies what a run does, and takes one task after another."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from autodo.config.run import RunConfig
from autodo.search.tasks import Json, Task
from orchestration.grid.resources import ResourcesConfig

# First of all that touches Ray: it sets the environment that Ray reads at its import.
from orchestration.ray_cluster import cluster as clusters
from orchestration.search.task_runner import TaskRunner
from orchestration.store.failures import reason_of
from orchestration.store.store import Store

TaskOutcome = tuple[Literal["done"], Json] | tuple[Literal["failed"], tuple[str, str, str, str]]
"""Of a task: its result, or the parts of a `failures.Reason`."""


@dataclasses.dataclass(frozen=True)
class SearchTask:
    """A task of a search, and a run that needs the policy, as JSON."""

    search_id: str
    config: Json
    task: Task


class ActorPool:
    """Actors, each at work on a job or idle; they come when there is work for them.

    Args:
        given: `store`, `data_dir` and `resources`, for the actors.
        slots: the most of them.
    """

    def __init__(self, given: dict[str, Any], resources: ResourcesConfig, slots: int) -> None:
        amounts = resources.per_worker
        memory = {"memory": amounts["memory"]} if "memory" in amounts else {}
        self._given, self._resources, self._slots = given, resources, slots
        hand: Any = ray.remote(SearchActor)
        self._actor = hand.options(num_cpus=resources.cpus, num_gpus=resources.gpus, **memory)
        self._idle: list[tuple[Any, str]] = []
        self._busy: dict[Any, tuple[Any, SearchTask]] = {}
        self._begins: list[Any] = []
        self._begun = False

    @property
    def jobs(self) -> list[SearchTask]:
        """What is at work."""
        return [job for _, job in self._busy.values()]

    def has_begun(self) -> bool:
        """Whether an actor has found room."""
        return self._begun or bool(self._busy and ray.wait(self._begins, num_returns=1, timeout=0)[0])

    def need(self) -> str:
        """What the actors occupy, and what there is."""
        return clusters.need(self._resources.model_copy(update={"workers": 1}))

    def start(self, jobs: Sequence[SearchTask]) -> list[SearchTask]:
        """Begins as many jobs as there is room for; returns the others."""
        # Long ones first: the trials of a fold wait for its network.
        left = sorted(jobs, key=lambda job: not job.task.long)
        while left and len(self._busy) < self._slots:
            actor, last = self._idle.pop() if self._idle else (self._new(), "")
            # What an actor has at hand already is done faster there.
            near = next((job for job in left if job.search_id == last and job.task.long == left[0].task.long), left[0])
            left.remove(near)
            self._busy[actor.perform.remote(near.config, near.task)] = actor, near
        return left

    def _new(self) -> Any:
        actor = self._actor.remote(self._given)
        self._begins.append(actor.begin.remote())
        return actor

    def answers(self, seconds: float) -> list[tuple[SearchTask, TaskOutcome | RayError]]:
        """The jobs that have ended; waits for one for so long."""
        if not self._busy:
            time.sleep(seconds)
            return []
        ready, _ = ray.wait(list(self._busy), num_returns=1, timeout=seconds)
        more, _ = ray.wait(list(self._busy), num_returns=len(self._busy), timeout=0)
        answers: list[tuple[SearchTask, TaskOutcome | RayError]] = []
        for reference in {*ready, *more}:
            actor, job = self._busy.pop(reference)
            try:
                answer = ray.get(reference)
                answers.append((job, answer))
                self._begun = True
                if answer[0] == "done":
                    self._idle.append((actor, job.search_id))
                else:
                    ray.kill(actor)  # a CUDA error, say, would be met by every later task of the process
            except RayError as error:
                ray.kill(actor)
                answers.append((job, error))
        return answers

    def end(self) -> None:
        """Ends all actors."""
        for actor, _ in [*self._idle, *self._busy.values()]:
            ray.kill(actor)
        self._idle, self._busy = [], {}


class SearchActor:
    """An actor: does one task after another, and answers with its result or why there is none."""

    def __init__(self, given: dict[str, Any]) -> None:
        import torch

        resources = ResourcesConfig.model_validate(given["resources"])
        torch.set_num_threads(resources.cpus)
        self._store = Store(given["store"])
        device = "cuda" if resources.gpus else "cpu"
        self._runner = TaskRunner(self._store, data_dir=given["data_dir"], device=device)

    def begin(self) -> None:
        """Answered when the actor has found room."""

    def perform(self, config: Json, task: Task) -> TaskOutcome:
        """The result of a task."""
        try:
            self._store.check_on_node()
            return "done", self._runner.perform(RunConfig.model_validate(config), task)
        except Exception as error:  # as data: an exception may not survive the way
            cause, kind, last_line, trace = reason_of(error)
            return "failed", (cause.value, kind, last_line, trace)
