"""Population-based augmentation: one member, and the worker that trains members."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autodo.augment.policies import PolicySchedule
from autodo.config.run import RunConfig
from autodo.data.prepare import DataSplits
from autodo.search.population.genome import Genome, as_schedule
from autodo.search.population.population import member_file, read_member, write_member
from autodo.search.proxy_training import ProxyTraining
from autodo.search.tasks import Json, Report, Task, TaskContext


class PopulationMember(ProxyTraining):
    """A network, and the genomes of the policies that it was trained with.

    Args:
        data: from `autodo.data.prepare` with the same config.
    Raises:
        DataError: if fewer than two classes have two images.
    """

    def __init__(self, config: RunConfig, data: DataSplits, device: str = "cpu") -> None:
        super().__init__(config, data, "member", device)
        self.history: list[tuple[int, Genome]] = []

    def train_with(self, genome: Genome) -> float:
        """Trains one epoch with this genome's policy. Returns the accuracy after it."""
        if not self.history or self.history[-1][1] != genome:
            self.history.append((self.epoch, list(genome)))
        return self.train_epoch(PolicySchedule(as_schedule([(0, genome)], epochs=1).schedule))

    def state_dict(self) -> dict[str, Any]:
        return {"training": super().state_dict(), "history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state["training"])
        self.history = [(int(epoch), list(genome)) for epoch, genome in state["history"]]


class PopulationWorker:
    """Trains one member for a generation, from and to its file in the folder of the search."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def perform(self, task: Task, checkpoint: Path | None, report: Report) -> Json:
        """Trains the member.

        Returns:
            its `accuracy` and `history`; `lost` if the file that it continues from is gone or damaged.
        """
        started = time.perf_counter()
        context, given = self._context, task.given
        member = PopulationMember(context.config, context.data, context.device)
        if given["source"] is not None:
            content = read_member(member_file(context.files, given["source"], given["epoch"]))
            if content is None:
                return {"lost": True}
            member.load_state_dict(content["member"])
        while member.epoch < given["until"]:
            member.train_with(given["genome"])
        write_member(member_file(context.files, given["member"], given["until"]), given["genome"], member.state_dict())
        return {
            "accuracy": member.accuracy,
            "history": member.history,
            "seconds": time.perf_counter() - started,
            "device": member.device_name,
        }
