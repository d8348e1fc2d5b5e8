"""Index of a dataset's checked files, kept in this node's cache: which are damaged, and the images in tar shards.

A file is checked again if it is new or its size or time of change differs.
"""

import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from autodo.data.files.read_errors import one_line
from autodo.data.files.remote import cache_dir
from autodo.data.images.image_set import Integers
from autodo.data.stream.pool import loader_workers, pool_for
from autodo.errors import DataError
from autodo.io.atomic import atomic_path
from autodo.io.file_lock import file_lock

_MEMBERS = pa.list_(
    pa.struct(
        [
            ("name", pa.string()),
            ("offset", pa.int64()),
            ("length", pa.int64()),
            ("label", pa.string()),
            ("damage", pa.string()),
        ]
    )
)
_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("damage", pa.string()),
        ("members", _MEMBERS),
    ],
    metadata={"look": "2"},  # a new number makes older results void, after a change of the checks
)
_REPORT_SECONDS = 10.0
_SAVE_SECONDS = 60.0
"""How often results are saved during a check, which may be killed."""
_STAT_THREADS = 16


class TarMember(NamedTuple):
    """An image in a shard, `length` bytes from `offset` on."""

    name: str
    offset: int
    length: int
    label: str
    damage: str | None


class CheckResult(NamedTuple):
    """Damage of a file, if any, and for a shard its images."""

    damage: str | None
    members: list[TarMember] | None = None
    read: bool = True
    """False if the file could not be read, even after retries, so that nothing is known about it."""


CheckFunction = Callable[[Sequence[str]], list[CheckResult]]
"""Checks files in a worker; the last result may be that of a file that cannot be read."""


def index_file(path: Path, suffix: str = ".parquet") -> Path:
    """The index of the files in a folder, or of those that a CSV lists."""
    name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=8).hexdigest()
    return cache_dir() / "index" / f"{name}{suffix}"


def checked_files(
    path: Path,
    root: Path,
    names: Sequence[str],
    states: Integers,
    check: CheckFunction,
    files_per_task: int,
    finish: Callable[[CheckResult], CheckResult] = lambda result: result,
) -> pa.Table:
    """Checks the files that have changed and returns the columns `damage` and `members` of all, in their order.

    Processes of one node that need the same index wait for the first of them.

    Args:
        path: folder or CSV whose index it is.
        names: of the files, relative to `root`; `states`: from `file_states`.
        check: a function of a module.
        finish: completes each result of `check` in this process.
    Raises:
        DataError: if a file cannot be read, even after retries, or the cache cannot be written.
    """
    file = index_file(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(file.with_suffix(".lock")):
            return _Index(root, file, names, states).update(check, files_per_task, finish)
    except UnicodeEncodeError as error:
        raise DataError(f"{root}: the file name {error.object!r} is not UTF-8; rename it") from None
    except OSError as error:
        raise DataError(
            f"{error.filename or file}: {error.strerror or one_line(error)}, when the images of {root} were checked; "
            f"results are kept in {cache_dir()}, and AUTODO_CACHE names another folder"
        ) from None


def file_states(root: Path, names: Sequence[str]) -> Integers:
    """Size in bytes and time of change in ns of files. Raises OSError if one is missing. Shape: [files, 2]."""

    def states(part: Sequence[str]) -> Integers:
        stats = (os.stat(f"{root}/{name}" if name[0] != "/" else name) for name in part)  # noqa: PTH116 (Paths cost more)
        return np.array([(stat.st_size, stat.st_mtime_ns) for stat in stats], np.int64).reshape(-1, 2)

    step = max(1, math.ceil(len(names) / _STAT_THREADS))
    with ThreadPoolExecutor(_STAT_THREADS) as threads:
        parts = threads.map(states, (names[i : i + step] for i in range(0, len(names), step)))
        return np.concatenate([np.empty((0, 2), np.int64), *parts])


class _Index:
    def __init__(self, root: Path, file: Path, names: Sequence[str], states: Integers) -> None:
        self._root, self._file = root, file
        self._now = pa.table({"file": pa.array(names, pa.string()), "size": states[:, 0], "mtime_ns": states[:, 1]})

    def update(
        self, check: CheckFunction, files_per_task: int, finish: Callable[[CheckResult], CheckResult]
    ) -> pa.Table:
        old = self._load()
        row = pc.index_in(self._now["file"], value_set=old["file"].combine_chunks())
        same = pc.and_(
            pc.equal(old["size"].take(row), self._now["size"]),
            pc.equal(old["mtime_ns"].take(row), self._now["mtime_ns"]),
        )
        known = pc.fill_null(same, False).to_numpy(zero_copy_only=False)
        kept = self._now.filter(pa.array(known))
        for column in ("damage", "members"):
            kept = kept.append_column(_SCHEMA.field(column), old[column].take(row.filter(pa.array(known))))
        todo = np.flatnonzero(~known)
        if len(todo) == 0 and len(old) == len(kept):
            return kept
        kept, results, saved = kept.cast(_SCHEMA), list[CheckResult](), time.monotonic()
        try:
            for result in self._check(todo, check, files_per_task):
                if not result.read:
                    name = self._now["file"][int(todo[len(results)])].as_py()
                    raise DataError(
                        f"{self._root / name}: cannot be read: {result.damage}; once it can be, start the command "
                        "again, which continues from here, or replace or remove it"
                    )
                results.append(finish(result))
                if time.monotonic() - saved > _SAVE_SECONDS:
                    self._save(kept, self._rows(todo, results))
                    saved = time.monotonic()
        finally:
            # Also after an interruption, so that the next start continues from here.
            checked = self._rows(todo, results)
            self._save(kept, checked)
        place = np.argsort(np.concatenate([np.flatnonzero(known), todo]))
        return pa.concat_tables([kept, checked]).take(pa.array(place))

    def _rows(self, todo: Integers, results: Sequence[CheckResult]) -> pa.Table:
        """Rows of the results, which are those of the first files in `todo`."""
        rows = self._now.take(pa.array(todo[: len(results)]))
        rows = rows.append_column(_SCHEMA.field("damage"), pa.array([one.damage for one in results], pa.string()))
        members = [None if one.members is None else [member._asdict() for member in one.members] for one in results]
        return rows.append_column(_SCHEMA.field("members"), pa.array(members, _MEMBERS)).cast(_SCHEMA)

    def _save(self, *parts: pa.Table) -> None:
        with atomic_path(self._file) as temporary:
            pq.write_table(pa.concat_tables(parts).replace_schema_metadata(_SCHEMA.metadata), temporary)

    def _load(self) -> pa.Table:
        """The stored index; empty if there is none or it has another schema."""
        try:
            table = pq.read_table(self._file)
        except (OSError, pa.ArrowInvalid):
            return _SCHEMA.empty_table()
        known = table.schema.equals(_SCHEMA) and table.schema.metadata == _SCHEMA.metadata
        return table if known else _SCHEMA.empty_table()

    def _check(self, todo: Integers, check: CheckFunction, files_per_task: int) -> Iterator[CheckResult]:
        paths = [str(self._root / name) for name in self._now["file"].take(pa.array(todo)).to_pylist()]
        tasks = [paths[i : i + files_per_task] for i in range(0, len(paths), files_per_task)]
        workers, done, reported = loader_workers(), 0, time.monotonic()
        for results in map(check, tasks) if workers == 0 else pool_for(workers).map(check, tasks):
            yield from results
            done += len(results)
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                print(f"{self._root}: checked {done:,} of {len(paths):,} files", file=sys.stderr, flush=True)
