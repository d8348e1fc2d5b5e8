"""What the commands print of results: tables and reports. Nothing here runs anything."""

import contextlib
import dataclasses
import hashlib
import json
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodo.config.run import RunConfig
from autodo.config.shipped import (
    canonical_method,
    dataset_names,
    dataset_presets,
    dataset_recipe,
    dataset_text,
    grid_names,
    method_names,
    method_parts,
    method_preset,
    method_text,
    shipped_file,
)
from autodo.errors import StoreError
from autodo.io.storage import Location, StrPath, locate
from orchestration.display.text import duration, label
from orchestration.grid.grid import expand, grid_text, load_grid
from orchestration.planning.plan import Plan, expected_rows, launched
from orchestration.store.store import Store

if TYPE_CHECKING:
    from reports.readers.load import Results

# How a line is printed that holds paths: no colours inside it, no markup, no line breaks.
_LINE: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def result(console: Console, run: RunConfig, store: Store) -> None:
    """Prints the errors of a run that is done.

    Raises:
        StoreError: if its result is damaged.
    """
    from reports.readers.load import load_results

    rows = load_results(store.root, [run.run_id]).frame.to_dict("records")
    if not rows:
        raise StoreError(f"{store.paths.table('results', run.run_id)}: damaged; delete it and train again")
    (row,) = rows
    table = Table(title=Text(label(run), style="table.title"), title_justify="left", show_header=False)
    table.add_row("test error, epoch of lowest val error", f"{100 * row['error_best_val']:.2f}%")
    if row["minority_error"] == row["minority_error"]:  # NaN: there is no minority, or the test set lacks it
        table.add_row(Text(f"  of the minority: {_minority(row)}"), f"{100 * row['minority_error']:.2f}%")
    table.add_row("test error, last epoch", f"{100 * row['error_last']:.2f}%")
    table.add_row("training time", Text(f"{duration(row['seconds'])} on {row['device']}"))
    console.print(table)
    _warn_of_optimism(console, [run])
    console.print(f"result: {store.paths.table('results', run.run_id)}", **_LINE)
    if store.paths.model(run.run_id).exists():
        console.print(f"classifier: {store.paths.model(run.run_id)}", **_LINE)


def _minority(row: Mapping[Any, Any]) -> str:
    """The names of the minority classes of a row of results, or of some of them if they are many."""
    from reports.analysis.classes import listed, some_names

    names, labels = listed(row["class_names"]), row["minority_classes"]
    if labels is None:
        return f"labels {len(names) // 2}..{len(names) - 1}, older run"
    return some_names([str(name) for name in names], listed(labels))


def report(
    console: Console, root: StrPath, *, out: str | None, formats: str, selection: str | None, metric: str
) -> None:
    """Prints what a store's report says first, and writes the report.

    Raises:
        ConfigError: if a format or metric is unknown, or the selection fits no run.
    """
    from reports.build import build_report
    from reports.formats.terminal import report_terminal
    from reports.write import check_metric, parse_formats, write_files

    names = parse_formats(formats)
    check_metric(metric)
    store = Store(root).open()
    folder = store.paths.report if out is None else locate(out)
    folder.make_folder()  # what cannot be written is told before anything is computed
    (folder / _MADE_FROM).delete()
    rows, warnings = expected(store)
    with console.status("reading the store"):
        built = build_report(store.root, rows, metric=metric, select=selection, warnings=warnings)
    console.print(report_terminal(dataclasses.replace(built, sections=built.sections[:1])))
    with console.status("writing the report"):
        files = write_files(built, folder, names)
    for path in files:
        console.print(f"report: {path}", **_LINE)


def comparison(console: Console, planned: Plan, store: Store, *, ran: bool = True) -> None:
    """Prints the headline table of one grid, writes the report of its store, and says where everything lies.

    Args:
        ran: whether anything was run; if not, a report of the same results stays as it is.
    """
    from reports.analysis.comparison import named
    from reports.analysis.provenance import run_notes
    from reports.formats.terminal import table_terminal
    from reports.tables import error_tables

    results = load_results(console, store)
    mine = results.frame[results.frame["run_id"].isin(list(planned.states))]
    for table in error_tables(mine, expected=expected_rows(planned.runs.values())):
        console.print(table_terminal(table))
    for note in run_notes(named(mine)):
        console.print(f"note: {note}", **_LINE)
    _warn_of_optimism(console, planned.runs.values())
    console.print(f"Parquet: {store.paths.results}/*.parquet; epochs/, predictions/, points/ beside it", **_LINE)
    rows, warnings = expected(store)
    made_from = _made_from(results, rows, warnings)
    kept = [] if ran else _report_of(store, made_from)
    for path in kept or _write(console, store, results, rows, warnings, made_from):
        console.print(f"report:  {path}", **_LINE)
    if kept:
        console.print(f"  unchanged, since the results are the same; `autodo report {store}` writes it anew", **_LINE)


_MADE_FROM = "made_from.txt"
"""In the report's folder: a hash of the results that a launch wrote it from."""
_FORMATS = ("html", "md")


def _write(
    console: Console,
    store: Store,
    results: "Results",
    rows: list[dict[str, Any]],
    warnings: list[str],
    made_from: str,
) -> list[Location]:
    """Writes the report of a store, and what it is made from; returns the files that a person opens."""
    from reports.write import write_report

    with console.status("writing the report"):
        files = write_report(store.root, store.paths.report, rows, formats=_FORMATS, results=results, warnings=warnings)
    with contextlib.suppress(StoreError):  # then it is written anew the next time
        (store.paths.report / _MADE_FROM).write_text(made_from)
    return files


