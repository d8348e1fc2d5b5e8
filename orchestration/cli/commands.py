"""What `launch`, `resume` and `retry` do, apart from how their options are spelled."""

import contextlib
import dataclasses
import datetime
import socket
import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from autodo.config.run import RunConfig
from autodo.config.validation import hint, parse_overrides
from autodo.errors import ConfigError
from autodo.io.storage import StrPath
from orchestration.cli import show
from orchestration.cli.job_folder import check_outlasts_job
from orchestration.cli.options import Settings, effective, parse_duration
from orchestration.cli.overview import failures, say, searches_line
from orchestration.grid.grid import expand, load_grid, pin_content
from orchestration.grid.keep import Keep, parse_keep
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning import launch_times, required_policies
from orchestration.planning.plan import Plan, continued, jobs_left, launched, make_plan, select
from orchestration.ray_cluster.address import check_address
from orchestration.store.run_state import State
from orchestration.store.store import Store
from orchestration.tracking.sinks import Tracking

OUT_OF_TIME = 124
"""Exit code when the time budget ended a launch, as of coreutils' `timeout`."""


def launch(console: Console, settings: Settings, *, grid: str, store: StrPath | None, overrides: Sequence[str]) -> int:
    """Runs what a grid still lacks, prints its table; returns the exit code."""
    from autodo import data

    with data.shared_listing():
        return _launch(console, settings, grid=grid, store=store, overrides=overrides)


def _launch(console: Console, settings: Settings, *, grid: str, store: StrPath | None, overrides: Sequence[str]) -> int:
    config = pin_content(load_grid(grid).override(parse_overrides(overrides)))
    config, found = required_policies.pin_policy_files(config)
    place = Store(store or config.store_path).supported()
    config, remark = continued(config, place)
    if remark:
        say(console, remark)
    resources = effective(config.resources, settings)
    keep = parse_keep([*config.keep, *settings.keep])

    def create() -> None:
        # With what was asked for, so that `resume` asks for the same.
        place.create().save_grid(config.model_copy(update={"resources": resources, "keep": keep}))
        required_policies.save_policies(found, place)

    runs = expand(config)
    return _run(console, settings, place, runs, lambda _: resources, keep=keep, title=config.name, before=create)


def resume(console: Console, settings: Settings, *, root: StrPath) -> int:
    """Runs what the grids that were launched on a store still lack."""
    place = Store(root).open()
    runs, resources, keep, title = _launched(console, place, settings)
    if not runs:
        raise ConfigError(f"{place}: no grid was launched on it")
    before = place.create
    return _run(console, settings, place, list(runs.values()), resources, keep=keep, title=title, before=before)


def retry(console: Console, settings: Settings, *, root: StrPath, run_ids: Sequence[str], failed: bool) -> int:
    """Tries failed runs again, with their failures forgotten."""
    place = Store(root).open()
    if bool(run_ids) == failed:
        raise ConfigError("say which runs: either --failed, for all that failed, or their run ids")
    known, resources, keep, _ = _launched(console, place, settings)
    chosen = sorted(place.status.failures()) if failed else list(dict.fromkeys(run_ids))
    ids = known.keys() | place.status.run_ids()
    for run_id in chosen:
        place.paths.run(run_id)  # raises for what can be no run id
        if run_id not in ids:
            raise ConfigError(f"{run_id}: no run of {place} has this id{hint(run_id, sorted(ids))}")
    runs = [known.get(run_id) or place.status.config(run_id) for run_id in chosen]
    states = place.status.states(chosen)
    for run_id, state in states.items():
        if state is not State.FAILED:
            raise ConfigError(f"{run_id}: has not failed, it is {state}; `autodo resume {place}` runs what is left")
    if not runs:
        say(console, f"{place}: no run has failed")
        return 0
    if settings.only is not None:
        runs = select(runs, settings.only)
    forgiven = frozenset(run.run_id for run in runs)

    def forget() -> None:
        place.create()
        for run_id in forgiven:
            place.forget_failures(run_id)

    settings = dataclasses.replace(settings, only=None)
    return _run(
        console, settings, place, runs, resources, keep=keep, title="failed runs", before=forget, forgiven=forgiven
    )


