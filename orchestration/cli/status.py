"""`autodo status`: the grids of a store, runs at work, and failures."""

import collections
import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from autodo.errors import StoreError
from autodo.io.storage import StrPath
from autodo.text import count_of
from orchestration.cli.plan import cost_line, given_up_line, searches_line, state_cells, state_table
from orchestration.grid.grid import variant_names
from orchestration.planning.plan import jobs_left, launched_grids, make_plan
from orchestration.planning.run_queue import Job
from orchestration.store.run_state import State
from orchestration.store.store import Store

WATCH_SECONDS = 3.0
WATCH_SECONDS_IN_A_LOG = 60.0
LINES_AT_WORK = 100


def show_status(console: Console, root: StrPath, *, watch: bool) -> None:
    """Print the state of a store; with `watch`, repeatedly until nothing is left to do."""
    store = Store(root).open()
    parts, going_on = _status(store)
    if not watch or not console.is_terminal:
        _print(console, parts)
        while watch and going_on:
            time.sleep(WATCH_SECONDS_IN_A_LOG)
            parts, going_on = _status_again(store)
            _print(console, parts)
        return
    with Live(Group(*parts), console=console, auto_refresh=False) as live:
        while going_on:
            time.sleep(WATCH_SECONDS)
            parts, going_on = _status_again(store, at_most=max(3, console.height - 16))
            live.update(Group(*parts), refresh=True)


def _status_again(store: Store, at_most: int = LINES_AT_WORK) -> tuple[list[RenderableType], bool]:
    """`_status` of a store that may be out of reach for a while."""
    try:
        return _status(store, at_most)
    except StoreError as error:
        return [Text(f"{error}; trying again", style="yellow")], True


def _print(console: Console, parts: Sequence[RenderableType]) -> None:
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def _status(store: Store, at_most: int = LINES_AT_WORK) -> tuple[list[RenderableType], bool]:
    """Lines and tables of the status, and whether anything is at work or left to do."""
    parts: list[RenderableType] = []
    table = state_table(f"store {store}", "grid")
    known: dict[str, State] = {}
    left: dict[str, Job] = {}
    given_up: set[str] = set()
    variants: dict[str, str] = {}
    grids, errors = launched_grids(store)
    parts += [Text(f"warning: {error}", style="yellow") for error in errors]
    for name, (grid, runs) in grids.items():
        plan = make_plan(runs, store)
        known |= plan.states
        of_variant: dict[str, collections.Counter[State]] = collections.defaultdict(collections.Counter)
        names = variant_names(grid)
        for run_id, variant in names.items():
            of_variant[variant][plan.states[run_id]] += 1
        variants |= names
        given_up |= plan.given_up
        left |= {job.run_id: job for job in jobs_left(plan, store, dict.fromkeys(plan.runs, grid.resources), names)}
        table.add_row(name, *state_cells(plan.counts()))
        for variant, counts in of_variant.items():
            table.add_row(f"  {variant}", *state_cells(counts))
    others = store.status.states(store.status.run_ids() - known.keys())
    if others:
        table.add_row("other runs", *state_cells(collections.Counter(others.values())))
    parts.append(table)
    begun = [run_id for run_id, state in (known | others).items() if state is State.STARTED]
    busy = store.status.at_work_on(begun)
    at_work = [run_id for run_id in begun if run_id in busy]
    interrupted = store.status.interrupted([run_id for run_id in begun if run_id not in busy])
    if left:
        parts.append(Text(f"left: {cost_line(list(left.values()), len(at_work), 'now')}"))
        if line := searches_line([job.run for job in left.values()], store):
            parts.append(Text(line))
    if interrupted:
        text = f"{count_of(len(interrupted), 'run')} interrupted: `autodo resume {store}` continues those of a grid"
        parts.append(Text(text, style="yellow"))
    if given_up:
        parts.append(Text(given_up_line(len(given_up), store), style="red"))
    parts += _failure_lines(store, None)
    if at_work:
        parts.append(Text(f"{count_of(len(at_work), 'run')} at work:"))
        lines = (
            f"  {_named(run_id, variants)}: {store.status.last_log_line(run_id) or 'starting'}"
            for run_id in at_work[:at_most]
        )
        parts += [Text(line, style="cyan") for line in lines]
    if len(at_work) > at_most:
        parts.append(Text(f"  and {len(at_work) - at_most} more", style="dim"))
    return parts, bool(left or at_work)


def _named(run_id: str, variants: Mapping[str, str]) -> str:
    """`<run id>`, or `<run id> (E10)` for a run of a variant."""
    return f"{run_id} ({variants[run_id]})" if run_id in variants else run_id


def print_failures(console: Console, store: Store, run_ids: set[str]) -> None:
    """Print the failures of these runs by their last line, the most frequent first."""
    _print(console, _failure_lines(store, run_ids))


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
