"""Search of the policies that the runs of a launch need and the store lacks, on Ray."""

import contextlib
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from autodo.errors import StoreError
from autodo.io.storage import Location
from orchestration.display.grid_progress import GridProgress
from orchestration.execution.options import LaunchOptions
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.required_policies import searches_left
from orchestration.planning.run_queue import Job
from orchestration.ray_cluster import cluster as clusters
from orchestration.store.failures import record
from orchestration.store.store import Store


def find_policies(
    jobs: Sequence[Job],
    store: Store,
    console: Console,
    *,
    local: bool,
    options: LaunchOptions,
    progress: GridProgress,
    scratch: Location,
) -> list[Job]:
    """Search missing policies and return the runs that can start; the runs of a search that fails have failed.

    Args:
        local: whether Ray runs on this machine only.
        progress: is told of failed runs, and of the reason to stop if there is one.
        scratch: a temporary folder that all nodes see.
    """
    wanted = searches_left((job.run for job in jobs), store)
    if not wanted:
        return list(jobs)
    from autodo.search.algorithms import ALGORITHMS
    from autodo.search.tasks import search_config
    from orchestration.search import population_searches, task_searches

    # One size for all searches, so that no process waits for the room of one of another size.
    sizes = [job.resources for job in jobs if job.run.search_id in wanted]
    resources = ResourcesConfig(
        cpus=max(size.cpus for size in sizes),
        gpus=max(size.gpus for size in sizes),
        memory=max((size.memory for size in sizes if size.memory is not None), default=None),
    )
    of_tasks = {search_id: run for search_id, run in wanted.items() if search_config(run).algorithm in ALGORITHMS}
    populations = {search_id: run for search_id, run in wanted.items() if search_id not in of_tasks}
    start = time.monotonic()
    ended = task_searches.find_policies(
        of_tasks,
        store,
        console,
        resources=resources,
        slots=min(clusters.slots(resources, local=local), options.max_concurrent or sys.maxsize),
        retries=options.retries,
        seconds=options.seconds,
        data_dir=options.data_dir,
    )
    failed, progress.stop_reason = ended.failed, ended.stop_reason
    if populations and progress.stop_reason is None:
        ended = population_searches.find_policies(
            populations,
            store,
            console,
            resources=resources,
            scratch=scratch,
            retries=options.retries,
            seconds=options.seconds_left(start),
            data_dir=options.data_dir,
        )
        failed, progress.stop_reason = {**failed, **ended.failed}, ended.stop_reason
    ready = []
    for job in jobs:
        search_id = job.run.search_id or ""
        if search_id not in failed:
            ready.append(job)
            continue
        reason = failed[search_id]
        line = f"the search of its policy failed, see {store.paths.search(search_id)}: {reason.last_line}"
        with contextlib.suppress(StoreError):
            store.begin(job.run)
        record(store, job.run_id, reason._replace(last_line=line))
        progress.ended(job.run_id, "failed", line)
    return ready
