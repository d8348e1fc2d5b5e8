"""The interfaces of a search: a driver that gives out tasks, and a worker that performs them.

The driver is cheap, holds the state of the search, and lives in one process. A worker has the data and a device; there
may be one in the same process or many on a cluster. Neither depends on the other, nor on how tasks and results travel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from autodo.augment.policy_file import PolicyFile
from autodo.config.policy import SearchedPolicy
from autodo.config.run import RunConfig
from autodo.data.prepare import DataSplits
from autodo.io.storage import Location
from autodo.results.provenance import git_sha, versions

Json = dict[str, Any]
Report = Callable[[str], None]
"""Called with a line for people after every epoch, once the checkpoint of the task is written."""


class Task(NamedTuple):
    """A part of a search that one process performs."""

    name: str
    """Unique within the search, and a file name."""
    given: Json
    long: bool = False
    """Whether it may take minutes, so that it keeps a checkpoint."""


@dataclass(frozen=True)
class TaskContext:
    """Everything that a worker needs besides its tasks.

    Args:
        files: the folder of the search, which its driver and all of its workers see.
    """

    config: RunConfig
    data: DataSplits
    device: str
    files: Location


class Driver(Protocol):
    """The course of one search. A new driver on the same folder continues where the last one was cut."""

    def ready(self) -> list[Task]:
        """Tasks that can be performed now, in any order and in parallel; each is given out once."""

    def task_done(self, task: Task, result: Json) -> None:
        """Takes the result of a task; may keep it in the folder of the search."""

    def status_line(self) -> str:
        """The progress of the search, for people."""

    @property
    def policy(self) -> PolicyFile | None:
        """The policy that was found; None while tasks are left."""


class Worker(Protocol):
    """Performs the tasks of one search; two workers give the same result for the same task."""

    def perform(self, task: Task, checkpoint: Path | None, report: Report) -> Json:
        """Performs a task and returns its result.

        Args:
            checkpoint: file that a long task continues from, if it exists, and writes to.
        """


class Algorithm(NamedTuple):
    """The driver and the worker of a kind of search."""

    driver: Callable[[RunConfig, Location], Driver]
    worker: Callable[[TaskContext], Worker]


def search_config(config: RunConfig) -> Any:
    """The `search` section of a run whose policy is searched."""
    assert isinstance(config.policy, SearchedPolicy)
    return config.policy.search


def provenance(config: RunConfig, **found: Any) -> Json:
    """The provenance of a policy that was found for this run."""
    return {
        "search_id": config.search_id,
        "search": search_config(config).model_dump(mode="json"),
        "dataset": config.dataset.model_dump(mode="json", exclude_none=True),
        "distortion": str(config.distortion),
        "minority": config.distortion.minority,
        "augmentation": config.augmentation.model_dump(mode="json"),
        "seed": config.seed,
        "versions": versions(),
        "git_sha": git_sha(),
        **found,
    }
