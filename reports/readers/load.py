"""Reads the tables of a store. A file that cannot be used is named in a warning and left out."""

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import pandas as pd
import pyarrow as pa

from autodo.errors import StoreError
from autodo.io.storage import Location, StrPath, located
from autodo.io.store_format import check_format
from autodo.results import records
from reports.readers.column_checks import printable
from reports.readers.result_rows import ESSENTIAL, CheckedRows
from reports.readers.run_files import File, UnusableFile, for_each, read_checked, read_run

T = TypeVar("T")

_REMEDY = "; delete it and launch the grid again"
_NAMED = 20  # files that a reason names before the rest are counted
_FEW = 3  # the same for files whose only fault is their age


@dataclasses.dataclass(frozen=True)
class Problem:
    """A fault of one file and its consequence, such as `left out: damaged (…)`."""

    file: str
    reason: str
    named: int = _NAMED
    """Files with this reason that are named; the rest are counted."""

    @property
    def kind(self) -> str:
        """The reason without its numbers, which differ from file to file."""
        return re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?", "#", self.reason)


def warning_lines(problems: Sequence[Problem]) -> tuple[str, ...]:
    """One line for each file; files with the same reason beyond the first few are only counted."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.kind, []).append(problem)
    lines = []
    for group in groups.values():
        shown = group[: group[0].named]
        lines += [printable(f"{problem.file}: {problem.reason}") for problem in shown]
        if len(group) > len(shown):
            lines[-1] += f" (and {len(group) - len(shown):,} more like this)"
    return tuple(lines)


@dataclasses.dataclass(frozen=True)
class Results:
    """One row per run that is done, and one line per file with which something is wrong."""

    frame: pd.DataFrame
    """Columns of `records.SCHEMAS["results"]`."""
    warnings: tuple[str, ...]


def load_results(root: StrPath | Location, run_ids: Collection[str] | None = None) -> Results:
    """The results of the store at `root`, a path or a URI, sorted by run id.

    Of what a report can do without, a value that cannot be is null, and so is a column that a file of another version
    lacks; the warnings say so, but for `records.LATER_COLUMNS`. Control characters in texts are spelt out.

    Args:
        run_ids: of these runs only, and no other file is opened; of all if None.
    Raises:
        StoreError: if there is no store, it is of a later format than this program knows, or its results cannot be
            listed.
    """
    store = located(root)
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

    def read(file: File) -> tuple[pa.Table, list[str]] | UnusableFile:
        try:
            return read_run(file, "results", schema.names, essential=ESSENTIAL, rows=1)
        except UnusableFile as error:
            return error

    tables, there = [schema.empty_table()], []
    for file, found in zip(files, for_each(files, read), strict=True):
        if isinstance(found, UnusableFile):
            problems.append(_left_out(file.location, found))
        else:
            tables.append(found[0])
            there.append((file.location, found[1]))
    checked = CheckedRows(pa.concat_tables(tables).combine_chunks())
    for i, (location, remarks) in enumerate(there):
        if i in checked.refused:
            problems.append(Problem(str(location), f"left out: {checked.refused[i]}{_REMEDY}"))
        else:
            problems += _remarks(location, remarks + checked.remarks.get(i, []))
    frame = checked.usable.to_pandas(split_blocks=True)
    frame["device"] = frame["device"].str.replace(r"\b1 threads", "1 thread", regex=True)  # as older runs have it
    return Results(frame.sort_values("run_id", ignore_index=True), warning_lines(problems))


def load_epochs(
    root: StrPath | Location, run_ids: Collection[str], columns: Sequence[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """These columns of every epoch of these runs, by run id and epoch, and warnings of what could not be read.

    Texts are categories, so that 10,000 runs of 200 epochs take 16 MB for each column of numbers and 8 for each text.
    A loss that is not finite is null, and in the warnings.

    Raises:
        KeyError: if there is no such column.
    """
    schema = pa.schema([records.SCHEMAS["epochs"].field(name) for name in columns])
    texts = [i for i, field in enumerate(schema) if pa.types.is_string(field.type)]

    def encoded(table: pa.Table) -> pa.Table:
        for place in texts:
            table = table.set_column(place, table.field(place).name, table.column(place).dictionary_encode())
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
    """What `reduce` makes of each run's table of a kind; a few runs at a time, so that their number takes no memory.

    Args:
        columns: those that are read. One that a file of another version lacks is null, and in the warnings; so are
            numbers that cannot be, in columns that the rest makes sense without.
        reduce: called with the rows of one run, at least one; in several threads.
    Returns:
        by run id, sorted; and warnings of what could not be read. A run without a file is in neither.
    Raises:
        KeyError: if there is no such column.
    """
    for name in columns:
        records.SCHEMAS[kind].field(name)
    folder = located(root) / kind
    try:
        sizes = folder.sizes()
    except StoreError as error:
        return {}, warning_lines([Problem(str(folder), f"left out: {error}")])
    ids = [run_id for run_id in sorted(set(run_ids)) if f"{run_id}.parquet" in sizes]
    files = [File(folder / f"{run_id}.parquet", sizes[f"{run_id}.parquet"]) for run_id in ids]

    def work(file: File) -> tuple[T, list[str]] | UnusableFile:
        try:
            table, remarks = read_checked(file, kind, columns)
        except UnusableFile as error:
            return error
        return reduce(table), remarks

    values, problems = {}, []
    for run_id, file, found in zip(ids, files, for_each(files, work), strict=True):
        if isinstance(found, UnusableFile):
            problems.append(_left_out(file.location, found))
        else:
            values[run_id] = found[0]
            problems += _remarks(file.location, found[1])
    return values, warning_lines(problems)


def _left_out(location: Location, why: UnusableFile) -> Problem:
    foreign = str(why).startswith(("not a", "it holds another"))
    return Problem(str(location), f"left out: {why}{'' if foreign else _REMEDY}")


def _remarks(location: Location, remarks: list[str]) -> list[Problem]:
    aged = all(remark.startswith("it has no") for remark in remarks)
    return [Problem(str(location), "; ".join(remarks), **({"named": _FEW} if aged else {}))] if remarks else []