def _run(
    console: Console,
    settings: Settings,
    store: Store,
    runs: Sequence[RunConfig],
    resources: Callable[[str], ResourcesConfig],
    *,
    keep: tuple[Keep, ...],
    title: str,
    before: Callable[[], object] = lambda: None,
    forgiven: frozenset[str] = frozenset(),
) -> int:
    """Runs what is left.

    Args:
        keep: what the runs leave in the store besides their tables.
        before: done when all is known to be in order, just before the first run starts.
        forgiven: ids of runs that are tried again although they were given up.
    """
    check_outlasts_job(store)
    seconds = None if settings.time_budget is None else parse_duration(settings.time_budget)
    tracking = Tracking(settings.tensorboard, settings.mlflow, settings.wandb)
    tracking.check()
    if settings.address is not None:
        check_address(settings.address)
    part = runs if settings.only is None else select(runs, settings.only)
    planned = make_plan(part, store, settings.retries, forgiven)
    part_ids = planned.runs.keys()
    done = [run_id for run_id, state in planned.states.items() if state is State.DONE]
    for name, count in store.status.not_kept(done, keep).items():
        told = f"{count} of the {len(done)} runs that are done have not kept their {name}, and are not run again"
        say(console, f"warning: {told}; --keep {name} with another --store runs them anew", "yellow")
    if not planned.left:
        return _summary(console, make_plan(runs, store, settings.retries), store, None, part=part_ids, ran=False)
    # Before anything is written and before Ray starts: a missing file is one line, not a failure per run.
    _check_data(console, list(planned.left.values()), settings)
    begun = time.monotonic()  # after a download, which the next launch does not repeat
    curves = _curves(store) if settings.tensorboard else Path()
    before()
    searches = searches_line(planned.left.values(), store)
    say(console, f"{title}: {len(planned.left)} runs to do, {planned.counts()[State.DONE]} done; store {store}")
    if searches:
        say(console, searches)
    left = jobs_left(planned, store, resources)
    several, joined = any(job.resources.workers > 1 for job in left), settings.address is not None
    with contextlib.ExitStack() as stack:
        with console.status("starting Ray"):
            from orchestration.ray_cluster.cluster import Cluster
            from orchestration.ray_cluster.session import starting_ray

            cluster = Cluster(settings.address, settings.dashboard).for_runs_of(job.resources for job in left)
            session = stack.enter_context(starting_ray(cluster))

            from orchestration import launch as on_ray
            from orchestration.execution.options import LaunchOptions
            from orchestration.tracking import trackers
        started = time.monotonic()
        options = LaunchOptions(
            max_concurrent=settings.max_concurrent,
            retries=settings.retries,
            seconds=seconds,
            data_dir=settings.data_dir,
            keep=keep,
        )
        follow = trackers.callbacks(tracking, grid=title, directory=curves, tell=lambda text: say(console, text))
        progress = None
        try:
            with follow as callbacks:
                progress = on_ray.launch(
                    left,
                    store,
                    console,
                    cluster=cluster,
                    options=options,
                    done_before=planned.counts()[State.DONE],
                    callbacks=callbacks,
                    overhead=launch_times.expected(store, several_workers=several, joined=joined),
                )
            reason = progress.stop_reason
        except KeyboardInterrupt:
            reason = "interrupted"
        session.end()
        trained = time.monotonic()
        code = _summary(console, make_plan(runs, store, settings.retries), store, reason, part=part_ids)
        reported = time.monotonic()
        session.wait()
    if progress is not None and progress.first_step_at and progress.last_end_at and not searches:
        times = launch_times.LaunchTimes(
            time=datetime.datetime.now(datetime.UTC),
            host=socket.gethostname(),
            several_workers=several,
            joined=joined,
            start=started - begun,
            first_step=max(0.0, progress.first_step_at - started),
            runs=progress.last_end_at - progress.first_step_at,
            shutdown=session.end_seconds,
            report=reported - trained,
            end=time.monotonic() - progress.last_end_at,
        )
        launch_times.record(store, times)
    return code


def _curves(store: Store) -> Path:
    """Where TensorBoard's files go. It appends to them, which an object store cannot."""
    if store.root.local is None:
        return Path("outputs", store.root.name, "tensorboard")
    folder = store.root / "tensorboard"
    folder.make_folder()  # raises if it is a link that leads out of the store
    return Path(folder.uri)


def _check_data(console: Console, runs: Sequence[RunConfig], settings: Settings) -> None:
    from orchestration.execution.process import load_dataset

    with console.status("checking the data"):
        for dataset in dict.fromkeys(run.dataset for run in runs):
            load_dataset(dataset, settings.data_dir, settings.download)
    # The runs' own processes load it again; here it would only take up memory until the last of them ends.
    load_dataset.cache_clear()


def _summary(
    console: Console, after: Plan, store: Store, reason: str | None, *, part: Set[str], ran: bool = True
) -> int:
    """Prints the results, and what is left and why; returns the exit code.

    Args:
        part: ids of the runs that this launch was to run.
        ran: whether it has run any.
    """
    counts, total = after.counts(), len(after.runs)
    if counts[State.DONE]:
        show.comparison(console, after, store, ran=ran)
    failed = {run_id for run_id, state in after.states.items() if state is State.FAILED}
    if failed:
        failures(console, store, failed)
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
        say(console, f"{left} of {total} runs are left; another launch is at work on them, or they are still to do")
    else:
        say(console, f"all {len(part)} runs of this part are done, {left} of {total} are left")
    return 0


def _remedy(after: Plan, store: Store) -> str:
    if after.given_up:
        n = len(after.given_up)
        return f"{n} {'is' if n == 1 else 'are'} not tried again but by `autodo retry {store} --failed`"
    return f"the same command tries again; `autodo status {store}` says more"


class _Launched(NamedTuple):
    """What was launched on a store.

    Args:
        runs: of all grids, by id.
        resources: what a run occupies; one of no grid: the default.
        keep: what any of the grids, or the settings, want kept.
        title: the grids' names.
    """

    runs: dict[str, RunConfig]
    resources: Callable[[str], ResourcesConfig]
    keep: tuple[Keep, ...]
    title: str


def _launched(console: Console, store: Store, settings: Settings) -> _Launched:
    """What was launched on the store, with the settings on top.

    Of a grid that can no longer be read a warning is printed.
    """
    grids, errors = launched(store)
    for error in errors:
        say(console, f"warning: {error}", "yellow")
    runs: dict[str, RunConfig] = {}
    resources: dict[str, ResourcesConfig] = {}
    for grid, expanded in grids.values():
        by_id = {run.run_id: run for run in expanded}
        runs |= by_id
        resources |= dict.fromkeys(by_id, effective(grid.resources, settings))
    default = effective(ResourcesConfig(), settings)
    keep = parse_keep([*settings.keep, *(name for grid, _ in grids.values() for name in grid.keep)])
    title = ", ".join(grid.name for grid, _ in grids.values())
    return _Launched(runs, lambda run_id: resources.get(run_id, default), keep, title)
