"""A launch: runs on Ray Tune. The store is the only truth; Tune's own state is thrown away after each launch."""

import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from ray import tune
from rich.console import Console

from autodo import plugins
from autodo.config.shipped import dataset_presets, dataset_recipe
from autodo.errors import StoreError
from autodo.io.uri import absolute
from orchestration.display.grid_display import GridDisplay
from orchestration.display.grid_progress import GridProgress
from orchestration.execution.options import ExecutionOptions, LaunchInfo, LaunchSettings
from orchestration.execution.supervisor import Supervisor
from orchestration.execution.trial import RunTrial, placement
from orchestration.execution.tune_adapters import AttemptEvents, NoPrinting, QueueSearch, StoppingScheduler
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.launch_times import Overhead
from orchestration.planning.required_policies import searches_left
from orchestration.planning.run_queue import Job, RunQueue
from orchestration.ray_cluster import cluster as clusters
from orchestration.ray_cluster.cluster import Cluster
from orchestration.store.failures import record
from orchestration.store.networks import save_networks
from orchestration.store.patience import busy_seconds
from orchestration.store.scratch import scratch_directory, sweep
from orchestration.store.store import Store
from orchestration.tracking.delivery import Delivery

AUTOSCALING_DEMAND = 200
"""Runs that a cluster is asked for at a time, so that an autoscaler sees the demand; Tune's own number."""


def launch(
    jobs: Sequence[Job],
    store: Store,
    console: Console,
    *,
    cluster: Cluster,
    options: LaunchSettings,
    done_before: int = 0,
    trackers: Sequence[Delivery] = (),
    overhead: Overhead | None = None,
) -> GridProgress:
    """Execute every run and show the progress; a failure of one run leaves the others alone.

    Policies that runs need and the store lacks are searched first; the runs of a search that fails have failed.

    The first Ctrl-C or SIGTERM lets the runs at work end their epoch, which leaves a checkpoint.

    Args:
        done_before: runs of the grid that were done before, for the display.
        trackers: deliveries to the user's trackers.
        overhead: expected duration of a launch besides its runs, for the display.
    Returns:
        how the runs ended.
    Raises:
        ConfigError: if no machine can hold a single run.
        KeyboardInterrupt: on a second Ctrl-C or SIGTERM, when everything has stopped; the next launch continues from
            the checkpoints.
    """
    # For callers without `session.starting_ray`; within it Ray runs, and only the scratch folder is new: for Tune.
    # Directly in /tmp: a socket's path in it must stay below about 100 characters, and TMPDIR can be long.
    sweep(Path("/tmp"))
    cluster = cluster.for_runs_of(job.resources for job in jobs)
    with scratch_directory(Path("/tmp")) as scratch, clusters.running_ray(cluster, scratch):
        local = cluster.address is None
        slots = min(clusters.slots(resources, local=local) for resources in {job.resources for job in jobs})
        slots = min(slots, options.max_concurrent or slots, len(jobs))
        _point_to_gpus(jobs, console)
        progress = GridProgress(
            jobs,
            done_before=done_before,
            slots=slots,
            first_step_seconds=overhead.first_step if overhead else 0.0,
            end_seconds=overhead.end if overhead else 0.0,
        )
        start = time.monotonic()
        ready = _search_policies(jobs, store, console, local=local, options=options, progress=progress)
        if not ready or progress.stop_reason is not None:
            return progress
        several_workers = any(job.resources.workers > 1 for job in jobs)
        queue = RunQueue(
            ready,
            retries=options.retries,
            # A trial of several workers holds no CPU, so that Ray would start any number of them.
            at_most=options.max_concurrent or (slots if several_workers else None),
            seconds=options.seconds_left(start),
            patience_seconds=busy_seconds(store.root),
        )
        execution = ExecutionOptions(
            data_dir=absolute(options.data_dir) if options.data_dir else None,
            weights_dir=options.weights_dir and str(Path(options.weights_dir).expanduser().absolute()),
            keep=options.keep,
            launch=LaunchInfo(uuid.uuid4().hex[:12], slots),
            plugins=plugins.files(),
            networks=save_networks([job.run for job in jobs], store),
        )
        supervisor = Supervisor(queue, progress, store, GridDisplay(progress, console), trackers, _smaller_preset(jobs))
        # Tune starts any of the trials that wait for room in a small cluster; so it knows of no more than it needs.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots + 1 if local else max(slots + 1, AUTOSCALING_DEMAND))
        tuner = tune.Tuner(
            tune.with_resources(RunTrial, placement),
            tune_config=tune.TuneConfig(
                search_alg=QueueSearch(queue, store.uri, execution),
                scheduler=StoppingScheduler(queue),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[AttemptEvents(supervisor), NoPrinting()],
            ),
        )
        with (
            clusters.reporting_deaths(),
            supervisor.display,
            clusters.on_signal(signal.SIGINT, supervisor.on_stop_signal),
            # From a batch system, which gives some time; Ray's own handler would leave its processes and files behind.
            clusters.on_signal(signal.SIGTERM, supervisor.on_stop_signal),
        ):
            tuner.fit()
    return progress


def _search_policies(
    jobs: Sequence[Job],
    store: Store,
    console: Console,
    *,
    local: bool,
    options: LaunchSettings,
    progress: GridProgress,
) -> list[Job]:
    """Search the policies that runs need and the store lacks; the runs of a search that fails have failed.

    Args:
        local: whether Ray runs on this machine only.
    Returns:
        the runs that can start.
    """
    wanted = searches_left((job.run for job in jobs), store)
    if not wanted:
        return list(jobs)
    from orchestration.search.find_policies import find_policies

    # One size for all searches, so that no process waits for the room of one of another size.
    sizes = [job.resources for job in jobs if job.run.search_id in wanted]
    resources = ResourcesConfig(
        cpus=max(size.cpus for size in sizes),
        gpus=max(size.gpus for size in sizes),
        memory=max((size.memory for size in sizes if size.memory is not None), default=None),
    )
    results = find_policies(
        wanted,
        store,
        console,
        resources=resources,
        slots=min(clusters.slots(resources, local=local), options.max_concurrent or sys.maxsize),
        retries=options.retries,
        seconds=options.seconds,
        data_dir=options.data_dir,
    )
    progress.stop_reason = results.stop_reason
    ready = []
    for job in jobs:
        search_id = job.run.search_id or ""
        if search_id not in results.failed:
            ready.append(job)
            continue
        reason = results.failed[search_id]
        line = f"the search of its policy failed, see {store.paths.search(search_id)}: {reason.last_line}"
        with contextlib.suppress(StoreError):
            store.begin(job.run)
        record(store, job.run_id, reason._replace(last_line=line))
        progress.ended(job.run_id, "failed", line)
    return ready


def _smaller_preset(jobs: Sequence[Job]) -> str | None:
    """The first preset of a dataset's recipe, for runs on CPUs with the recipe's own network.

    Another network comes from a preset already, or was chosen and may be smaller than the preset's.
    """
    for job in jobs:
        dataset = job.run.dataset.name
        if not job.resources.gpus and job.run.model.name == dataset_recipe(dataset)["model"]["name"]:
            for name in dataset_presets(dataset):
                return name
    return None


def _point_to_gpus(jobs: Sequence[Job], console: Console) -> None:
    gpus = clusters.gpus()
    if gpus and not any(job.resources.gpus for job in jobs):
        console.print(
            f"{gpus:g} GPU{'s' if gpus > 1 else ''} found, but these runs use none: "
            "--gpus-per-run 1, or a share such as 0.25, trains on them",
            highlight=False,
        )
