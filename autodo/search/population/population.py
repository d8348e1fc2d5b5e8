"""Population-based augmentation: the driver, which perturbs the population after every generation.

All members begin with the same weights; they differ in their policies (`genome`). After every generation of a few
epochs the worst members continue from the weights of the best, with some numbers of the genome changed. The genomes of
the best member, epoch after epoch, are the schedule that a run replays.
Reference: Ho et al., ICML 2019, section 3; Jaderberg et al. 2017 (population-based training).
"""

import contextlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from autodo.augment.policy_file import PolicyFile
from autodo.config.policy import PopulationSearch
from autodo.config.run import RunConfig
from autodo.errors import StoreError
from autodo.io.storage import Location
from autodo.search.population.genome import Genome, as_schedule, explore, random_genome
from autodo.search.tasks import Json, Task, provenance, search_config
from autodo.search.torch_files import read_state, write_state
from autodo.seeds import numpy_generator


class Trained(NamedTuple):
    """A member at the end of a generation."""

    accuracy: float
    genome: Genome
    history: list[tuple[int, Genome]]
    """Genomes that it used, each with the epoch from which it used it."""


class Start(NamedTuple):
    """The beginning of a member's generation."""

    source: int | None
    """The member whose weights it continues from; None at the beginning of the search."""
    genome: Genome


class PopulationDriver:
    """A task trains one member for a generation, until the next perturbation; the members' files are in the folder."""

    def __init__(self, config: RunConfig, files: Location) -> None:
        self._config = config
        self._search: PopulationSearch = search_config(config)
        self._files = files
        self._seconds, self._device = 0.0, ""
        self._restart()

    def _restart(self) -> None:
        """Continues from the last generation whose files can all be read."""
        self._epoch, self._members = last_generation(self._files, self._search)
        self._trained: dict[int, Trained] = {}
        self._is_given_out = False
        self.policy: PolicyFile | None = None
        self._finish_if_done()

    @property
    def _next_epoch(self) -> int:
        return min(self._epoch + self._search.perturb_every, self._search.epochs)

    def ready(self) -> list[Task]:
        """The tasks of a generation, once the one before is complete."""
        if self._is_given_out or self.policy is not None:
            return []
        self._is_given_out = True
        starts = self._first_starts() if not self._members else self._next_starts()
        return [
            Task(
                f"member-{number}-epoch-{self._next_epoch}",
                {"member": number, "epoch": self._epoch, "until": self._next_epoch, **start._asdict()},
            )
            for number, start in enumerate(starts)
        ]

    def _first_starts(self) -> list[Start]:
        numbers = range(self._search.population)
        generators = (numpy_generator(self._config.seed, "search", "genome", number) for number in numbers)
        return [Start(None, random_genome(generator)) for generator in generators]

    def _next_starts(self) -> list[Start]:
        generation = self._epoch // self._search.perturb_every
        return perturb(self._members, self._search, self._config.seed, generation)

    def task_done(self, task: Task, result: Json) -> None:
        """Completes the generation with its last member."""
        if task.given["until"] != self._next_epoch:
            return  # its generation was given up
        if result.get("lost"):
            self._restart()
            return
        self._seconds += result["seconds"]
        self._device = result["device"]
        self._trained[task.given["member"]] = Trained(result["accuracy"], task.given["genome"], result["history"])
        if len(self._trained) == self._search.population:
            self._delete_members(self._epoch - self._search.perturb_every)
            self._epoch = self._next_epoch
            self._members = [self._trained[number] for number in range(self._search.population)]
            self._trained, self._is_given_out = {}, False
            self._finish_if_done()

    def _delete_members(self, epoch: int) -> None:
        with contextlib.suppress(StoreError):  # files that are left over harm nobody
            for number in range(self._search.population):
                member_file(self._files, number, epoch).delete()

    def status_line(self) -> str:
        """The progress, such as `epoch 30 of 200, best accuracy 0.931`."""
        best = f", best accuracy {max(member.accuracy for member in self._members):.3f}" if self._members else ""
        return f"epoch {self._epoch} of {self._search.epochs}{best}"

    def _finish_if_done(self) -> None:
        if self._epoch < self._search.epochs:
            return
        best = max(self._members, key=lambda member: member.accuracy)
        source = f"population-based augmentation on {self._config.dataset.label} {self._config.distortion}"
        found = provenance(
            self._config,
            accuracy=best.accuracy,
            accuracies=sorted((member.accuracy for member in self._members), reverse=True),
            seconds=self._seconds,
            device=self._device,
        )
        schedule = as_schedule(best.history, self._search.epochs, source)
        self.policy = schedule.model_copy(update={"provenance": found})


def perturb(members: Sequence[Trained], search: PopulationSearch, seed: int, generation: int) -> list[Start]:
    """The next generation: each of the worst quantile continues from one of the best, with a changed genome.

    Args:
        members: the population after `generation` generations.
    """
    count = min(math.ceil(len(members) * search.quantile), len(members) // 2)
    order = sorted(range(len(members)), key=lambda number: members[number].accuracy)
    worst, best = order[:count], order[len(order) - count :]
    starts = [Start(number, member.genome) for number, member in enumerate(members)]
    for position, number in enumerate(worst):
        donor = best[int(numpy_generator(seed, "search", "donor", generation, number).integers(count))]
        genome = members[donor].genome
        explorations = (generation - 1) * count + position + 1
        generator = numpy_generator(seed, "search", "explore", explorations, *genome)
        starts[number] = Start(donor, explore(genome, search.resample, generator))
    return starts


# ----- members in the folder of the search


def member_file(files: Location, number: int, epoch: int) -> Location:
    """The file of a member at the end of a generation."""
    return files / f"member-{number}-epoch-{epoch}.pt"


def write_member(file: Location, genome: Genome, state: dict[str, Any]) -> None:
    """Writes a member."""
    write_state(file, {"genome": genome, "member": state})


def read_member(file: Location) -> dict[str, Any] | None:
    """Reads a member's `genome`, and its state as `member`; None if the file cannot be used."""
    return read_state(file, {"genome", "member"})


def last_generation(files: Location, search: PopulationSearch) -> tuple[int, list[Trained]]:
    """The last epoch of which all members can be read, and these; 0 and none if there is no such epoch."""
    names = files.names()
    numbers = range(search.population)
    epochs = {*range(search.perturb_every, search.epochs, search.perturb_every), search.epochs}
    for epoch in sorted(epochs, reverse=True):
        of_epoch = [member_file(files, number, epoch) for number in numbers]
        if all(file.name in names for file in of_epoch):
            contents = [content for file in of_epoch if (content := read_member(file)) is not None]
            if len(contents) == search.population:
                return epoch, [_trained(content) for content in contents]
    return 0, []


def _trained(content: dict[str, Any]) -> Trained:
    state = content["member"]
    accuracy = 1 - float(state["training"]["history"][-1]["val_error"])
    history = [(int(epoch), list(genome)) for epoch, genome in state["history"]]
    return Trained(accuracy, list(content["genome"]), history)
