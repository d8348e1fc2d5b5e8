"""`autodo launch`, `resume` and `retry`: which runs, with which resources."""

import dataclasses
from collections.abc import Sequence

from rich.console import Console

from autodo import plugins
from autodo.config.run import RunConfig
from autodo.errors import ConfigError
from autodo.io.storage import StrPath
from autodo.models.weight_names import use_weights_dir
from autodo.text import hint
from orchestration.cli.console import say, warn
from orchestration.cli.options import GridOptions, LaunchOptions, with_options
from orchestration.cli.plan import load_pinned_grid
from orchestration.cli.run_jobs import LaunchRequest, run_jobs
from orchestration.grid.grid import expand, pin_plugins, variant_names
from orchestration.grid.keep import parse_keep
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.plan import continued, launched_grids, select
from orchestration.planning.required_policies import save_policies
from orchestration.store.run_state import State
from orchestration.store.store import Store


def launch_grid(console: Console, grid: GridOptions, options: LaunchOptions) -> int:
    """Run what a grid still lacks, and print its table; return the exit code."""
    from autodo import data

    use_weights_dir(options.data.weights_dir)
    with data.shared_listing():
        config, policies = load_pinned_grid(grid)
        store = Store(grid.store or config.store_path).supported()
        config, remark = continued(config, store)
        if remark:
            say(console, remark)
        resources = with_options(config.resources, options.resources, options.trainer)
        keep = parse_keep([*config.keep, *options.keep])

        def prepare() -> None:
            # With the options of the command line, so that `resume` uses them too.
            pinned = pin_plugins(config).model_copy(update={"resources": resources, "keep": keep})
            store.create().save_grid(pinned)
            store.save_plugins(plugins.files())
            save_policies(policies, store)

        runs = {run.run_id: run for run in expand(config)}
        request = LaunchRequest(
            store, runs, dict.fromkeys(runs, resources), keep, config.name, variants=variant_names(config)
        )
        return run_jobs(console, options, request, prepare)


def resume_store(console: Console, root: StrPath, options: LaunchOptions) -> int:
    """Run what the grids that were launched on a store still lack; return the exit code."""
    store = Store(root).open()
    request = _launched(console, store, options)
    if not request.runs:
        problem = "none of its grids can be read" if store.grids() else "no grid was launched on it"
        raise ConfigError(f"{store}: {problem}")
    return run_jobs(console, options, request, store.create)


def retry_runs(console: Console, root: StrPath, options: LaunchOptions, *, run_ids: Sequence[str], failed: bool) -> int:
    """Forget the failures of some runs, or of all that failed, and run them; return the exit code."""
    store = Store(root).open()
    if bool(run_ids) == failed:
        raise ConfigError("say which runs: either --failed, for all that failed, or their run ids")
    launched = _launched(console, store, options)
    chosen = sorted(store.status.failures()) if failed else list(dict.fromkeys(run_ids))
    known = launched.runs.keys() | store.status.run_ids()
    for run_id in chosen:
        store.paths.run(run_id)  # raises if it can be no run id
        if run_id not in known:
            raise ConfigError(f"{run_id}: no run of {store} has this id{hint(run_id, sorted(known))}")
    for run_id, state in store.status.states(chosen).items():
        if state is not State.FAILED:
            raise ConfigError(f"{run_id}: has not failed, it is {state}; `autodo resume {store}` runs what is left")
    if not chosen:
        say(console, f"{store}: no run has failed")
        return 0
    runs = [launched.runs.get(run_id) or store.status.config(run_id) for run_id in chosen]
    if options.only:
        runs = select(runs, ",".join(options.only), launched.variants)
    by_id = {run.run_id: run for run in runs}
    # A run of no grid has the default resources.
    default = with_options(ResourcesConfig(), options.resources, options.trainer)
    resources = {run_id: launched.resources.get(run_id, default) for run_id in by_id}

    def forget() -> None:
        store.create()
        for run_id in by_id:
            store.forget_failures(run_id)

    request = LaunchRequest(
        store,
        by_id,
        resources,
        launched.keep,
        "failed runs",
        retried=frozenset(by_id),
        variants={run_id: name for run_id, name in launched.variants.items() if run_id in by_id},
    )
    return run_jobs(console, dataclasses.replace(options, only=[]), request, forget)


def _launched(console: Console, store: Store, options: LaunchOptions) -> LaunchRequest:
    """All that was launched on a store, with the options on top; prints a warning for a grid that cannot be read."""
    grids, errors = launched_grids(store)
    for error in errors:
        warn(console, str(error))
    runs: dict[str, RunConfig] = {}
    resources: dict[str, ResourcesConfig] = {}
    variants: dict[str, str] = {}
    for grid, expanded in grids.values():
        by_id = {run.run_id: run for run in expanded}
        runs |= by_id
        variants |= variant_names(grid)
        resources |= dict.fromkeys(by_id, with_options(grid.resources, options.resources, options.trainer))
    keep = parse_keep([*options.keep, *(name for grid, _ in grids.values() for name in grid.keep)])
    title = ", ".join(grid.name for grid, _ in grids.values())
    return LaunchRequest(store, runs, resources, keep, title, variants=variants)
