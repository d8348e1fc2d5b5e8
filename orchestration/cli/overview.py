"""How far grids are: plans, states, failures. Nothing here runs anything."""

import collections
import functools
import time
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autodo.config.run import RunConfig
from autodo.config.validation import parse_overrides
from autodo.errors import StoreError
from autodo.io.storage import StrPath
from autodo.text import count_of
from orchestration.cli.options import Settings, effective
from orchestration.display.text import duration
from orchestration.grid.grid import expand, load_grid, pin_content
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.estimate import CostEstimate, wall_seconds
from orchestration.planning.launch_times import Overhead, expected
from orchestration.planning.plan import continued, jobs_left, launched, local_slots, make_plan, select
from orchestration.planning.required_policies import pin_policy_files, searches_left
from orchestration.planning.run_queue import Job
from orchestration.store.run_state import State
from orchestration.store.store import Store

WATCH_SECONDS = 3.0
WATCH_SECONDS_IN_A_LOG = 60.0
LINES_AT_WORK = 100
SEARCHES_NAMED = 3
_STYLES = {State.DONE: "green", State.FAILED: "red", State.STARTED: "yellow", State.MISSING: "dim"}


def plan(
    console: Console,
    settings: Settings,
    *,
    grid: str,
    store: StrPath | None,
    overrides: Sequence[str],
    list_runs: bool,
) -> None:
    """Prints the runs of a grid by state, and the time that the rest takes."""
    config, _ = pin_policy_files(pin_content(load_grid(grid).override(parse_overrides(overrides))))
    place = Store(store or config.store_path).supported()
    config, remark = continued(config, place)
    if remark and not list_runs:
        say(console, remark)
    resources = effective(config.resources, settings)
    runs = expand(config)
    planned = make_plan(runs if settings.only is None else select(runs, settings.only), place, settings.retries)
    if list_runs:
        for run_id, state in planned.states.items():
            console.print(Text(f"{state:8}", style=_STYLES[state]), Text(run_id), soft_wrap=True)
        return
    groups: dict[tuple[str, str], collections.Counter[State]] = collections.defaultdict(collections.Counter)
    for run_id, run in planned.runs.items():
        groups[run.dataset.label, run.method.name][planned.states[run_id]] += 1
    table = Table(title=Text(f"{config.name}: {len(planned.runs)} runs, store {place}"), title_justify="left")
    table.add_column("dataset")
    table.add_column("method")
    for state in State:
        table.add_column(state.value, justify="right")
    for (dataset, method), counts in groups.items():
        table.add_row(dataset, method, *_counts(counts))
    table.add_section()
    table.add_row("all", "", *_counts(planned.counts()))
    console.print(table)
    left = jobs_left(planned, place, functools.partial(_same, resources))
    say(console, f"left: {_cost_line(left, local_slots(resources), 'here')}")
    if left:
        overhead = expected(place, several_workers=resources.workers > 1, joined=settings.address is not None)
        say(console, _in_all(left, local_slots(resources), overhead))
    if line := searches_line(planned.left.values(), place):
        say(console, line)
    if planned.given_up:
        say(console, _given_up(planned.given_up, place))


def _cost_line(left: Sequence[Job], slots: int, where: str) -> str:
    """`12 runs, about 9 min 00 s of training (0.15 core-hours), about 4 min 30 s at 2 at a time here`."""
    total = CostEstimate.of(left)
    if not total.runs:
        return "nothing"
    text = count_of(total.runs, "run")
    if total.unknown == total.runs:
        return f"{text}; time unknown: the store has no result of this dataset and model yet"
    hours = f"{total.gpu_hours:.2g} GPU-hours" if total.gpu_hours else f"{total.core_hours:.2g} core-hours"
    text += f", about {duration(total.seconds)} of training ({hours})"
    slots = min(slots, total.runs)
    if slots > 1:
        seconds = sorted((job.expected_seconds or 0.0 for job in left), reverse=True)
        text += f", about {duration(wall_seconds(seconds, slots))} at {slots} at a time {where}"
    elif slots == 1 < total.runs:
        text += f", one at a time {where}"
    return text + (f"; without {count_of(total.unknown, 'run')} of unknown length" if total.unknown else "")


def _in_all(left: Sequence[Job], slots: int, overhead: Overhead) -> str:
    """`start-up and report take about 12 s more: about 5 min 10 s in all here`."""
    once, each = overhead.seconds, 0.0
    if left[0].resources.workers > 1:  # which are started for every run
        once, each = overhead.start + overhead.end, overhead.first_step
    text = f"start-up and report take about {duration(once + each * len(left))} more"
    seconds = [job.expected_seconds + each for job in left if job.expected_seconds is not None]
    if len(seconds) < len(left) or not slots:
        return text
    in_all = once + wall_seconds(sorted(seconds, reverse=True), min(slots, len(seconds)))
    return f"{text}: about {duration(in_all)} in all here"


