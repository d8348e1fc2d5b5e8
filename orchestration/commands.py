"""What `launch`, `resume` and `retry` do, apart from how their options are spelled."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from autodo.config import RunConfig
from autodo.errors import ConfigError
from autodo.validation import parse_model, parse_overrides
from orchestration import show
from orchestration.grid import GridConfig, ResourcesConfig, expand, load_grid, pin_content
from orchestration.overview import failures, say
from orchestration.plan import RETRIES, Plan, make_plan, select, works
from orchestration.run_state import State
from orchestration.sinks import Tracking
from orchestration.store import Store

OUT_OF_TIME = 124
"""Exit code when the time budget ended a launch, as of coreutils' `timeout`."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that all three commands share."""

    data_dir: Path | str | None = None
    download: bool = False
    only: str | None = None
    max_concurrent: int | None = None
    retries: int = RETRIES
    time_budget: str | None = None
    cpus_per_run: int | None = None
    gpus_per_run: float | None = None
    memory_per_run: str | None = None
    workers_per_run: int | None = None
    address: str | None = None
    dashboard: bool = False
    keep_models: bool = False
    tensorboard: bool = False
    mlflow: str | None = None
    wandb: str | None = None


def launch(
    console: Console, settings: Settings, *, grid: str, store: Path | str | None, overrides: Sequence[str]
) -> int:
    """Runs what a grid still lacks, prints its table; returns the exit code."""
    config = pin_content(load_grid(grid).override(parse_overrides(overrides)))
    place = Store(store or config.store_path)
    resources = _resources(config.resources, settings)

    def create() -> None:
        place.create().save_grid(config)

    return _run(console, settings, place, expand(config), lambda _: resources, title=config.name, create=create)


def resume(console: Console, settings: Settings, *, root: Path | str) -> int:
    """Runs what the grids that were launched on a store still lack."""
    place = Store(root).open()
    grids = _grids(console, place)
    if not grids:
        raise ConfigError(f"{place}: no grid was launched on it")
    resources = _resources_of(grids, settings)
    runs = [run for grid in grids for run in expand(grid)]
    title = ", ".join(grid.name for grid in grids)
    return _run(console, settings, place, runs, resources, title=title)


def retry(console: Console, settings: Settings, *, root: Path | str, run_ids: Sequence[str], failed: bool) -> int:
    """Tries failed runs again, with their failures forgotten."""
    place = Store(root).open()
    if bool(run_ids) == failed:
        raise ConfigError("say which runs: either --failed, for all that failed, or their run ids")
    grids = _grids(console, place)
    known = {run.run_id: run for grid in grids for run in expand(grid)}
    chosen = sorted(place.failures()) if failed else list(dict.fromkeys(run_ids))
    runs = [known.get(run_id) or place.config(run_id) for run_id in chosen]
    states = place.states(chosen)
    for run_id, state in states.items():
        if state is not State.FAILED:
            raise ConfigError(f"{run_id}: has not failed, it is {state}; `autodo resume {place}` runs what is left")
    if not runs:
        say(console, f"{place}: no run has failed")
        return 0
    if settings.only is not None:
        runs = select(runs, settings.only)
    for run in runs:
        place.forget_failures(run.run_id)
    resources = _resources_of(grids, settings)
    return _run(console, dataclasses.replace(settings, only=None), place, runs, resources, title="failed runs")


