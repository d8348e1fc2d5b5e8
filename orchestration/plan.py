"""What of a grid is done, what is left and how long that takes; pure, nothing runs."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from autodo.config import RunConfig
from orchestration.store import State, Store

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


def seconds_left(plan: Plan, store: Store) -> float | None:
    """Training seconds of what is left, one run after another, from runs of the grid that are done.

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
    total = 0.0
    for run in plan.left:
        recipe = by_recipe.get(run.recipe_id)
        if recipe is None:
            return None
        total += by_method.get((run.recipe_id, run.variant_id), sum(recipe) / len(recipe))
    return total


def _seconds(run: RunConfig, store: Store) -> float | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(store.table_file("results", run.run_id), columns=["seconds"], partitioning=None)
        return float(table["seconds"][0].as_py())
    except (OSError, pa.ArrowException, LookupError, TypeError):
        return None  # a damaged file; the report names it


def expected_rows(runs: Iterable[RunConfig]) -> list[dict[str, Any]]:
    """The identity columns of runs that should be there, so that a report can show what is missing."""
    return [{**run.identity, "config": run.model_dump_json()} for run in runs]