def searches_line(runs: Iterable[RunConfig], store: Store) -> str:
    """`before them: 2 searches of policies to do (dada-1a2b3c4d, …), 1 at work`; empty if there are none."""
    left = sorted(searches_left(runs, store))
    if not left:
        return ""
    named = ", ".join(left[:SEARCHES_NAMED]) + (", …" if len(left) > SEARCHES_NAMED else "")
    at_work = sum(store.status.searching(search_id) for search_id in left)
    going_on = f", {at_work} at work" if at_work else ""
    return f"before them: {count_of(len(left), 'search', 'searches')} of policies to do ({named}){going_on}"


def _same(resources: ResourcesConfig, _: str) -> ResourcesConfig:
    return resources


def _given_up(run_ids: Collection[str], store: Store) -> str:
    return f"{len(run_ids)} failed for good: `autodo retry {store} --failed` tries them again"


def _counts(counts: collections.Counter[State]) -> list[Text]:
    return [Text(str(counts[state]) if counts[state] else "·", style=_STYLES[state]) for state in State]


def status(console: Console, root: StrPath, *, watch: bool) -> None:
    """Prints how far a store is; with `watch`, again and again until nothing is left to do."""
    store = Store(root).open()
    parts, going_on = _status(store)
    if not watch or not console.is_terminal:
        _print(console, parts)
        while watch and going_on:
            time.sleep(WATCH_SECONDS_IN_A_LOG)
            parts, going_on = _look_again(store)
            _print(console, parts)
        return
    with Live(Group(*parts), console=console, auto_refresh=False) as live:
        while going_on:
            time.sleep(WATCH_SECONDS)
            parts, going_on = _look_again(store, at_most=max(3, console.height - 16))
            live.update(Group(*parts), refresh=True)


def _look_again(store: Store, at_most: int = LINES_AT_WORK) -> tuple[list[RenderableType], bool]:
    """`_status`, of a store that may be out of reach for a while."""
    try:
        return _status(store, at_most)
    except StoreError as error:
        return [Text(f"{error}; trying again", style="yellow")], True


def _print(console: Console, parts: Sequence[RenderableType]) -> None:
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def _status(store: Store, at_most: int = LINES_AT_WORK) -> tuple[list[RenderableType], bool]:
    """State of every grid, runs at work, what is left, failures by their last line; and whether anything goes on."""
    parts: list[RenderableType] = []
    table = Table(title=Text(f"store {store}"), title_justify="left")
    table.add_column("grid")
    for state in State:
        table.add_column(state.value, justify="right")
    known: dict[str, State] = {}
    left: dict[str, Job] = {}
    given_up: set[str] = set()
    grids, errors = launched(store)
    parts += [Text(f"warning: {error}", style="yellow") for error in errors]
    for name, (grid, runs) in grids.items():
        planned = make_plan(runs, store)
        known |= planned.states
        given_up |= planned.given_up
        left |= {job.run_id: job for job in jobs_left(planned, store, functools.partial(_same, grid.resources))}
        table.add_row(name, *_counts(planned.counts()))
    others = store.status.states(store.status.run_ids() - known.keys())
    if others:
        table.add_row("other runs", *_counts(collections.Counter(others.values())))
    parts.append(table)
    begun = [run_id for run_id, state in (known | others).items() if state is State.STARTED]
    going_on = store.status.at_work_on(begun)
    at_work = [run_id for run_id in begun if run_id in going_on]
    interrupted = store.status.interrupted([run_id for run_id in begun if run_id not in going_on])
    if left:
        parts.append(Text(f"left: {_cost_line(list(left.values()), len(at_work), 'now')}"))
        if line := searches_line([job.run for job in left.values()], store):
            parts.append(Text(line))
    if interrupted:
        text = f"{count_of(len(interrupted), 'run')} interrupted: `autodo resume {store}` continues those of a grid"
        parts.append(Text(text, style="yellow"))
    if given_up:
        parts.append(Text(_given_up(given_up, store), style="red"))
    parts += _failure_lines(store, None)
    if at_work:
        parts.append(Text(f"{count_of(len(at_work), 'run')} at work:"))
        lines = (f"  {run_id}: {store.status.last_log_line(run_id) or 'starting'}" for run_id in at_work[:at_most])
        parts += [Text(line, style="cyan") for line in lines]
    if len(at_work) > at_most:
        parts.append(Text(f"  and {len(at_work) - at_most} more", style="dim"))
    return parts, bool(left or at_work)


def failures(console: Console, store: Store, run_ids: set[str] | None) -> None:
    """Prints the failures by their last line, the most frequent first; of all runs if `run_ids` is None."""
    for line in _failure_lines(store, run_ids):
        console.print(line, soft_wrap=True)


def _failure_lines(store: Store, run_ids: set[str] | None) -> list[Text]:
    groups: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for run_id, failure in store.status.failures().items():
        if run_ids is None or run_id in run_ids:
            groups[failure.cause, failure.last_line].append(run_id)
    lines = []
    for (cause, last_line), ids in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines.append(Text(f"{len(ids)} failed ({cause}): {last_line}", style="red"))
        lines.append(Text(f"  such as {store.paths.failure(ids[0])}", style="dim"))
    return lines


def say(console: Console, text: str, style: str = "") -> None:
    """A line as it is: paths in it are neither coloured nor broken."""
    console.print(Text(text, style=style), soft_wrap=True)
