"""Read the tables of a store. A file that cannot be used is named in a warning and left out."""

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import pandas as pd
import pyarrow as pa

from autodo.errors import StoreError
from autodo.io.storage import Location, StrPath, as_location
from autodo.io.store_format import check_format
from autodo.results import records
from autodo.text import printable
from reports.readers.column_checks import UnusableFile
from reports.readers.result_rows import ESSENTIAL, CheckedRows
from reports.readers.run_files import File, for_each, read_checked, read_run

T = TypeVar("T")

_REMEDY = "; delete it and launch the grid again"
_NAMED = 20  # files that are named for one reason before the rest are counted


@dataclasses.dataclass(frozen=True)
class Problem:
    """A fault of one file and its consequence, such as `left out: damaged (…)`."""

    file: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason without its numbers, which differ from file to file."""
        return re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?", "#", self.reason)


def warning_lines(problems: Sequence[Problem], named: int = _NAMED) -> tuple[str, ...]:
    """One line for each file; of more than `named` files with the same reason, the first ones and a count."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.kind, []).append(problem)
    lines = []
    for group in groups.values():
        lines += [printable(f"{problem.file}: {problem.reason}") for problem in group[:named]]
        if len(group) > named:
            lines[-1] += f" (and {len(group) - named:,} more like this)"
    return tuple(lines)


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of a store: a row for each finished run, and a warning for each faulty file."""

    frame: pd.DataFrame
    """Columns of `records.SCHEMAS["results"]`."""
    warnings: tuple[str, ...]


def load_results(root: StrPath | Location, run_ids: Collection[str] | None = None) -> Results:
    """Load the results of the store at `root`, a path or a URI, sorted by run id.

    An optional value that is missing or impossible becomes null, with a warning. Control characters in texts are
    escaped.

    Args:
        run_ids: load only these runs, and open no other file.
    Raises:
        StoreError: if there is no store, its format is newer than this program, or its results cannot be listed.
    """
    store = as_location(root)
    check_format(store)
    folder = store / "results"
    sizes = dict(sorted(folder.sizes().items()))
    if not sizes and not folder.exists():
        raise StoreError(f"{folder}: cannot be read: No such file or directory")
    if run_ids is not None:
        wanted = {f"{run_id}.parquet" for run_id in run_ids}
        sizes = {name: size for name, size in sizes.items() if name in wanted}
    problems = [
        Problem(str(folder / name), "left out: not a .parquet file") for name in sizes if not name.endswith(".parquet")
    ]
    files = [File(folder / name, size) for name, size in sizes.items() if name.endswith(".parquet")]
    schema = records.SCHEMAS["results"]
    tables, read = [schema.empty_table()], []
    found = for_each(files, lambda file: read_run(file, "results", schema.names, essential=ESSENTIAL, rows=1))
    for file, result in zip(files, found, strict=True):
        if isinstance(result, UnusableFile):
            problems.append(_left_out(file.location, result))
        else:
            tables.append(result[0])
            read.append((file.location, result[1]))
    checked = CheckedRows(pa.concat_tables(tables).combine_chunks())
    for i, (location, remarks) in enumerate(read):
        if i in checked.refused:
            problems.append(Problem(str(location), f"left out: {checked.refused[i]}{_REMEDY}"))
        elif all_remarks := remarks + checked.remarks.get(i, []):
            problems.append(Problem(str(location), "; ".join(all_remarks)))
    frame = checked.usable.to_pandas(split_blocks=True)
    return Results(frame.sort_values("run_id", ignore_index=True), warning_lines(problems))


def load_epochs(
    root: StrPath | Location, run_ids: Collection[str], columns: Sequence[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Load columns of all epochs of these runs, by run id and epoch, and warnings about unreadable files.

    Texts become categories, so that 10,000 runs of 200 epochs take 16 MB for each column of numbers and 8 MB for each
    text. A loss that is not finite becomes null, with a warning.

    Raises:
        KeyError: if there is no such column.
    """
    schema = pa.schema([records.SCHEMAS["epochs"].field(name) for name in columns])
    texts = [i for i, field in enumerate(schema) if pa.types.is_string(field.type)]

    def encoded(table: pa.Table) -> pa.Table:
        for i in texts:
            table = table.set_column(i, table.field(i).name, table.column(i).dictionary_encode())
        return table

    tables, warnings = reduce_runs(root, "epochs", run_ids, columns, encoded)
    together = pa.concat_tables([encoded(schema.empty_table()), *tables.values()]).unify_dictionaries()
    tables.clear()
    return together.to_pandas(split_blocks=True, self_destruct=True), warnings


def reduce_runs(
    root: StrPath | Location,
    kind: records.Kind,
    run_ids: Collection[str],
    columns: Sequence[str],
    reduce: Callable[[pa.Table], T],
) -> tuple[dict[str, T], tuple[str, ...]]:
    """Apply `reduce` to the table of each run, reading only a few runs at a time to bound memory.

    Args:
        columns: columns to read. An optional one that is missing, and optional numbers that are out of range, become
            null, with a warning.
        reduce: called in several threads with the rows of one run, at least one; raises UnusableFile to leave the run
            out with a warning.
    Returns:
        the reduced values by run id, sorted; and warnings. A run without a file is in neither.
    Raises:
        KeyError: if there is no such column.
    """
    for name in columns:
        records.SCHEMAS[kind].field(name)
    folder = as_location(root) / kind
    try:
        sizes = folder.sizes()
    except StoreError as error:
        return {}, warning_lines([Problem(str(folder), f"left out: {error}")])
    ids = [run_id for run_id in sorted(set(run_ids)) if f"{run_id}.parquet" in sizes]
    files = [File(folder / f"{run_id}.parquet", sizes[f"{run_id}.parquet"]) for run_id in ids]

    def work(file: File) -> tuple[T, list[str]]:
        table, remarks = read_checked(file, kind, columns)
        return reduce(table), remarks

    values, problems = {}, []
    for run_id, file, result in zip(ids, files, for_each(files, work), strict=True):
        if isinstance(result, UnusableFile):
            problems.append(_left_out(file.location, result))
        else:
            values[run_id] = result[0]
            problems += [Problem(str(file.location), "; ".join(result[1]))] if result[1] else []
    return values, warning_lines(problems)


def _left_out(location: Location, why: UnusableFile) -> Problem:
    foreign = str(why).startswith(("not a", "it belongs to another"))
    return Problem(str(location), f"left out: {why}{'' if foreign else _REMEDY}")
