"""Runs of a launch on Ray, from the checks before to the summary after."""

import contextlib
import dataclasses
import datetime
import socket
import time
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

from rich.console import Console

from autodo.config.run import RunConfig
from autodo.models.weight_names import use_weights_dir
from orchestration.cli.console import say, warn
from orchestration.cli.options import LaunchOptions, parse_duration
from orchestration.cli.plan import searches_line
from orchestration.cli.report import show_comparison
from orchestration.cli.status import print_failures
from orchestration.grid.keep import Keep
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning import launch_times
from orchestration.planning.plan import Plan, jobs_left, make_plan, select
from orchestration.ray_cluster.address import check_address
from orchestration.ray_cluster.job_folder import check_outlasts_job
from orchestration.store.run_state import State
from orchestration.store.store import Store
from orchestration.tracking.settings import Tracking

OUT_OF_TIME = 124
"""Exit code when the time budget ended a launch, as of coreutils' `timeout`."""


@dataclasses.dataclass(frozen=True)
class LaunchRequest:
    """Runs to be launched on a store.

    Args:
        runs: by run id; those that are done are not run again.
        resources: of each run, by run id.
        keep: what the runs leave in the store besides their tables.
        title: for the terminal and trackers.
        retried: ids of runs that are tried again although they were given up.
        variants: name of the variant of some runs, by run id.
    """

    store: Store
    runs: Mapping[str, RunConfig]
    resources: Mapping[str, ResourcesConfig]
    keep: tuple[Keep, ...]
    title: str
    retried: frozenset[str] = frozenset()
    variants: Mapping[str, str] = dataclasses.field(default_factory=dict)


def run_jobs(console: Console, options: LaunchOptions, request: LaunchRequest, prepare: Callable[[], object]) -> int:
    """Run what is left of a request and print the summary; return the exit code.

    Args:
        prepare: writes what the store needs; called when all checks have passed, just before the first run starts.
    """
    store, runs = request.store, list(request.runs.values())
    use_weights_dir(options.data.weights_dir)
    check_outlasts_job(store)
    seconds = None if options.time_budget is None else parse_duration(options.time_budget)
    tracking = _checked_tracking(options)
    part = select(runs, ",".join(options.only), request.variants) if options.only else runs
    plan = make_plan(part, store, options.retries, request.retried)
    done = [run_id for run_id, state in plan.states.items() if state is State.DONE]
    for name, count in store.status.not_kept(done, request.keep).items():
        warn(
            console,
            f"{count} of the {len(done)} runs that are done have not kept their {name}, and are not run again; "
            f"--keep {name} with another --store runs them again",
        )

    def summary(reason: str | None, *, ran: bool = True) -> int:
        after = make_plan(runs, store, options.retries)
        return _summary(console, after, store, reason, part=plan.runs.keys(), ran=ran)

    if not plan.left:
        return summary(None, ran=False)
    # Before anything is written and before Ray starts: a missing file is one line, not a failure per run.
    _check_data(console, list(plan.left.values()), options)
    begun = time.monotonic()  # after a download, which the next launch does not repeat
    curves = _tensorboard_dir(store) if options.tensorboard else Path()
    prepare()
    searches = searches_line(plan.left.values(), store)
    say(console, f"{request.title}: {len(plan.left)} runs to do, {len(done)} done; store {store}")
    if searches:
        say(console, searches)
    jobs = jobs_left(plan, store, request.resources, request.variants)
    kind = launch_times.LaunchKind(any(job.resources.workers > 1 for job in jobs), options.address is not None)
    with contextlib.ExitStack() as stack:
        with console.status("starting Ray"):
            from orchestration.ray_cluster.cluster import Cluster
            from orchestration.ray_cluster.session import starting_ray

            cluster = Cluster(options.address, options.dashboard).for_runs_of(job.resources for job in jobs)
            session = stack.enter_context(starting_ray(cluster))

            from orchestration import launch as on_ray
            from orchestration.execution.options import LaunchSettings
            from orchestration.tracking.delivery import delivering
        started = time.monotonic()
        tracked = delivering(
            tracking,
            grid=request.title,
            directory=curves,
            say=lambda text: say(console, text),
            variants=request.variants,
        )
        progress = None
        try:
            with tracked as trackers:
                progress = on_ray.launch(
                    jobs,
                    store,
                    console,
                    cluster=cluster,
                    options=LaunchSettings(
                        max_concurrent=options.max_concurrent,
                        retries=options.retries,
                        seconds=seconds,
                        data_dir=options.data.data_dir,
                        weights_dir=options.data.weights_dir,
                        keep=request.keep,
                    ),
                    done_before=len(done),
                    trackers=trackers,
                    overhead=launch_times.expected_overhead(store, kind),
                )
            reason = progress.stop_reason
        except KeyboardInterrupt:
            reason = "interrupted"
        session.end()
        trained = time.monotonic()
        code = summary(reason)
        reported = time.monotonic()
        session.wait()
    if progress is not None and progress.first_step_at and progress.last_end_at and not searches:
        times = launch_times.LaunchTimes(
            time=datetime.datetime.now(datetime.UTC),
            host=socket.gethostname(),
            **kind._asdict(),
            start=started - begun,
            first_step=max(0.0, progress.first_step_at - started),
            runs=progress.last_end_at - progress.first_step_at,
            shutdown=session.end_seconds,
            report=reported - trained,
            end=time.monotonic() - progress.last_end_at,
        )
        launch_times.record(store, times)
    return code


