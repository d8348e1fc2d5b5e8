"""Reads the results of a store. A file that cannot be used is named in a warning and left out."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from autodo import records
from autodo.errors import StoreError
from autodo.storage import Location, located

T = TypeVar("T")
_READ_AHEAD = 32  # files in an object store, where requests wait for the network

# Errors of all test images. Those of a part of the classes may be unknown: a test set can lack these classes.
_ERRORS = ("error_best_val", "error_last", "error_best_test")


@dataclasses.dataclass(frozen=True)
class Results:
    """One row per run that is done, and one line per file that could not be used."""

    frame: pd.DataFrame
    """Columns of `records.SCHEMAS["results"]`."""
    warnings: tuple[str, ...]


def load_results(root: Path | str | Location) -> Results:
    """The results of the store at `root`, a path or a URI, sorted by run id.

    Raises:
        StoreError: if there is no store, or its results cannot be listed.
    """
    folder = located(root) / "results"
    sizes = dict(sorted(folder.sizes().items()))
    if not sizes and not folder.exists():
        raise StoreError(f"{folder}: cannot be read: No such file or directory")
    warnings = [f"{folder / name}: left out: not a .parquet file" for name in sizes if not name.endswith(".parquet")]
    files = {folder / name: size for name, size in sizes.items() if name.endswith(".parquet")}
    table = _read_together(files)
    if table is None:
        table, problems = _read_one_by_one(list(files))
        warnings += problems
    frame, problems = _with_errors(table.to_pandas(), folder)
    warnings += problems
    return Results(frame.sort_values("run_id", ignore_index=True), tuple(warnings))


def _with_errors(frame: pd.DataFrame, folder: Location) -> tuple[pd.DataFrame, list[str]]:
    """The rows in which every error is a number: no training ends without, so that the other rows are damaged."""
    known = frame[list(_ERRORS)].astype(float).replace([math.inf, -math.inf], math.nan).notna()
    warnings = [
        f"{folder / run_id}.parquet: left out: its {known.columns[~row][0]} is not a number; "
        "delete it and launch the grid again"
        for run_id, row in zip(frame["run_id"], known.to_numpy(), strict=True)
        if not row.all()
    ]
    return frame.loc[known.all(axis=1)], warnings


def _read_together(files: Mapping[Location, int | None]) -> pa.Table | None:
    """All files at once, which is fast; None if any of them is not what it should be."""
    schema = records.SCHEMAS["results"]
    parquet = ds.ParquetFileFormat()
    try:
        fragments = []
        for file, size in files.items():
            filesystem, path = file.arrow
            fragments.append(parquet.make_fragment(path, filesystem, file_size=size))
        ahead = {} if all(file.local for file in files) else {"fragment_readahead": _READ_AHEAD}
        table = ds.FileSystemDataset(fragments, schema, parquet).to_table(**ahead)
    except (OSError, pa.ArrowException):
        return None
    # A foreign file reads as nulls, a renamed copy as the same run twice.
    same = sorted(table["run_id"].to_pylist(), key=str) == sorted(path.stem for path in files)
    return table if same else None


def _read_one_by_one(files: Sequence[Location]) -> tuple[pa.Table, list[str]]:
    schema = records.SCHEMAS["results"]
    tables, warnings = [schema.empty_table()], []
    for path in files:
        try:
            table = path.read_parquet()
            lacking = [name for name in schema.names if name not in table.column_names]
            if lacking:
                warnings.append(f"{path}: left out: not a results file: it has no column {lacking[0]!r}")
                continue
            table = table.select(schema.names).cast(schema)
        except (OSError, pa.ArrowException) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.append(f"{path}: left out: damaged ({reason}); delete it and launch the grid again")
            continue
        if table["run_id"].to_pylist() != [path.stem]:
            warnings.append(f"{path}: left out: it holds another run than its name says")
            continue
        tables.append(table)
    return pa.concat_tables(tables), warnings


def load_epochs(
    root: Path | str | Location, run_ids: Collection[str], columns: Sequence[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """These columns of every epoch of these runs, by run id and epoch, and warnings of what could not be read."""
    frames, warnings = reduce_runs(root, "epochs", run_ids, columns, lambda table: table.to_pandas())
    empty = pa.schema([records.SCHEMAS["epochs"].field(name) for name in columns]).empty_table().to_pandas()
    return pd.concat([empty, *frames.values()], ignore_index=True), warnings


def reduce_runs(
    root: Path | str | Location,
    kind: records.Kind,
    run_ids: Collection[str],
    columns: Sequence[str],
    reduce: Callable[[pa.Table], T],
) -> tuple[dict[str, T], tuple[str, ...]]:
    """What `reduce` makes of each run's table of a kind; one run at a time, so that their number takes no memory.

    Args:
        columns: those that are read; a file of an older schema that lacks one is left out with a warning.
        reduce: called with the rows of one run; in several threads.
    Returns:
        by run id, sorted; and warnings of what could not be read. A run without a file is in neither.
    """
    folder = located(root) / kind
    values, warnings = {}, []
    for run_id in sorted(run_ids):
        file = folder / f"{run_id}.parquet"
        try:
            table = file.read_parquet(list(columns))
        except FileNotFoundError:
            continue
        except (OSError, pa.ArrowException) as error:
            warnings.append(f"{file}: left out: damaged ({(str(error).splitlines() or [type(error).__name__])[0]})")
            continue
        values[run_id] = reduce(table)
    return values, tuple(warnings)
