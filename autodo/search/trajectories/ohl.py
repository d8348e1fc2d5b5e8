"""OHL-Auto-Aug: the driver, which updates the distribution over pairs of operations after every round.

Several networks (trajectories) begin a round with the same weights. Each is trained for a few epochs on pairs that it
draws from the distribution, and rewarded with its accuracy on held-out images. The distribution then takes a step along
the REINFORCE gradient, and all trajectories of the next round continue from the best network. The distributions of all
rounds are the schedule that a run replays.
Reference: Lin et al., ICCV 2019, section 3 and algorithm 1.
"""

import contextlib
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from autodo.augment.policy_file import PolicyFile, ScheduleStage
from autodo.config.policy import OhlSearch
from autodo.config.run import RunConfig
from autodo.errors import StoreError
from autodo.io.storage import Location
from autodo.search.tasks import Json, Task, provenance, search_config
from autodo.search.torch_files import read_state, write_state
from autodo.search.trajectories.candidates import PAIRS
from autodo.search.trajectories.distribution import CandidateDistribution

STATE = {"distribution", "sums", "best", "accuracies", "seconds", "device"}
"""Names in the file of a round."""


class OhlDriver:
    """A task trains one trajectory for a round. Rounds are counted from 1; 0 is the beginning of the search."""

    def __init__(self, config: RunConfig, files: Location) -> None:
        self._config = config
        self._search: OhlSearch = search_config(config)
        self._files = files
        self._rounds = -(-self._search.epochs // self._search.update_every)
        self._stages = min(self._search.stages, self._rounds)
        self._restart()

    def _restart(self) -> None:
        """Continues from the last round whose files can be read."""
        self._distribution = CandidateDistribution(len(PAIRS), self._search.policy_lr)
        self._sums = torch.zeros(self._stages, len(PAIRS), dtype=torch.float64)
        self._round, self._best = 0, 0
        self._accuracies: list[float] = []
        self._seconds, self._device = 0.0, ""
        for number in sorted(self._rounds_in_files(), reverse=True):
            state = read_state(self._state_file(number), STATE)
            if state is not None and read_state(self._file(state["best"], number), {"training"}) is not None:
                self._load(number, state)
                break
        self._results: dict[int, Json] = {}
        self._is_given_out = False
        self.policy: PolicyFile | None = None
        self._finish_if_done()

    def ready(self) -> list[Task]:
        """The tasks of a round, once the one before is complete."""
        if self._is_given_out or self.policy is not None:
            return []
        self._is_given_out = True
        number = self._round + 1
        given = {
            "round": number,
            "until": min(number * self._search.update_every, self._search.epochs),
            "source": self._file(self._best, self._round).name if self._round else None,
            "probabilities": self._distribution.probabilities().tolist(),
        }
        return [
            Task(
                f"trajectory-{trajectory}-round-{number}",
                {**given, "trajectory": trajectory, "target": self._file(trajectory, number).name},
            )
            for trajectory in range(self._search.trajectories)
        ]

    def task_done(self, task: Task, result: Json) -> None:
        """Completes the round with its last trajectory."""
        if task.given["round"] != self._round + 1:
            return  # its round was given up
        if result.get("lost"):
            self._restart()
            return
        self._results[task.given["trajectory"]] = result
        if len(self._results) == self._search.trajectories:
            self._complete_round()

    def _complete_round(self) -> None:
        results = [self._results[trajectory] for trajectory in range(self._search.trajectories)]
        self._sums[self._stage(self._round)] += self._distribution.probabilities()
        rewards = torch.tensor([result["accuracy"] for result in results], dtype=torch.float64)
        self._distribution.update(torch.tensor([result["counts"] for result in results]), rewards)
        self._round += 1
        self._best = int(rewards.argmax())
        self._accuracies = rewards.tolist()
        self._seconds += sum(result["seconds"] for result in results)
        self._device = results[-1]["device"]
        write_state(self._state_file(self._round), self._state_dict())
        self._delete_others()
        self._results, self._is_given_out = {}, False
        self._finish_if_done()

    def status_line(self) -> str:
        """The progress, such as `round 30 of 200, best accuracy 0.931`."""
        best = f", best accuracy {max(self._accuracies):.3f}" if self._accuracies else ""
        return f"round {self._round} of {self._rounds}{best}"

    def _stage(self, done: int) -> int:
        """Stage of the schedule for the distribution after `done` rounds."""
        return done * self._stages // self._rounds

    def _finish_if_done(self) -> None:
        if self._round < self._rounds:
            return
        starts = [-(-stage * self._rounds // self._stages) for stage in range(self._stages)]
        probabilities = self._sums / self._sums.sum(1, keepdim=True)
        self.policy = PolicyFile(
            source=f"OHL-Auto-Aug on {self._config.dataset.label} {self._config.distortion}",
            sub_policies=PAIRS,
            schedule=tuple(
                as_stage(start * self._search.update_every / self._search.epochs, of_stage)
                for start, of_stage in zip(starts, probabilities, strict=True)
            ),
            provenance=provenance(
                self._config,
                accuracy=max(self._accuracies),
                accuracies=sorted(self._accuracies, reverse=True),
                operations=operation_shares(self._distribution.probabilities()),
                seconds=self._seconds,
                device=self._device,
            ),
        )

    # ----- files in the folder of the search

    def _file(self, trajectory: int, number: int) -> Location:
        return self._files / f"trajectory-{trajectory}-round-{number}.pt"

    def _state_file(self, number: int) -> Location:
        return self._files / f"round-{number}.pt"

    def _rounds_in_files(self) -> set[int]:
        names = self._files.names()
        return {number for number in range(1, self._rounds + 1) if self._state_file(number).name in names}

    def _state_dict(self) -> dict[str, Any]:
        return {
            "distribution": self._distribution.state_dict(),
            "sums": self._sums,
            "best": self._best,
            "accuracies": self._accuracies,
            "seconds": self._seconds,
            "device": self._device,
        }

    def _load(self, number: int, state: dict[str, Any]) -> None:
        self._round = number
        self._distribution.load_state_dict(state["distribution"])
        self._sums, self._best, self._accuracies = state["sums"], state["best"], list(state["accuracies"])
        self._seconds, self._device = state["seconds"], state["device"]

    def _delete_others(self) -> None:
        """Deletes all but the best trajectory of this round, and the round before the last."""
        with contextlib.suppress(StoreError):  # files that are left over harm nobody
            self._state_file(self._round - 2).delete()
            for trajectory in range(self._search.trajectories):
                self._file(trajectory, self._round - 2).delete()
                if trajectory != self._best:
                    self._file(trajectory, self._round).delete()


def as_stage(start: float, probabilities: Tensor) -> ScheduleStage:
    """A stage of a schedule; a weight of 1 is the probability of a uniform draw, with four decimals."""
    weights = [round(weight, 4) for weight in (len(probabilities) * probabilities).tolist()]
    return ScheduleStage.model_validate({"from": start, "weights": weights})


def operation_shares(probabilities: Tensor) -> dict[str, float]:
    """Share of each operation in the operations that are applied. Shape: [K]."""
    shares: defaultdict[str, float] = defaultdict(float)
    for pair, probability in zip(PAIRS, probabilities.tolist(), strict=True):
        for name, _, _ in pair:
            shares[name] += probability / len(pair)
    return {name: round(share, 4) for name, share in shares.items()}