def _run(
    console: Console,
    settings: Settings,
    store: Store,
    runs: Sequence[RunConfig],
    resources: Callable[[RunConfig], ResourcesConfig],
    *,
    title: str,
    create: Callable[[], None] = lambda: None,
) -> int:
    seconds = None if settings.time_budget is None else parse_duration(settings.time_budget)
    tracking = Tracking(settings.tensorboard, settings.mlflow, settings.wandb)
    tracking.check()
    whole = make_plan(runs, store, settings.retries)
    part = whole if settings.only is None else make_plan(select(runs, settings.only), store, settings.retries)
    reason = None
    if part.left:
        # Before anything is written and before Ray starts: a missing file is one line, not a failure per run.
        _check_data(console, list(part.left.values()), settings)
        create()
        say(
            console,
            f"{title}: {len(part.left)} runs to do, {whole.counts()[State.DONE]} done; store {store}",
        )
        with console.status("starting Ray"):
            from orchestration import launch as on_ray
            from orchestration import trackers
            from orchestration.cluster import Cluster
        options = on_ray.Options(
            max_concurrent=settings.max_concurrent,
            retries=settings.retries,
            seconds=seconds,
            data_dir=settings.data_dir,
            keep_models=settings.keep_models,
        )
        # TensorBoard appends to its files, which an object store cannot.
        curves = (store.root.local or Path("outputs", store.root.name)) / "tensorboard"
        follow = trackers.callbacks(tracking, grid=title, directory=curves, tell=lambda text: say(console, text))
        try:
            with follow as callbacks:
                progress = on_ray.launch(
                    works(part, store, resources),
                    store,
                    console,
                    cluster=Cluster(settings.address, settings.dashboard),
                    options=options,
                    done_before=part.counts()[State.DONE],
                    callbacks=callbacks,
                )
            reason = progress.stop_reason
        except KeyboardInterrupt:
            reason = "interrupted"
    after = make_plan(whole.runs.values(), store, settings.retries)
    return _summary(console, after, store, reason, part=set(part.runs))


def _check_data(console: Console, runs: Sequence[RunConfig], settings: Settings) -> None:
    from orchestration.execute import load_dataset

    with console.status("checking the data"):
        for dataset in dict.fromkeys(run.dataset for run in runs):
            load_dataset(dataset, settings.data_dir, settings.download)
    # The runs' own processes load it again; here it would only take up memory until the last of them ends.
    load_dataset.cache_clear()


def _summary(console: Console, after: Plan, store: Store, reason: str | None, *, part: set[str]) -> int:
    """Prints the results, and what is left and why; returns the exit code.

    Args:
        part: ids of the runs that this launch was to run.
    """
    counts, total = after.counts(), len(after.runs)
    if counts[State.DONE]:
        show.comparison(console, after, store)
    failed = {run_id for run_id, state in after.states.items() if state is State.FAILED}
    if failed:
        failures(console, store, failed)
    if reason is not None and after.left:
        say(console, f"{reason}: {counts[State.DONE]} of {total} runs are done; the same command continues")
        return OUT_OF_TIME if reason == "out of time" else 130
    if failed & part:
        say(console, f"{len(failed)} of {total} runs failed; {_remedy(after, store)}", "red")
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


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `45m`, `2h`, `1h30m` or `1d`.

    Raises:
        ConfigError: if it is none of these, or no time at all.
    """
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    parts = [int(part or 0) for part in match.groups()] if match else []
    seconds = sum(part * unit for part, unit in zip(parts, (86400, 3600, 60, 1), strict=False))
    if not seconds:
        raise ConfigError(f"--time-budget {text!r}: is not a time such as 2h, 45m, 1h30m or 1d")
    return float(seconds)


def _resources(base: ResourcesConfig, settings: Settings) -> ResourcesConfig:
    given = {
        "cpus": settings.cpus_per_run,
        "gpus": settings.gpus_per_run,
        "memory": settings.memory_per_run,
        "workers": settings.workers_per_run,
    }
    tree = base.model_dump() | {key: value for key, value in given.items() if value is not None}
    return parse_model(ResourcesConfig, tree, "resources")


def _resources_of(grids: Sequence[GridConfig], settings: Settings) -> Callable[[RunConfig], ResourcesConfig]:
    """What a run of one of the grids occupies; of a run that is in none, the default."""
    known: dict[str, ResourcesConfig] = {}
    for grid in grids:
        known |= dict.fromkeys((run.run_id for run in expand(grid)), _resources(grid.resources, settings))
    default = _resources(ResourcesConfig(), settings)
    return lambda run: known.get(run.run_id, default)


def _grids(console: Console, store: Store) -> list[GridConfig]:
    """The grids of a store that can be read and expanded; of the others a warning is printed."""
    grids = []
    for grid in store.grids().values():
        try:
            if isinstance(grid, ConfigError):
                raise grid
            expand(grid)
        except ConfigError as error:
            say(console, f"warning: {error}", "yellow")
            continue
        grids.append(grid)
    return grids
