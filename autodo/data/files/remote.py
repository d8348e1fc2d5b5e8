"""Data at a URI, which each node copies into its cache once."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

from autodo.data.files.columns import column_files
from autodo.data.files.listing import csv_paths
from autodo.data.files.read_errors import one_line
from autodo.errors import DataError, StoreError
from autodo.io.file_lock import file_lock
from autodo.io.storage import LocalLocation, StrPath, locate
from autodo.io.uri import is_uri, without_secrets

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

    from autodo.io.object_store import ObjectLocation

_REQUESTS_AT_ONCE = 32


def cache_dir() -> Path:
    """The environment variable AUTODO_CACHE if it is set, else ~/.cache/autodo."""
    return Path(os.environ.get("AUTODO_CACHE") or "~/.cache/autodo").expanduser()


@contextlib.contextmanager
def local_copy(location: StrPath) -> Iterator[Path]:
    """Yields a local path as it is, and for a URI the path of this node's copy. DataErrors of the block name the URI.

    A URI names a folder; a CSV, which is copied with the files that it lists; or a file of features, with the files of
    its columns. Changed data gets a new copy; old ones may be deleted while nothing runs.

    Raises:
        DataError: if the data is not there, cannot be read, or does not fit on this node.
    """
    text = os.fspath(location)
    if not is_uri(text):
        yield Path(text).expanduser()
        return
    copy = _fetch(text)
    try:
        yield copy
    except DataError as error:
        raise DataError(str(error).replace(str(copy), without_secrets(text))) from None


def _fetch(uri: str) -> Path:
    try:
        location = locate(uri)
        if isinstance(location, LocalLocation):
            return location.local
        return _Remote(cast("ObjectLocation", location)).copy()
    except StoreError as error:
        raise DataError(str(error)) from None


class _Remote:
    """A folder of objects, or a file with others that belong to it."""

    def __init__(self, location: "ObjectLocation") -> None:
        self._location = location
        self._file = location.name if location.name.lower().endswith((".csv", ".npy", ".parquet")) else None

    def copy(self) -> Path:
        cache = cache_dir() / "data"
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=cache) as scratch:
                files = self._named_files(Path(scratch)) if self._file else self._folder_files()
                target = cache / self._name(files)
                if not target.is_dir():
                    self._download(files, target, Path(scratch) / "copy")
        except OSError as error:
            raise DataError(
                f"{self._location}: cannot be copied to {cache}: {error.strerror or one_line(error)}; "
                "AUTODO_CACHE names another folder"
            ) from None
        return target / self._file if self._file else target

    def _folder_files(self) -> dict[str, "FileInfo"]:
        from pyarrow.fs import FileType

        start = len(self._location.arrow[1]) + 1
        infos = self._location.list(recursive=True)
        files = {info.path[start:]: info for info in infos if info.type == FileType.File}
        if not files:
            raise DataError(f"{self._location}: no such folder, or nothing in it")
        return files

    def _named_files(self, scratch: Path) -> dict[str, "FileInfo"]:
        from pyarrow.fs import FileType

        assert self._file is not None
        if self._file.lower().endswith(".csv"):
            # Absolute paths are on the node. The reader reports missing files, with their lines.
            others = [os.path.normpath(path) for path in self._listed(scratch) if not Path(path).is_absolute()]
        else:
            others = [file.name for file in column_files(Path(self._file)).values()]
        names = dict.fromkeys([self._file, *others])
        filesystem, path = self._location.arrow
        folder = path.rpartition("/")[0]
        infos = filesystem.get_file_info([f"{folder}/{name}" for name in names])
        found = {name: info for name, info in zip(names, infos, strict=True) if info.type == FileType.File}
        if self._file not in found:
            raise DataError(f"{self._location}: no such file")
        return found

    def _listed(self, scratch: Path) -> list[str]:
        """Paths as written in the CSV."""
        assert self._file is not None
        copy = scratch / self._file
        try:
            self._location.fetch(copy)
        except FileNotFoundError:
            raise DataError(f"{self._location}: no such file") from None
        try:
            return csv_paths(copy)
        except DataError as error:
            raise DataError(str(error).replace(str(copy), str(self._location))) from None

    def _name(self, files: dict[str, "FileInfo"]) -> str:
        """Name of the copy, which depends on the URI and on the names, sizes and times of all files."""
        uri = hashlib.blake2b(self._location.uri.encode(), digest_size=6).hexdigest()
        rows = sorted((name, info.size, info.mtime_ns) for name, info in files.items())
        content = hashlib.blake2b(json.dumps(rows).encode(), digest_size=6).hexdigest()
        return f"{uri}-{content}"

    def _download(self, files: dict[str, "FileInfo"], target: Path, scratch: Path) -> None:
        """Makes the copy; other processes of this node that want it wait."""
        for name in files:
            if any(part in ("", ".", "..") or "\0" in part for part in name.split("/")):
                raise DataError(f"{self._location}: the name {name!r} in it leads elsewhere; rename it")
        with file_lock(target.parent / f".{target.name}.lock"):
            if target.is_dir():
                return
            base = self._location.parent if self._file else self._location
            for folder in {(scratch / name).parent for name in files}:
                folder.mkdir(parents=True, exist_ok=True)
            needed, free = sum(info.size for info in files.values()), shutil.disk_usage(target.parent).free
            if needed > free:
                raise OSError(f"{needed / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB free")
            with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
                copies = [pool.submit(base.below(name).fetch, scratch / name) for name in files]
                try:
                    for copy in copies:
                        copy.result()
                finally:
                    pool.shutdown(cancel_futures=True)
            scratch.rename(target)