def _report_of(store: Store, made_from: str) -> list[Location]:
    """The files of the store's report if it was made from the same; else none."""
    files = [store.paths.report / f"report.{kind}" for kind in _FORMATS]
    try:
        same = (store.paths.report / _MADE_FROM).read_text() == made_from
    except (StoreError, FileNotFoundError):
        return []
    return files if same and all(file.exists() for file in files) else []


def _made_from(results: "Results", rows: list[dict[str, Any]], warnings: list[str]) -> str:
    """A hash of all that a report depends on but the program itself, of which only the version counts."""
    from importlib.metadata import version

    parts = [
        version("autodo"),
        results.frame.sort_values("run_id").to_json(orient="records", date_format="iso", default_handler=str),
        json.dumps([sorted(row["run_id"] for row in rows), warnings, list(results.warnings)]),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# What a preset sets -> the heading that it stands under; the first that fits.
_HEADINGS = {
    "points": "AutoDO",
    "policy": "Augmentation",
    "objective": "Train losses",
    "": "Baseline and anchors",
}
_WIDTH_OF_FILES = 160


def methods(console: Console) -> None:
    """Prints the name of every method, what it learns, what it reads, what it costs and who described it."""
    table = _list_table("method", "what it learns", "images", "cost", "reference")
    under = {
        name: next(section for section in _HEADINGS if section in {*method_preset(name), ""}) for name in method_names()
    }
    for section, heading in _HEADINGS.items():
        table.add_row(Text(heading, style="italic"))
        for name in (name for name, place in under.items() if place == section):
            table.add_row(Text(f"  {name}", style="bold"), *(Text(column) for column in method_text(name)))
    _print_list(console, table)
    console.print(
        "images: what it trains with; the epoch is chosen on val for all. cost: time of a run over that of baseline, "
        "without searches (benchmarks/methods.py). Names join by +, such as randaugment+ldam-drw.",
        **_LINE,
    )


def method(console: Console, name: str) -> None:
    """Prints all about a method, or about several joined by `+`: texts, what it sets over a dataset's recipe, its file.

    Raises:
        ConfigError: if there is no such method.
    """
    name = canonical_method(name)
    table = Table(title=Text(name), title_justify="left", show_header=False)
    for part in method_parts(name):
        texts = method_text(part)
        table.add_row("what it learns", Text(texts.summary))
        table.add_row("trains with", Text(f"{texts.reads}; the epoch is chosen on val"))
        table.add_row("cost", Text(f"{texts.cost} times the time of baseline, without searches"))
        table.add_row("reference", Text(texts.reference))
        table.add_row("file", Text(str(shipped_file("methods", part))))
        table.add_section()
    _print_list(console, table)
    preset = method_preset(name)
    settings = yaml.safe_dump(preset, sort_keys=False, width=_WIDTH_OF_FILES) if preset else "nothing\n"
    console.print("What it sets over a dataset's recipe; --set KEY=VALUE overrides both:", **_LINE)
    console.print(textwrap.indent(settings, "  "), end="", **_LINE)


def datasets(console: Console) -> None:
    """Prints the name of every dataset, what it is, where its files come from, and its recipe's network and epochs."""
    table = _list_table("dataset", "what it is", "its files", "network", "epochs")
    for name in dataset_names():
        texts, recipe = dataset_text(name), dataset_recipe(name)
        columns = *texts, recipe["model"]["name"], str(recipe["training"]["epochs"])
        table.add_row(Text(name, style="bold"), *map(Text, columns))
        for preset, values in dataset_presets(name).items():
            network = values.get("model.name", recipe["model"]["name"])
            epochs = str(values.get("training.epochs", recipe["training"]["epochs"]))
            table.add_row("", f"  with --preset {preset}", "", network, epochs)
    _print_list(console, table)
    console.print(
        "--data-dir names the folder, or the URI, of the files (AUTODO_DATA, or else ./data, if it is not given). "
        "wrn-28-10 and 200 epochs need a GPU; --set model.name=small-cnn --set training.epochs=20 makes a run smaller.",
        **_LINE,
    )


def grids(console: Console) -> None:
    """Prints the name of every shipped grid, what it is, how many runs it has and what they cost."""
    table = _list_table("grid", "what it runs", "runs", "cost of all")
    for name in grid_names():
        texts, runs = grid_text(name), len(expand(load_grid(name)))
        table.add_row(Text(name, style="bold"), Text(texts.summary), Text(str(runs)), Text(texts.cost))
    _print_list(console, table)
    folder = shipped_file("grids", "any").parent
    console.print(f"`autodo plan GRID` shows the runs of one; copy a file of {folder} for one of yours.", **_LINE)


def _list_table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("runs", "epochs") else "left")
    return table


def _print_list(console: Console, table: Table) -> None:
    """On a terminal within its width; in a pipe or a file each row is one line."""
    (console if console.is_terminal else Console(file=console.file, width=_WIDTH_OF_FILES)).print(table)


def _warn_of_optimism(console: Console, runs: Iterable[RunConfig]) -> None:
    if any(run.split == "test-as-val" for run in runs):
        console.print("note: in the split test-as-val the test images are val: its errors are optimistic", **_LINE)


def load_results(console: Console, store: Store) -> "Results":
    """The results of a store; files that could not be used are named on the terminal."""
    from reports.readers import load

    results = load.load_results(store.root)
    for warning in results.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    return results


def expected(store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows for every run of every grid that was launched on the store, and warnings of grids that cannot be read."""
    grids, errors = launched(store)
    rows = [row for _, runs in grids.values() for row in expected_rows(runs)]
    return rows, [f"{error}; nobody knows which of its runs are missing" for error in errors]
