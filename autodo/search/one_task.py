"""Searches that are one training: `search(config, data, device, checkpoint, tell) -> PolicyFile` of their module."""

import importlib
import time
from pathlib import Path

import torch

from autodo.augment.policy_file import PolicyFile
from autodo.config.run import RunConfig
from autodo.io.storage import Location
from autodo.results.provenance import device_name
from autodo.search.tasks import Algorithm, Json, ReportLine, Task, TaskContext, provenance

TASK = Task("training", {}, long=True)


class OneTaskDriver:
    """One task, and its result is the policy."""

    def __init__(self, config: RunConfig, files: Location) -> None:
        self._config = config
        self._given_out = False
        self.policy: PolicyFile | None = None

    def ready(self) -> list[Task]:
        """The task."""
        tasks = [] if self._given_out else [TASK]
        self._given_out = True
        return tasks

    def ended(self, task: Task, result: Json) -> None:
        """Takes the policy, and adds where it comes from."""
        found = PolicyFile.model_validate(result["policy"])
        told = {"seconds": result["seconds"], "device": result["device"], **found.provenance}
        self.policy = found.model_copy(update={"provenance": provenance(self._config, **told)})

    def headline(self) -> str:
        """Nothing is known here; the log of the task says more."""
        return "found" if self.policy else "one training"


class OneTaskWorker:
    """Calls the module's `search`."""

    def __init__(self, context: TaskContext, module: str) -> None:
        self._context, self._module = context, module

    def perform(self, task: Task, checkpoint: Path | None, tell: ReportLine) -> Json:
        """The policy as JSON, with seconds and device of this attempt."""
        begun = time.perf_counter()
        context = self._context
        search = importlib.import_module(self._module).search
        policy = search(context.config, context.data, device=context.device, checkpoint=checkpoint, tell=tell)
        return {
            "policy": policy.model_dump(mode="json", by_alias=True),
            "seconds": time.perf_counter() - begun,
            "device": device_name(torch.device(context.device)),
        }


def one_task(module: str) -> Algorithm:
    """The algorithm whose module is called so."""
    return Algorithm(OneTaskDriver, lambda context: OneTaskWorker(context, module))
