"""The members of a population in the folder of its search, from which a search that was cut continues."""

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autodo.config.policy import PopulationSearch
from autodo.io.atomic import save_torch
from autodo.io.storage import Location

FORMAT = 1


class MemberFiles:
    """Files `member-<number>-epoch-<epoch>.pt`, written whenever members may be perturbed.

    Each holds `genome`, and the `member`'s state.
    """

    def __init__(self, folder: Location, settings: PopulationSearch) -> None:
        self._folder, self._settings = folder, settings

    def write(self, number: int, epoch: int, genome: list[int], member: Mapping[str, Any]) -> None:
        """Writes a member, and deletes its file of two perturbations before."""
        content = {"format": FORMAT, "genome": genome, "member": member}
        self._file(number, epoch).write_atomic(functools.partial(save_torch, content))
        # When a member gets here, all others have reached the perturbation before.
        self._file(number, epoch - 2 * self._settings.perturb_every).delete()

    def read(self, number: int, epoch: int) -> dict[str, Any] | None:
        """Reads a member; None if its file cannot be used."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary, "member.pt")
            try:
                self._file(number, epoch).fetch(path)
                content = torch.load(path, map_location="cpu", weights_only=True)
                if content["format"] == FORMAT and {"genome", "member"} <= content.keys():
                    return dict(content)
            except Exception:  # torch.load raises many kinds of error on damaged files
                return None
        return None

    def last_generation(self) -> tuple[int, list[dict[str, Any]]]:
        """The last epoch of which all members can be read, and these; 0 and none if there is no such epoch.

        All members continue from the same epoch, because the synchronous scheduler waits forever for members that are
        out of step.
        """
        settings, names = self._settings, self._folder.names()
        numbers = range(settings.population)
        epochs = {*range(settings.perturb_every, settings.epochs, settings.perturb_every), settings.epochs}
        for epoch in sorted(epochs, reverse=True):
            if all(self._name(number, epoch) in names for number in numbers):
                members = [member for number in numbers if (member := self.read(number, epoch)) is not None]
                if len(members) == settings.population:
                    return epoch, members
        return 0, []

    def _name(self, number: int, epoch: int) -> str:
        return f"member-{number}-epoch-{epoch}.pt"

    def _file(self, number: int, epoch: int) -> Location:
        return self._folder / self._name(number, epoch)
