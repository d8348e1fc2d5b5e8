"""State of the runs of a grid: what is done, what is left, and what is given up. Runs nothing."""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from autodo.config.defaults import defaults_before
from autodo.config.run import RunConfig
from autodo.config.validation import parse_selection
from autodo.errors import ConfigError
from orchestration.grid.grid import GridConfig, expand, variant_names
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.estimate import measure, rough_cost
from orchestration.planning.run_queue import RETRIES, Job
from orchestration.store.run_state import State
from orchestration.store.store import Store

_SELECTORS: dict[str, Callable[[RunConfig], str]] = {
    "dataset": lambda run: run.dataset.label,
    "distortion": lambda run: str(run.distortion),
    "method": lambda run: run.method.name,
    "split": lambda run: run.split,
    "seed": lambda run: str(run.seed),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Runs, each with its state in a store."""

    runs: dict[str, RunConfig]
    """By run id, which takes a while to compute for thousands of runs."""
    states: dict[str, State]
    given_up: frozenset[str]
    """Ids of the failed runs that a launch does not try again."""

    @functools.cached_property
    def left(self) -> dict[str, RunConfig]:
        """Runs that a launch would run, by run id."""
        return {
            run_id: run
            for run_id, run in self.runs.items()
            if self.states[run_id] is not State.DONE and run_id not in self.given_up
        }

    def counts(self) -> collections.Counter[State]:
        """Number of runs in each state."""
        return collections.Counter(self.states.values())


def make_plan(runs: Iterable[RunConfig], store: Store, retries: int = RETRIES, retried: Collection[str] = ()) -> Plan:
    """The runs with their states; in a store that does not exist yet, none is done.

    Args:
        retries: further attempts after which a failed run is given up.
        retried: ids of runs that are not given up, however often they failed.
    """
    by_id = {run.run_id: run for run in runs}
    states = store.status.states(by_id)
    failures = {run_id: store.status.failure(run_id) for run_id, state in states.items() if state is State.FAILED}
    given_up = {run_id for run_id, failure in failures.items() if failure and failure.given_up(retries)}
    return Plan(by_id, states, frozenset(given_up.difference(retried)))


def continued(grid: GridConfig, store: Store) -> tuple[GridConfig, str]:
    """The grid with the defaults under which a store has launched it, and a remark if they are older ones.

    So the same command continues the same runs after defaults have changed. A grid that names its `protocol` keeps it.
    """
    before = store.grids().get(grid.name)
    if not isinstance(before, GridConfig) or "protocol" in grid.model_fields_set or before.protocol == grid.protocol:
        return grid, ""
    old = ", ".join(f"{key}: {value}" for key, value in defaults_before(before.protocol).items())
    return grid.model_copy(update={"protocol": before.protocol}), (
        f"{store}: {grid.name} was launched on it under protocol {before.protocol} ({old}) and continues under it; "
        f"another --store, or `protocol: {grid.protocol}` in the grid's file, takes the present defaults"
    )


def launched_grids(store: Store) -> tuple[dict[str, tuple[GridConfig, list[RunConfig]]], list[ConfigError]]:
    """Grids launched on a store by name, each with its runs; and errors of those that cannot be read or expanded."""
    grids, errors = {}, []
    for name, grid in store.grids().items():
        try:
            if isinstance(grid, ConfigError):
                raise grid
            grids[name] = grid, expand(grid)
        except ConfigError as error:
            errors.append(error)
    return grids, errors


def jobs_left(
    plan: Plan, store: Store, resources: Mapping[str, ResourcesConfig], variants: Mapping[str, str] | None = None
) -> list[Job]:
    """Jobs for the runs that are left, with their expected times.

    Args:
        resources: of each run, by run id.
        variants: name of the variant of some runs, by run id.
    """
    variants = variants or {}
    estimates = measure(store, plan.left.values(), variants)
    return [
        Job(
            run_id,
            run,
            resources[run_id],
            expected_seconds=estimates.seconds(run),
            rough_cost=rough_cost(run),
            variant=variants.get(run_id, ""),
        )
        for run_id, run in plan.left.items()
    ]


def select(runs: Sequence[RunConfig], text: str, variants: Mapping[str, str] | None = None) -> list[RunConfig]:
    """The runs that fit `method=a,method=b,seed=0`: any of the values of a key, and every key.

    Args:
        variants: name of the variant of some runs, by run id; with them `variant` is a key.
    Raises:
        ConfigError: if a key is unknown or no run has the value.
    """
    of_key = dict(_SELECTORS)
    if variants:
        of_key["variant"] = lambda run: variants.get(run.run_id, "")
    present = {key: lambda of=of: {of(run) for run in runs} - {""} for key, of in of_key.items()}
    wanted = parse_selection("--only", text, present)
    return [run for run in runs if all(of_key[key](run) in values for key, values in wanted.items())]


def local_slots(resources: ResourcesConfig) -> int:
    """Number of runs that fit on this machine at a time; 0 if none does, or for GPUs, which only Ray counts."""
    return 0 if resources.gpus else (os.cpu_count() or 1) // (resources.cpus * resources.workers)


def expected_rows(runs: Iterable[RunConfig], variants: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Identity columns of runs, from which a report knows what is missing, and their variants.

    Args:
        variants: name of the variant of some runs, by run id.
    """
    rows = [{**run.identity, "config": run.model_dump_json()} for run in runs]
    return [{**row, "variant": (variants or {}).get(str(row["run_id"]), "")} for row in rows]


def expected_in_store(store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """`expected_rows` of all grids that were launched on a store, and warnings for grids that cannot be read."""
    grids, errors = launched_grids(store)
    rows = [row for grid, runs in grids.values() for row in expected_rows(runs, variant_names(grid))]
    return rows, [f"{error}; its missing runs are unknown" for error in errors]
