"""OHL-Auto-Aug: the worker, which trains one trajectory from one update of the distribution to the next."""

import time
from pathlib import Path

import torch
from torch import Tensor

from autodo.augment.policies import SubPolicies
from autodo.search.proxy_training import ProxyTraining
from autodo.search.tasks import Json, Report, Task, TaskContext
from autodo.search.torch_files import read_state, write_state
from autodo.search.trajectories.candidates import PAIRS
from autodo.seeds import torch_generator


class CountedPairs(SubPolicies):
    """Draws a pair for each image, by probabilities, and counts the draws.

    Pairs come from a generator of their own. So two trajectories see the same crops and batches and differ only in
    their pairs.

    Shape:
        probabilities [K] float64; counts [K] int64.
    """

    def __init__(self, probabilities: Tensor, generator: torch.Generator) -> None:
        super().__init__(PAIRS, weights=probabilities)
        self._generator = generator
        self.counts = torch.zeros(len(PAIRS), dtype=torch.int64)

    def choose(self, batch: int, generator: torch.Generator) -> Tensor:
        chosen = super().choose(batch, self._generator)
        self.counts += torch.bincount(chosen, minlength=len(self.counts))
        return chosen.to(generator.device)


class TrajectoryWorker:
    """Trains a trajectory for a round, from and to its file in the folder of the search."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def perform(self, task: Task, checkpoint: Path | None, report: Report) -> Json:
        """Trains the trajectory.

        Returns:
            its `accuracy` and `counts` of pairs; `lost` if the file that it continues from is gone or damaged.
        """
        started = time.perf_counter()
        context, given = self._context, task.given
        training = ProxyTraining(context.config, context.data, "trajectory", context.device)
        if given["source"] is not None:
            state = read_state(context.files / given["source"], {"training"})
            if state is None:
                return {"lost": True}
            training.load_state_dict(state["training"])
        probabilities = torch.tensor(given["probabilities"], dtype=torch.float64)
        numbers = "round", given["round"], "trajectory", given["trajectory"]
        policy = CountedPairs(probabilities, torch_generator(context.config.seed, "search", *numbers))
        while training.epoch < given["until"]:
            training.train_epoch(policy)
        write_state(context.files / given["target"], {"training": training.state_dict()})
        return {
            "accuracy": training.accuracy,
            "counts": policy.counts.tolist(),
            "seconds": time.perf_counter() - started,
            "device": training.device_name,
        }
