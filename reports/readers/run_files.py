"""Read and check the Parquet files of runs, several at a time."""

import dataclasses
import functools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from autodo.io.storage import Location
from autodo.results import records
from reports.readers.column_checks import RANGES, UnusableFile, as_declared, fault, out_of_range, with_nulls

T = TypeVar("T")

# Column that identifies the rows of a table.
_AXES = {"epochs": "epoch", "predictions": "index", "points": "index", "embeddings": "index"}

_READ_AHEAD = 32  # files read at once from an object store, where requests wait for the network
_WHOLE = 2**20  # bytes; smaller files are fetched in one request
_IN_FLIGHT = 256 * 2**20  # bytes of files read at once
_LONGEST = 200  # characters kept of an Arrow message
_MOST_ROWS = 10**8  # a damaged file can claim any number


@dataclasses.dataclass(frozen=True)
class File:
    """A listed file; `size` in bytes, None if the listing has none."""

    location: Location
    size: int | None


def for_each(files: Sequence[File], work: Callable[[File], T]) -> Iterator[T | UnusableFile]:
    """Yield the value of `work` for each file, in order, or the UnusableFile that it raised.

    Runs in threads, at most as many as bounded memory allows.
    """
    largest = max((file.size or 0 for file in files), default=0)
    local = all(file.location.local for file in files)
    wanted = (os.cpu_count() or 1) if local else _READ_AHEAD

    def attempt(file: File) -> T | UnusableFile:
        try:
            return work(file)
        except UnusableFile as error:
            return error

    with ThreadPoolExecutor(max(1, min(wanted, _IN_FLIGHT // max(largest, 1), len(files)))) as pool:
        yield from pool.map(attempt, files)


def read_run(
    file: File, kind: records.Kind, columns: Sequence[str], *, essential: Collection[str], rows: int | None = None
) -> tuple[pa.Table, list[str]]:
    """Read columns of the table of the run that the file is named after, in the dtypes of `records.SCHEMAS`.

    Args:
        essential: columns that must be there; any other that is missing, or of another dtype, becomes null.
        rows: number of rows that it must hold; at least one if None.
    Returns:
        the table, and remarks on columns that became null.
    Raises:
        UnusableFile: if it is damaged, is no table of this kind, or belongs to another run.
    """
    schema = _schema(kind, tuple(columns))
    try:
        with _open(file) as parquet:
            count, there = parquet.metadata.num_rows, parquet.schema_arrow.names
            for name in (name for name in essential if name not in there):
                raise UnusableFile(f"not a file of {kind}: it has no column {name!r}")
            if count != rows if rows else not 0 < count <= _MOST_ROWS:
                raise UnusableFile(f"it holds {count} rows{f', not {rows}' if rows else ''}")
            wanted = [name for name in dict.fromkeys(("run_id", *columns)) if name in there]
            table = parquet.read(wanted, use_threads=False)
        table.validate(full=True)  # checks that texts are UTF-8
        if table.num_rows != count or len(set(table.column_names)) < table.num_columns:
            raise UnusableFile(f"not a file of {kind}: its columns do not fit together")
        if pc.unique(table["run_id"]).to_pylist() != [file.location.stem]:
            raise UnusableFile("it belongs to another run than its name says")
    except UnusableFile:
        raise
    except Exception as error:  # damage raises exceptions of many types, such as UnicodeDecodeError and MemoryError
        raise UnusableFile(f"damaged ({_reason(error)})") from None
    chosen = table.select([name for name in columns if name in wanted])
    if chosen.schema.equals(schema):  # nearly always
        return chosen.replace_schema_metadata(), []
    arrays, remarks = {}, []
    for name in columns:
        dtype = schema.field(name).type
        try:
            arrays[name] = as_declared(table[name], dtype) if name in wanted else None
        except pa.ArrowException as error:
            if name in essential:
                raise UnusableFile(f"damaged ({name}: {_reason(error)})") from None
            arrays[name] = None
            remarks.append(f"its {name} is not {dtype} and counts as unknown")
    lacking = [name for name in columns if name not in there]
    remarks += [f"it has no {', '.join(lacking)}, as files of another version: unknown"] if lacking else []
    filled = [pa.nulls(count, field.type) if arrays[field.name] is None else arrays[field.name] for field in schema]
    return pa.table(filled, schema), remarks


@functools.lru_cache(maxsize=32)
def _schema(kind: records.Kind, columns: tuple[str, ...]) -> pa.Schema:
    return pa.schema([records.SCHEMAS[kind].field(name) for name in columns])


def _open(file: File) -> pq.ParquetFile:
    if file.location.local:
        return pq.ParquetFile(str(file.location.local), page_checksum_verification=True)
    if file.size is not None and file.size <= _WHOLE:
        return pq.ParquetFile(pa.BufferReader(file.location.read_bytes()), page_checksum_verification=True)
    filesystem, path = file.location.arrow
    return pq.ParquetFile(path, filesystem=filesystem, pre_buffer=True, page_checksum_verification=True)


def _reason(error: Exception) -> str:
    """The first line of Arrow's message, without the path, which the warning already names."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    line = line.partition("': ")[2] if line.startswith("Could not open Parquet input source '") else line
    return line[:_LONGEST]


def read_checked(file: File, kind: records.Kind, columns: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """Read a table with many rows by `read_run` and check its numbers; epochs are sorted.

    Raises:
        UnusableFile: if two rows have the same index or epoch, or an essential number is out of range.
    """
    axis = _AXES[kind]
    needed = [name for name, allowed in RANGES[kind].items() if allowed.essential and name in columns]
    both = list(dict.fromkeys((axis, *columns)))
    table, remarks = read_run(file, kind, both, essential={"run_id", axis, *needed})
    for name in both:
        allowed = RANGES[kind].get(name)
        bad = None if allowed is None else out_of_range(table[name], allowed)
        if allowed is not None and bad is not None and bad.any():
            what = fault(name, table[name][int(bad.argmax())].as_py(), allowed)
            if allowed.essential:
                raise UnusableFile(f"its {what}")
            table = with_nulls(table, name, bad)
            remarks.append(f"its {what}: unknown in {bad.sum():,} of {len(bad):,} rows")
        if pa.types.is_list(table.schema.field(name).type):
            lengths = pc.unique(pc.list_value_length(table[name].drop_null()))
            if len(lengths) > 1:
                if allowed is not None and allowed.essential:
                    raise UnusableFile(f"its {name} is not of one length")
                table = with_nulls(table, name, np.ones(len(table), dtype=bool))
                remarks.append(f"its {name} is not of one length and counts as unknown")
    table = _in_order(table, axis)
    return table.select(list(columns)), remarks


def _in_order(table: pa.Table, axis: str) -> pa.Table:
    """The table, sorted if the axis is `epoch`.

    Raises:
        UnusableFile: if an index or epoch occurs twice, or an epoch is missing.
    """
    values = table[axis].to_numpy()
    if (np.diff(values) <= 0).any():
        order = np.argsort(values, kind="stable")
        values = values[order]
        twice = values[1:][values[1:] == values[:-1]]
        if len(twice):
            raise UnusableFile(f"its {axis} {twice[0]} occurs twice")
        table = table.take(order) if axis == "epoch" else table
    if axis == "epoch" and values[-1] != len(values) - 1:
        raise UnusableFile(f"its {len(values)} epochs are not 0 to {len(values) - 1}")
    return table
