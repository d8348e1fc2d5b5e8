"""A member of a population as a trainable of Ray Tune."""

import functools
from pathlib import Path
from typing import Any

import torch
from ray import tune

from autodo import data
from autodo.config.policy import PopulationSearch
from autodo.config.run import RunConfig
from autodo.data.prepare import DataSplits
from autodo.io.atomic import save_torch
from autodo.io.storage import locate
from autodo.search.population_member import PopulationMember
from autodo.search.tasks import search_config
from orchestration.execution.process import load_on_node
from orchestration.search.member_files import MemberFiles


class MemberTrainable(tune.Trainable):
    """A member that trains an epoch per step.

    Its config holds `run` (a RunConfig as JSON), `data_dir`, `folder`, `device`, `threads`, `begin` (the epoch that the
    population continues from) and `genome`.
    """

    def setup(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(config["threads"])
        run = RunConfig.model_validate(config["run"])
        self._settings: PopulationSearch = search_config(run)
        self._files = MemberFiles(locate(config["folder"]), self._settings)
        self._member = PopulationMember(run, _prepared(run, config["data_dir"]), config["device"])
        self._genome: list[int] = list(config["genome"])
        self._begin: int = config["begin"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        member, epochs = self._member, self._settings.epochs
        if member.epoch < self._begin:
            # Its first step. Later, Tune restores its own checkpoint, and the file may be deleted.
            kept = self._files.read(self._number, self._begin)
            assert kept is not None
            member.load_state_dict(kept["member"])
        if member.epoch < epochs:
            member.train_epoch(self._genome)
            if member.epoch % self._settings.perturb_every == 0 or member.epoch == epochs:
                self._write()
        return {
            "accuracy": member.accuracy,
            "epoch": member.epoch,
            "epochs_here": member.epoch - self._begin,
            "history": member.history,
            "device": member.device_name,
            "done": member.epoch >= epochs,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        save_torch(self._member.state_dict(), Path(checkpoint_dir) / "member.pt")
        # Tune 2.60 may ask for a checkpoint twice and count it once; then the next one would replace it, and a member
        # that has yet to read it would continue from a later epoch.
        assert self._storage is not None
        self._storage.current_checkpoint_index = self._member.epoch

    def load_checkpoint(self, checkpoint: Any) -> None:
        state = torch.load(Path(checkpoint) / "member.pt", map_location="cpu", weights_only=True)
        self._member.load_state_dict(state)
        if self._member.history and self._member.history[-1][1] != self._genome:
            # It continues from another member from now on, as a search that is cut must do too.
            self._write()

    @property
    def _number(self) -> int:
        # Tune counts the trials of a grid search at the end of their ids; the config may be another member's.
        return int(self.trial_id.rpartition("_")[2])

    def _write(self) -> None:
        self._files.write(self._number, self._member.epoch, self._genome, self._member.state_dict())


@functools.lru_cache(maxsize=1)
def _prepared(run: RunConfig, data_dir: str | None) -> DataSplits:
    """The run's data, kept for the next member of this process."""
    return data.prepare(load_on_node(run.dataset, data_dir, download=False), run)
