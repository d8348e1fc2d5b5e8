"""`autodo plan`: the runs of a grid by state, and the time that the rest takes."""

import collections
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodo.config.run import RunConfig
from autodo.config.validation import parse_overrides
from autodo.text import count_of
from orchestration.cli.console import say
from orchestration.cli.options import GridOptions, ResourceOptions, with_options
from orchestration.display.text import duration
from orchestration.grid.grid import GridConfig, expand, load_grid, pin_content, pin_networks, variant_names
from orchestration.planning.estimate import CostEstimate, wall_seconds
from orchestration.planning.launch_times import LaunchKind, Overhead, expected_overhead
from orchestration.planning.plan import continued, jobs_left, local_slots, make_plan, select
from orchestration.planning.required_policies import Policies, pin_policy_files, searches_left
from orchestration.planning.run_queue import Job
from orchestration.store.run_state import State
from orchestration.store.store import Store

SEARCHES_NAMED = 3
STYLES = {State.DONE: "green", State.FAILED: "red", State.STARTED: "yellow", State.MISSING: "dim"}


def load_pinned_grid(options: GridOptions) -> tuple[GridConfig, Policies]:
    """The grid of the command line, tied to its images and policy files as they are now; and these policies."""
    grid = load_grid(options.grid).override(parse_overrides(options.overrides))
    return pin_policy_files(pin_networks(pin_content(grid)))


def show_plan(
    console: Console,
    options: GridOptions,
    resource_options: ResourceOptions,
    *,
    only: Sequence[str],
    retries: int,
    list_runs: bool,
) -> None:
    """Print the runs of a grid by state, and the time that the rest takes."""
    grid, _ = load_pinned_grid(options)
    store = Store(options.store or grid.store_path).supported()
    grid, remark = continued(grid, store)
    if remark and not list_runs:
        say(console, remark)
    resources = with_options(grid.resources, resource_options)
    runs, variants = expand(grid), variant_names(grid)
    plan = make_plan(select(runs, ",".join(only), variants) if only else runs, store, retries)
    if list_runs:
        for run_id, state in plan.states.items():
            parts = [
                Text(f"{state:8}", style=STYLES[state]),
                Text(run_id),
                Text(variants.get(run_id, ""), style="cyan"),
            ]
            console.print(*(part for part in parts if part), soft_wrap=True)
        return
    groups: dict[tuple[str, str], collections.Counter[State]] = collections.defaultdict(collections.Counter)
    for run_id, run in plan.runs.items():
        method = f"{run.method.name} {variants.get(run_id, '')}".rstrip()
        groups[run.dataset.label, method][plan.states[run_id]] += 1
    table = state_table(f"{grid.name}: {len(plan.runs)} runs, store {store}", "dataset", "method")
    for (dataset, method), counts in groups.items():
        table.add_row(dataset, method, *state_cells(counts))
    table.add_section()
    table.add_row("all", "", *state_cells(plan.counts()))
    console.print(table)
    jobs, slots = jobs_left(plan, store, dict.fromkeys(plan.runs, resources), variants), local_slots(resources)
    say(console, f"left: {cost_line(jobs, slots, 'here')}")
    if jobs:
        overhead = expected_overhead(store, LaunchKind(several_workers=resources.workers > 1, joined=False))
        say(console, _total_line(jobs, slots, overhead))
    if line := searches_line(plan.left.values(), store):
        say(console, line)
    if plan.given_up:
        say(console, given_up_line(len(plan.given_up), store))


def state_table(title: str, *columns: str) -> Table:
    """An empty table with a column of counts for each state, after `columns`."""
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column)
    for state in State:
        table.add_column(state.value, justify="right")
    return table


def state_cells(counts: collections.Counter[State]) -> list[Text]:
    """Cells with the counts of each state."""
    return [Text(str(counts[state]) if counts[state] else "·", style=STYLES[state]) for state in State]


def cost_line(jobs: Sequence[Job], slots: int, where: str) -> str:
    """`12 runs, about 9 min 00 s of training (0.15 core-hours), about 4 min 30 s at 2 at a time here`."""
    total = CostEstimate.of(jobs)
    if not total.runs:
        return "nothing"
    text = count_of(total.runs, "run")
    if total.unknown == total.runs:
        return f"{text}; time unknown: the store has no result of this dataset and model yet"
    hours = f"{total.gpu_hours:.2g} GPU-hours" if total.gpu_hours else f"{total.core_hours:.2g} core-hours"
    text += f", about {duration(total.seconds)} of training ({hours})"
    slots = min(slots, total.runs)
    if slots > 1:
        seconds = sorted((job.expected_seconds or 0.0 for job in jobs), reverse=True)
        text += f", about {duration(wall_seconds(seconds, slots))} at {slots} at a time {where}"
    elif slots == 1 < total.runs:
        text += f", one at a time {where}"
    return text + (f"; without {count_of(total.unknown, 'run')} of unknown length" if total.unknown else "")


def _total_line(jobs: Sequence[Job], slots: int, overhead: Overhead) -> str:
    """`start-up and report take about 12 s more: about 5 min 10 s in all here`."""
    once, each = overhead.seconds, 0.0
    if jobs[0].resources.workers > 1:  # workers are started for every run
        once, each = overhead.start + overhead.end, overhead.first_step
    text = f"start-up and report take about {duration(once + each * len(jobs))} more"
    seconds = [job.expected_seconds + each for job in jobs if job.expected_seconds is not None]
    if len(seconds) < len(jobs) or not slots:
        return text
    total = once + wall_seconds(sorted(seconds, reverse=True), min(slots, len(seconds)))
    return f"{text}: about {duration(total)} in all here"


def searches_line(runs: Iterable[RunConfig], store: Store) -> str:
    """`before them: 2 searches of policies to do (dada-1a2b3c4d, …), 1 at work`; empty if there are none."""
    left = sorted(searches_left(runs, store))
    if not left:
        return ""
    named = ", ".join(left[:SEARCHES_NAMED]) + (", …" if len(left) > SEARCHES_NAMED else "")
    at_work = sum(store.status.searching(search_id) for search_id in left)
    going_on = f", {at_work} at work" if at_work else ""
    return f"before them: {count_of(len(left), 'search', 'searches')} of policies to do ({named}){going_on}"


def given_up_line(runs: int, store: Store) -> str:
    """`2 failed for good: ...` with the command that tries them again."""
    return f"{runs} failed for good: `autodo retry {store} --failed` tries them again"
