"""Population-based augmentation: one member, and the worker that trains members."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autodo.augment.policies import PolicySchedule
from autodo.config.policy import PopulationSearch
from autodo.config.run import RunConfig
from autodo.data.prepare import DataSplits
from autodo.results.provenance import device_name
from autodo.search.population.genome import SIZES, Genome, as_schedule
from autodo.search.population.population import member_file, read_member, write_member
from autodo.search.proxy_task import proxy_data, proxy_run, split_held_out
from autodo.search.search_data import search_subset
from autodo.search.tasks import Json, Report, Task, TaskContext, search_config
from autodo.seeds import numpy_generator
from autodo.training.trainer import Trainer


class PopulationMember:
    """A network that is trained on a part of the distorted train points, and scored on another part of them.

    All members begin with the same weights and see the same batches; they differ in their policies.

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
        splits = proxy_data(images, labels, *parts, data.class_names)
        # A policy that does nothing; `train_epoch` replaces it.
        nothing = as_schedule([(0, [0] * len(SIZES))], epochs=1)
        self._trainer = Trainer(run, splits, device=device, policy=nothing)
        self._epochs = iter(self._trainer)
        self.history: list[tuple[int, Genome]] = []

    @property
    def epoch(self) -> int:
        """Epochs of training, including those of the members that it continues from."""
        return self._trainer.state.epoch

    @property
    def device_name(self) -> str:
        """Name of the device that it is trained on."""
        return device_name(self._trainer.context.device)

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that are recognised after the last epoch."""
        return 1 - float(self._trainer.state.history[-1]["val_error"])

    def train_epoch(self, genome: Genome) -> float:
        """Trains one epoch with this genome's policy. Returns the accuracy after it."""
        if not self.history or self.history[-1][1] != genome:
            self.history.append((self.epoch, list(genome)))
        self._trainer.policy = PolicySchedule(as_schedule([(0, genome)], epochs=1).schedule)
        next(self._epochs)
        return self.accuracy

    def state_dict(self) -> dict[str, Any]:
        """The state that another member can continue from, as tensors and plain values."""
        return {"training": self._trainer.state.state_dict(), "history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from the state of another member."""
        self._trainer.state.load_state_dict(state["training"])
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
            member.train_epoch(given["genome"])
        write_member(member_file(context.files, given["member"], given["until"]), given["genome"], member.state_dict())
        return {
            "accuracy": member.accuracy,
            "history": member.history,
            "seconds": time.perf_counter() - started,
            "device": member.device_name,
        }
