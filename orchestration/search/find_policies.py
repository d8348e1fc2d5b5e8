"""The searches of a launch, before the runs that need their policies."""

import dataclasses
import signal
from collections.abc import Mapping

from rich.console import Console

from autodo.config.run import RunConfig
from autodo.io.storage import Location, StrPath
from autodo.io.uri import absolute
from autodo.search.algorithms import ALGORITHMS
from autodo.search.tasks import search_config
from orchestration.display.search_display import SearchDisplay
from orchestration.grid.resources import ResourcesConfig

# First of all that touches Ray: it sets the environment that Ray reads at its import.
from orchestration.ray_cluster import cluster as clusters
from orchestration.search.actor_pool import ActorPool
from orchestration.search.population_searches import PopulationSearches
from orchestration.search.stop_condition import StopCondition, StopReason
from orchestration.search.task_searches import TaskSearches
from orchestration.store.failures import Reason
from orchestration.store.store import Store


@dataclasses.dataclass(frozen=True)
class SearchResults:
    """The end of all searches.

    Args:
        failed: reasons of the searches that failed, by search id.
        stop_reason: reason why some may be neither found nor failed.
    """

    failed: dict[str, Reason]
    stop_reason: StopReason | None


def find_policies(
    wanted: Mapping[str, RunConfig],
    store: Store,
    console: Console,
    *,
    resources: ResourcesConfig,
    slots: int,
    scratch: Location,
    retries: int,
    seconds: float | None = None,
    data_dir: StrPath | None = None,
) -> SearchResults:
    """Searches the policies that the store lacks, on the Ray that runs in this process.

    Searches that are made of tasks run side by side, populations after them one by one. A search that fails leaves the
    others alone; one that another launch executes is waited for. The first Ctrl-C or SIGTERM ends all of them, and the
    next call continues: a network from the checkpoint of its last epoch, a population from its last perturbation.

    Args:
        wanted: by search id, a run that needs the policy.
        resources: resources of one process; `workers` is not used.
        slots: largest number of processes.
        scratch: a folder that all nodes see, for Tune's checkpoints.
        retries: number of times that the death of a process is forgiven a search; the loss of a node always is.
        seconds: time after which the searches end as by Ctrl-C; None for no limit.
    Raises:
        KeyboardInterrupt: on a second Ctrl-C or SIGTERM.
    """
    of_tasks = {search_id: run for search_id, run in wanted.items() if search_config(run).algorithm in ALGORITHMS}
    populations = {search_id: run for search_id, run in wanted.items() if search_id not in of_tasks}
    data_path = absolute(data_dir) if data_dir else None
    with SearchDisplay(wanted, console) as display:
        stop = StopCondition(seconds, display.say)
        with clusters.on_signal(signal.SIGINT, stop.on_signal), clusters.on_signal(signal.SIGTERM, stop.on_signal):
            pool = ActorPool(store.uri, data_path, resources, slots)
            failed = TaskSearches(of_tasks, store, display, pool, stop, retries).run()
            failed |= PopulationSearches(
                populations, store, display, stop, retries, data_dir=data_path, resources=resources, scratch=scratch
            ).run()
    return SearchResults(failed, stop.reason)
