"""What was found when the files of a dataset were looked at, kept in this node's cache: which of them are damaged, and
what is in the tar shards.

A file that has another size or time of change since then, or is new, is looked at again; the others are not.
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

from autodo.data.files.reading import one_line
from autodo.data.files.remote import cache_dir
from autodo.data.image_set import Integers
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
    metadata={"look": "2"},  # another number when files are looked at in another way: what was found is of no use then
)
_QUIET_SECONDS = 10.0
_KEPT_EVERY_SECONDS = 60.0
"""What was found is written so often while files are looked at, which may be ended at any time."""
_STATS_AT_ONCE = 16


class Member(NamedTuple):
    """An image in a shard, `length` bytes from `offset` on."""

    name: str
    offset: int
    length: int
    label: str
    damage: str | None


class CheckResult(NamedTuple):
    """What a file is: why it is of no use, if so, and of a shard its images."""

    damage: str | None
    members: list[Member] | None = None
    read: bool = True
    """False if the file could not be read, also when it was tried again: nothing can be said of it."""


CheckFunction = Callable[[Sequence[str]], list[CheckResult]]
"""Looks at the files of these paths in a worker, up to one that cannot be read."""


def index_file(path: Path, suffix: str = ".parquet") -> Path:
    """Where the index of the files of a folder, or of those that a CSV lists, is kept."""
    name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=8).hexdigest()
    return cache_dir() / "index" / f"{name}{suffix}"


def indexed(
    path: Path,
    root: Path,
    names: Sequence[str],
    states: Integers,
    look: CheckFunction,
    at_once: int,
    settle: Callable[[CheckResult], CheckResult] = lambda found: found,
) -> pa.Table:
    """Columns `damage` and `members` of the files, in their order; looks at those that have changed.

    Processes of one node that want the same index wait for the first of them.

    Args:
        path: what the index is kept for: a folder or a CSV.
        names: of the files, relative to `root`; `states`: from `states_of`.
        look: a function of a module.
        at_once: files that `look` is given at a time.
        settle: what is kept of what `look` found; called in this process.
    Raises:
        DataError: if a file cannot be read, also when it is tried again, or the cache cannot be written.
    """
    file = index_file(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(file.with_suffix(".lock")):
            return _Index(root, file, names, states).table(look, at_once, settle)
    except UnicodeEncodeError as error:
        raise DataError(f"{root}: the file name {error.object!r} is not UTF-8; rename it") from None
    except OSError as error:
        raise DataError(
            f"{error.filename or file}: {error.strerror or one_line(error)}, when the images of {root} were looked at; "
            f"what is found is kept in {cache_dir()}, and AUTODO_CACHE names another folder"
        ) from None


def states_of(root: Path, names: Sequence[str]) -> Integers:
    """Size in bytes and time of change in ns of files. Raises OSError if one is not there. Shape: [files, 2]."""

    def of(part: Sequence[str]) -> Integers:
        stats = (os.stat(f"{root}/{name}" if name[0] != "/" else name) for name in part)  # noqa: PTH116 (Paths cost more)
        return np.array([(stat.st_size, stat.st_mtime_ns) for stat in stats], np.int64).reshape(-1, 2)

    step = max(1, math.ceil(len(names) / _STATS_AT_ONCE))
    with ThreadPoolExecutor(_STATS_AT_ONCE) as threads:
        parts = threads.map(of, (names[i : i + step] for i in range(0, len(names), step)))
        return np.concatenate([np.empty((0, 2), np.int64), *parts])


class _Index:
    def __init__(self, root: Path, file: Path, names: Sequence[str], states: Integers) -> None:
        self._root, self._file = root, file
        self._now = pa.table({"file": pa.array(names, pa.string()), "size": states[:, 0], "mtime_ns": states[:, 1]})

    def table(self, look: CheckFunction, at_once: int, settle: Callable[[CheckResult], CheckResult]) -> pa.Table:
        old = self._kept()
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
        kept, found, written = kept.cast(_SCHEMA), list[CheckResult](), time.monotonic()
        try:
            for some in self._looked_at(todo, look, at_once):
                for one in some:
                    if not one.read:
                        name = self._now["file"][int(todo[len(found)])].as_py()
                        raise DataError(
                            f"{self._root / name}: cannot be read: {one.damage}; once it can be, start the command "
                            "again, which goes on from here, or replace or remove it"
                        )
                    found.append(settle(one))
                if time.monotonic() - written > _KEPT_EVERY_SECONDS:
                    self._keep(kept, self._rows(todo, found))
                    written = time.monotonic()
        finally:
            # Also of a start that is interrupted: the next one goes on from here.
            rows = self._rows(todo, found)
            self._keep(kept, rows)
        together = pa.concat_tables([kept, rows])
        place = np.argsort(np.concatenate([np.flatnonzero(known), todo]))
        return together.take(pa.array(place))

    def _rows(self, todo: Integers, found: Sequence[CheckResult]) -> pa.Table:
        """Of the first of the files that were to be looked at: what was found."""
        rows = self._now.take(pa.array(todo[: len(found)]))
        rows = rows.append_column(_SCHEMA.field("damage"), pa.array([one.damage for one in found], pa.string()))
        members = [None if one.members is None else [member._asdict() for member in one.members] for one in found]
        return rows.append_column(_SCHEMA.field("members"), pa.array(members, _MEMBERS)).cast(_SCHEMA)

    def _keep(self, *parts: pa.Table) -> None:
        with atomic_path(self._file) as temporary:
            pq.write_table(pa.concat_tables(parts).replace_schema_metadata(_SCHEMA.metadata), temporary)

    def _kept(self) -> pa.Table:
        """The index as it is; empty if there is none, or it is from elsewhere."""
        try:
            table = pq.read_table(self._file)
        except (OSError, pa.ArrowInvalid):
            return _SCHEMA.empty_table()
        known = table.schema.equals(_SCHEMA) and table.schema.metadata == _SCHEMA.metadata
        return table if known else _SCHEMA.empty_table()

    def _looked_at(self, todo: Integers, look: CheckFunction, at_once: int) -> Iterator[list[CheckResult]]:
        paths = [str(self._root / name) for name in self._now["file"].take(pa.array(todo)).to_pylist()]
        parts = [paths[i : i + at_once] for i in range(0, len(paths), at_once)]
        workers, done, told = loader_workers(), 0, time.monotonic()
        for found in map(look, parts) if workers == 0 else pool_for(workers).map(look, parts):
            yield found
            done += len(found)
            if time.monotonic() - told > _QUIET_SECONDS:
                told = time.monotonic()
                print(f"{self._root}: looked at {done:,} of {len(paths):,} files", file=sys.stderr, flush=True)