def _checked_tracking(options: LaunchOptions) -> Tracking:
    """The trackers, after a check that they and the cluster can be used."""
    tracking = Tracking(options.tensorboard, options.mlflow, options.wandb)
    tracking.check()
    if options.address is not None:
        check_address(options.address)
    return tracking


def _tensorboard_dir(store: Store) -> Path:
    """Folder of TensorBoard's files; not in an object store, because TensorBoard appends to them."""
    if store.root.local is None:
        return Path("outputs", store.root.name, "tensorboard")
    folder = store.root / "tensorboard"
    folder.make_folder()  # raises if it is a link that leads out of the store
    return Path(folder.uri)


def _check_data(console: Console, runs: Sequence[RunConfig], options: LaunchOptions) -> None:
    from orchestration.execution.process import check_network, load_dataset

    with console.status("checking the data"):
        for dataset in dict.fromkeys(run.dataset for run in runs):
            loaded = load_dataset(dataset, options.data.data_dir, options.data.download)
            for run in {run.model: run for run in runs if run.dataset == dataset}.values():
                check_network(run, loaded)
    # The processes of the runs load it themselves; here it would only occupy memory.
    load_dataset.cache_clear()


def _summary(console: Console, after: Plan, store: Store, reason: str | None, *, part: Set[str], ran: bool) -> int:
    """Print the results, and what is left and why; return the exit code.

    Args:
        reason: why the launch stopped early, if it did.
        part: ids of the runs that this launch was to run.
        ran: whether it has run any.
    """
    counts, total = after.counts(), len(after.runs)
    if counts[State.DONE]:
        show_comparison(console, after, store, ran=ran)
    failed = {run_id for run_id, state in after.states.items() if state is State.FAILED}
    if failed:
        print_failures(console, store, failed)
    if reason is not None and part & after.left.keys():
        say(console, f"{reason}: {counts[State.DONE]} of {total} runs are done; the same command continues")
        return OUT_OF_TIME if reason == "out of time" else 130
    if failed & part:
        say(console, f"{len(failed & part)} of {len(part)} runs failed; {_remedy(after, store)}", "red")
        return 1
    left = total - counts[State.DONE]
    if not left:
        say(console, f"all {total} runs are done")
    elif part & after.left.keys():
        say(console, f"{left} of {total} runs are left; another launch is running them, or they have not started")
    else:
        say(console, f"all {len(part)} runs of this part are done, {left} of {total} are left")
    return 0


def _remedy(after: Plan, store: Store) -> str:
    if after.given_up:
        return f"{len(after.given_up)} given up: `autodo retry {store} --failed` tries again"
    return f"the same command tries again; `autodo status {store}` says more"
