"""What of a grid is done, what is left and how long that takes; pure, nothing runs."""

import collections
import dataclasses
import heapq
import os
from collections.abc import Iterable, Sequence
from typing import Any

from autodo.config import RunConfig
from orchestration.grid import ResourcesConfig
from orchestration.run_state import State
from orchestration.store import Store

_SAMPLES = 3  # results read for the mean time of one (recipe, method); more would make planning slow


@dataclasses.dataclass(frozen=True)
class Plan:
    """The runs of a grid, each with its state in a store."""

    runs: tuple[RunConfig, ...]
    states: dict[str, State]

    @property
    def left(self) -> tuple[RunConfig, ...]:
        """What a launch would run."""
        return tuple(run for run in self.runs if self.states[run.run_id] is not State.DONE)

    def counts(self) -> collections.Counter[State]:
        """How many runs there are of each state."""
        return collections.Counter(self.states.values())

    def only(self, states: Sequence[State]) -> "Plan":
        """The part of the plan that is done or in one of `states`."""
        keep = {State.DONE, *states}
        runs = tuple(run for run in self.runs if self.states[run.run_id] in keep)
        return Plan(runs, {run.run_id: self.states[run.run_id] for run in runs})


def make_plan(runs: Iterable[RunConfig], store: Store) -> Plan:
    """The runs with their states; a store that does not exist yet has none done."""
    runs = tuple(runs)
    return Plan(runs, store.states(run.run_id for run in runs))


def seconds_left(plan: Plan, store: Store) -> list[float] | None:
    """Training seconds of each run that is left, in their order, from runs of the grid that are done.

    A method that has no result yet is taken to cost what the others of its recipe cost on average.

    Returns:
        None if for a recipe nothing has been measured.
    """
    samples: dict[tuple[str, str], list[RunConfig]] = collections.defaultdict(list)
    for run in plan.runs:
        key = (run.recipe_id, run.variant_id)
        if plan.states[run.run_id] is State.DONE and len(samples[key]) < _SAMPLES:
            samples[key].append(run)
    by_method: dict[tuple[str, str], float] = {}
    by_recipe: dict[str, list[float]] = collections.defaultdict(list)
    for key, runs in samples.items():
        measured = [seconds for run in runs if (seconds := _seconds(run, store)) is not None]
        if measured:
            by_method[key] = sum(measured) / len(measured)
            by_recipe[key[0]].append(by_method[key])
    left = []
    for run in plan.left:
        recipe = by_recipe.get(run.recipe_id)
        if recipe is None:
            return None
        left.append(by_method.get((run.recipe_id, run.variant_id), sum(recipe) / len(recipe)))
    return left


def wall_seconds(seconds: Iterable[float], slots: int) -> float:
    """How long runs of so many seconds take in all if each one, in order, goes to the first slot that is free."""
    free_at = [0.0] * slots
    for run_seconds in seconds:
        heapq.heapreplace(free_at, free_at[0] + run_seconds)
    return max(free_at)


def local_slots(resources: ResourcesConfig) -> int:
    """How many runs fit on this machine at a time; 0 if none does, or for GPUs, which only Ray counts."""
    return 0 if resources.gpus else (os.cpu_count() or 1) // resources.cpus


def _seconds(run: RunConfig, store: Store) -> float | None:
    import pyarrow as pa

    try:
        table = store.table_file("results", run.run_id).read_parquet(["seconds"])
        return float(table["seconds"][0].as_py())
    except (OSError, pa.ArrowException, LookupError, TypeError):
        return None  # a damaged file; the report names it


def expected_rows(runs: Iterable[RunConfig]) -> list[dict[str, Any]]:
    """The identity columns of runs that should be there, so that a report can show what is missing."""
    return [{**run.identity, "config": run.model_dump_json()} for run in runs]
