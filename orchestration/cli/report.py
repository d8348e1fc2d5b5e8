"""`autodo report`, and the results that `train` and `launch` print when they have ended."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodo.config.run import RunConfig
from autodo.errors import StoreError
from autodo.io.storage import Location, StrPath, locate
from orchestration.cli.console import say, warn
from orchestration.display.text import duration, label
from orchestration.planning.plan import Plan, expected_in_store, expected_rows
from orchestration.store.store import Store

if TYPE_CHECKING:
    from reports.readers.load import Results

_MADE_FROM = "made_from.txt"
"""In the report's folder: a hash of the results that a launch wrote it from."""
_FORMATS = ("html", "md")


def show_result(console: Console, run: RunConfig, store: Store) -> None:
    """Print the errors of a run that is done.

    Raises:
        StoreError: if its result is damaged.
    """
    from reports.readers.load import load_results

    rows = load_results(store.root, [run.run_id]).frame.to_dict("records")
    if not rows:
        raise StoreError(f"{store.paths.table('results', run.run_id)}: damaged; delete it and train again")
    (row,) = rows
    table = Table(title=Text(label(run), style="table.title"), title_justify="left", show_header=False)
    table.add_row(f"test error, {_classifier_of(run)}", f"{100 * row['error_best_val']:.2f}%")
    if row["minority_error"] == row["minority_error"]:  # NaN: there is no minority, or the test set lacks it
        table.add_row(Text(f"  of the minority: {_minority(row)}"), f"{100 * row['minority_error']:.2f}%")
    trained = "last epoch" if run.head is None else "trained head"
    table.add_row(f"test error, {trained}", f"{100 * row['error_last']:.2f}%")
    table.add_row("training time", Text(f"{duration(row['seconds'])} on {row['device']}"))
    console.print(table)
    _note_optimistic_split(console, [run])
    say(console, f"result: {store.paths.table('results', run.run_id)}")
    if store.paths.model(run.run_id).exists():
        say(console, f"classifier: {store.paths.model(run.run_id)}")


def _classifier_of(run: RunConfig) -> str:
    """The state of the run that its classifier is."""
    if run.head is not None:
        return "solved head"
    return "last epoch" if run.training.selection == "last" else "epoch of lowest val error"


def _minority(row: Mapping[Any, Any]) -> str:
    """Names of the minority classes of a row of results, or of some of them if there are many."""
    from reports.analysis.classes import as_list, first_names

    return first_names([str(name) for name in as_list(row["class_names"])], as_list(row["minority_classes"]))


def write_store_report(
    console: Console,
    root: StrPath,
    *,
    out: str | None,
    formats: str,
    selection: str | None,
    metric: str,
    despite: str | None = None,
) -> None:
    """Print the first section of a store's report, and write the report.

    Raises:
        ConfigError: if a format, metric or setting is unknown, or the selection fits no run.
    """
    from reports.analysis.paper_results import check_departures
    from reports.build import build_report
    from reports.formats.terminal import report_terminal
    from reports.write import check_metric, parse_formats, write_files

    names = parse_formats(formats)
    check_metric(metric)
    keys = [key.strip() for key in despite.split(",")] if despite is not None else []
    check_departures(keys)
    store = Store(root).open()
    folder = store.paths.report if out is None else locate(out)
    folder.make_folder()  # fails here if it cannot be written, before anything is computed
    (folder / _MADE_FROM).delete()
    rows, warnings = expected_in_store(store)
    with console.status("reading the store"):
        report = build_report(store.root, rows, metric=metric, select=selection, warnings=warnings, despite=keys)
    console.print(report_terminal(dataclasses.replace(report, sections=report.sections[:1])))
    with console.status("writing the report"):
        files = write_files(report, folder, names)
    for path in files:
        say(console, f"report: {path}")


def show_comparison(console: Console, plan: Plan, store: Store, *, ran: bool = True) -> None:
    """Print the main table of one grid, write the report of its store, and print where the files are.

    Args:
        ran: whether anything was run; if not, a report of the same results is left as it is.
    """
    from reports.analysis.comparison import named
    from reports.analysis.provenance import run_notes
    from reports.formats.terminal import TerminalTable
    from reports.tables.errors import error_tables

    results = load_results(console, store)
    rows, warnings = expected_in_store(store)
    mine = results.frame[results.frame["run_id"].isin(list(plan.states))]
    # The names of the store's grids, also for a part of them.
    runs = named(mine, [*(row for row in rows if row["run_id"] in plan.states), *expected_rows(plan.runs.values())])
    for table in error_tables(runs):
        console.print(TerminalTable(table))
    for note in run_notes(runs):
        say(console, f"note: {note}")
    _note_optimistic_split(console, plan.runs.values())
    say(console, f"Parquet: {store.paths.results}/*.parquet; epochs/, predictions/, points/ beside it")
    made_from = _made_from(results, rows, warnings)
    present = [] if ran else _present_report(store, made_from)
    for path in present or _write(console, store, results, rows, warnings, made_from):
        say(console, f"report:  {path}")
    if present:
        say(console, f"  unchanged, since the results are the same; `autodo report {store}` writes it again")


def _write(
    console: Console,
    store: Store,
    results: "Results",
    rows: list[dict[str, Any]],
    warnings: list[str],
    made_from: str,
) -> list[Location]:
    """Write the report of a store and the hash of its results; return its HTML and Markdown files."""
    from reports.write import write_report

    with console.status("writing the report"):
        files = write_report(store.root, store.paths.report, rows, formats=_FORMATS, results=results, warnings=warnings)
    with contextlib.suppress(StoreError):  # without the hash, the next launch writes the report again
        (store.paths.report / _MADE_FROM).write_text(made_from)
    return files


def _present_report(store: Store, made_from: str) -> list[Location]:
    """Files of the store's report if it was made from the same results; else none."""
    files = [store.paths.report / f"report.{kind}" for kind in _FORMATS]
    try:
        same = (store.paths.report / _MADE_FROM).read_text() == made_from
    except (StoreError, FileNotFoundError):
        return []
    return files if same and all(file.exists() for file in files) else []


def _made_from(results: "Results", rows: list[dict[str, Any]], warnings: list[str]) -> str:
    """Hash of the results, the expected runs, the warnings, and the version of the program."""
    from importlib.metadata import version

    parts = [
        version("autodo"),
        results.frame.sort_values("run_id").to_json(orient="records", date_format="iso", default_handler=str),
        json.dumps(
            [sorted(f"{row['run_id']} {row['variant']}".rstrip() for row in rows), warnings, list(results.warnings)]
        ),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _note_optimistic_split(console: Console, runs: Iterable[RunConfig]) -> None:
    if any(run.split == "test-as-val" for run in runs):
        say(console, "note: in the split test-as-val the test images are val: its errors are optimistic")


def load_results(console: Console, store: Store) -> "Results":
    """Results of a store; prints a warning for each file that cannot be used."""
    from reports.readers import load

    results = load.load_results(store.root)
    for warning in results.warnings:
        warn(console, warning)
    return results
