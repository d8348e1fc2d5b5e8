"""What a search is made of: a driver that gives out tasks, and a worker that does them, wherever that may be.

The driver is cheap, holds what is known so far, and lives in one process. A worker has the data and a device; there may
be one in the same process or many on a cluster. Neither knows of the other, nor of what carries tasks and results.
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
ReportLine = Callable[[str], None]
"""Takes a line for people; called after every epoch, when the checkpoint of the task is written."""


class Task(NamedTuple):
    """A part of a search that one process does."""

    name: str
    """Unique within the search, and a file name."""
    given: Json
    long: bool = False
    """Whether it may take minutes, so that it keeps a checkpoint."""


@dataclass(frozen=True)
class TaskContext:
    """What a worker has at hand.

    Args:
        files: the folder of the search, which its driver and all of its workers see.
    """

    config: RunConfig
    data: DataSplits
    device: str
    files: Location


class Driver(Protocol):
    """The course of one search. A new one on the same folder goes on where the last one was cut."""

    def ready(self) -> list[Task]:
        """Tasks that can be done now, in any order and side by side; each is given out once."""

    def ended(self, task: Task, result: Json) -> None:
        """A task is done; may keep what it found in the folder of the search."""

    def headline(self) -> str:
        """How far the search is, for people."""

    @property
    def policy(self) -> PolicyFile | None:
        """What was found; None as long as tasks are left."""


class Worker(Protocol):
    """Does the tasks of one search; two workers give the same result for the same task."""

    def perform(self, task: Task, checkpoint: Path | None, tell: ReportLine) -> Json:
        """The result of a task.

        Args:
            checkpoint: file that a long task continues from, if it exists, and writes to.
        """


class Algorithm(NamedTuple):
    """How a kind of search is done."""

    driver: Callable[[RunConfig, Location], Driver]
    worker: Callable[[TaskContext], Worker]


def search_config(config: RunConfig) -> Any:
    """The `search` section of a run whose policy is searched."""
    assert isinstance(config.policy, SearchedPolicy)
    return config.policy.search


def provenance(config: RunConfig, **found: Any) -> Json:
    """What is kept with a policy that was found for this run."""
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
