"""What the commands print: plans, states, failures, tables. Nothing here runs anything."""

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodo.config import RunConfig
from autodo.errors import ConfigError, StoreError
from autodo.recipes import method_names, method_summary
from autodo.validation import parse_overrides
from orchestration.grid import GridConfig, expand, load_grid, pin_content
from orchestration.plan import Plan, expected_rows, local_slots, make_plan, seconds_left, wall_seconds
from orchestration.progress import duration, label
from orchestration.run_state import State
from orchestration.store import Store

if TYPE_CHECKING:
    from reports.load import Results

# How a line is printed that holds paths: no colours inside it, no markup, no line breaks.
_LINE: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
_STYLES = {State.DONE: "green", State.FAILED: "red", State.STARTED: "yellow", State.MISSING: "dim"}


def plan(console: Console, *, grid: str, store: Path | str | None, overrides: Sequence[str], list_runs: bool) -> None:
    """Prints the runs of a grid by state, and the time that the rest takes."""
    config = pin_content(load_grid(grid).override(parse_overrides(overrides)))
    place = Store(store or config.store_path)
    planned = make_plan(expand(config), place)
    if list_runs:
        for run_id, state in planned.states.items():
            console.print(Text(f"{state:8}", style=_STYLES[state]), Text(run_id), soft_wrap=True)
        return
    groups: dict[tuple[str, str], collections.Counter[State]] = collections.defaultdict(collections.Counter)
    for run in planned.runs:
        groups[run.dataset.label, run.method.name][planned.states[run.run_id]] += 1
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
    console.print(f"left: {_time_left(planned, place, local_slots(config.resources))}", **_LINE)


def _time_left(planned: Plan, store: Store, slots: int) -> str:
    """`12 runs, about 9 min 00 s of training, about 4 min 30 s at 2 at a time here`."""
    n = len(planned.left)
    if not n:
        return "nothing"
    runs = f"{n} run{'s' if n > 1 else ''}"
    seconds = seconds_left(planned, store)
    if seconds is None:
        return f"{runs}; time unknown: the store has no result of this recipe yet"
    text = f"{runs}, about {duration(sum(seconds))} of training"
    slots = min(slots, n)
    if slots > 1:
        text += f", about {duration(wall_seconds(seconds, slots))} at {slots} at a time here"
    return f"{text}, one at a time here" if slots == 1 < n else text


def _counts(counts: collections.Counter[State]) -> list[Text]:
    return [Text(str(counts[state]) if counts[state] else "·", style=_STYLES[state]) for state in State]


def result(console: Console, run: RunConfig, store: Store) -> None:
    """Prints the errors of a run that is done.

    Raises:
        StoreError: if its result is damaged.
    """
    from reports.load import load_results

    frame = load_results(store.root).frame
    rows = frame[frame["run_id"] == run.run_id].to_dict("records")
    if not rows:
        raise StoreError(f"{store.table_file('results', run.run_id)}: damaged; delete it and train again")
    (row,) = rows
    table = Table(title=label(run), title_justify="left", show_header=False)
    table.add_row("test error, epoch of lowest val error", f"{100 * row['error_best_val']:.2f}%")
    if row["minority_error"] == row["minority_error"]:  # NaN: the test set has none of these classes
        table.add_row("  of the minority classes", f"{100 * row['minority_error']:.2f}%")
    table.add_row("test error, last epoch", f"{100 * row['error_last']:.2f}%")
    table.add_row("training time", f"{duration(row['seconds'])} on {row['device']}")
    console.print(table)
    console.print(f"result: {store.table_file('results', run.run_id)}", **_LINE)
    if store.model_file(run.run_id).exists():
        console.print(f"classifier: {store.model_file(run.run_id)}", **_LINE)


def status(console: Console, root: Path | str) -> None:
    """Prints the state of every grid in a store and the failures by their last line."""
    store = Store(root).open()
    table = Table(title=Text(f"store {store}"), title_justify="left")
    table.add_column("grid")
    for state in State:
        table.add_column(state.value, justify="right")
    known: set[str] = set()
    for name, grid in store.grids().items():
        try:
            if isinstance(grid, ConfigError):
                raise grid
            planned = make_plan(expand(grid), store)
        except ConfigError as error:
            console.print(Text(f"warning: {error}", style="yellow"), soft_wrap=True)
            continue
        known |= planned.states.keys()
        table.add_row(name, *_counts(planned.counts()))
    others = collections.Counter(store.states(store.run_ids() - known).values())
    if others:
        table.add_row("other runs", *_counts(others))
    console.print(table)
    failures(console, store, None)


def failures(console: Console, store: Store, run_ids: set[str] | None) -> None:
    """Prints the failures by their last line, the most frequent first; of all runs if `run_ids` is None."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for run_id, failure in store.failures().items():
        if run_ids is None or run_id in run_ids:
            groups[failure.last_line].append(run_id)
    for last_line, ids in sorted(groups.items(), key=lambda item: -len(item[1])):
        console.print(Text(f"{len(ids)} failed: {last_line}", style="red"), soft_wrap=True)
        console.print(Text(f"  such as {store.failure_file(ids[0])}", style="dim"), soft_wrap=True)


def report(console: Console, root: Path | str) -> None:
    """Prints the tables of a store and writes its report."""
    from reports.page import notes, write_report
    from reports.render import to_rich
    from reports.tables import error_table, minority_table

    store = Store(root).open()
    results = load_results(console, store)
    wanted = expected(store)
    for table in error_table(results.frame, expected=wanted) + minority_table(results.frame, wanted):
        console.print(to_rich(table))
    for note in notes(results.frame):
        console.print(f"note: {note}", **_LINE)
    for path in write_report(store.root, store.report_dir, wanted, results):
        console.print(f"report: {path}", **_LINE)


def comparison(console: Console, planned: Plan, store: Store) -> None:
    """Prints the headline table of one grid, writes the report of its store, and says where everything lies."""
    from reports.page import write_report
    from reports.render import to_rich
    from reports.tables import error_table

    results = load_results(console, store)
    mine = results.frame[results.frame["run_id"].isin(list(planned.states))]
    for table in error_table(mine, expected=expected_rows(planned.runs)):
        console.print(to_rich(table))
    console.print(f"Parquet: {store.results_dir}/*.parquet; epochs/, predictions/, points/ beside it", **_LINE)
    for path in write_report(store.root, store.report_dir, expected(store), results):
        console.print(f"report:  {path}", **_LINE)


def methods(console: Console) -> None:
    """Prints the name and one line of every method."""
    table = Table.grid(padding=(0, 2))
    for name in method_names():
        table.add_row(Text(name, style="bold"), method_summary(name))
    console.print(table)


def load_results(console: Console, store: Store) -> "Results":
    """The results of a store; files that could not be used are named on the terminal."""
    from reports import load

    results = load.load_results(store.root)
    for warning in results.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    return results


def expected(store: Store) -> list[dict[str, Any]]:
    """Rows for every run of every grid that was launched on the store."""
    grids = [grid for grid in store.grids().values() if isinstance(grid, GridConfig)]
    rows = []
    for grid in grids:
        try:
            rows += expected_rows(expand(grid))
        except ConfigError:
            continue  # its overrides no longer fit; `status` says so
    return rows
