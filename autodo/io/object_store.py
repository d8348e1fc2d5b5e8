"""Locations in an object store, through pyarrow.fs."""

import contextlib
import functools
import operator
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from pyarrow import fs

from autodo.errors import StoreError
from autodo.io.atomic import atomic_path
from autodo.io.storage import Location, reason, translate_os_errors
from autodo.io.uri import without_secrets

# A server that does not answer takes about 20 s, an unreachable one about 5 s; `Store` retries.
_CONNECT_SECONDS, _REQUEST_SECONDS, _ATTEMPTS = 3.0, 6.0, 3
_REQUESTS_AT_ONCE = 32
_KEEP = ".keep"


class ObjectLocation(Location):
    """An object, or a prefix of objects. A PUT is atomic: readers see the old object, the new one, or none."""

    def __init__(self, filesystem: fs.FileSystem, path: str, shown: str, query: str) -> None:
        self._filesystem = filesystem
        self._path = path
        self._shown = shown
        self._query = query

    @property
    def name(self) -> str:
        return self._path.rpartition("/")[2]

    @property
    def uri(self) -> str:
        return self._shown + self._query

    @property
    def local(self) -> None:
        return None

    @property
    def arrow(self) -> tuple[fs.FileSystem, str]:
        return self._filesystem, self._path

    def __str__(self) -> str:
        return self._shown

    def _child(self, name: str) -> Self:
        return type(self)(self._filesystem, f"{self._path}/{name}", f"{self._shown}/{name}", self._query)

    @property
    def parent(self) -> Self:
        """Folder that contains it."""
        path, shown = (text.rpartition("/")[0] for text in (self._path, self._shown))
        return type(self)(self._filesystem, path, shown, self._query)

    def below(self, name: str) -> Self:
        """File below this folder, by a relative path."""
        return functools.reduce(operator.truediv, name.split("/"), self)

    def exists(self) -> bool:
        with translate_os_errors(self, "read"):
            return bool(self._filesystem.get_file_info(self._path).type != fs.FileType.NotFound)

    def read_bytes(self) -> bytes:
        with translate_os_errors(self, "read"), self._filesystem.open_input_stream(self._path) as stream:
            return bytes(stream.read())

    def read_tail(self, size: int) -> bytes:
        with translate_os_errors(self, "read"), self._filesystem.open_input_file(self._path) as file:
            length = file.size()
            start = max(0, length - size)
            return bytes(file.read_at(length - start, start))

    def write_bytes(self, content: bytes) -> None:
        with translate_os_errors(self, "written"):
            _uninterrupted(lambda: self._put(content))

    def write_atomic(self, write: Callable[[Path], object]) -> None:
        with tempfile.TemporaryDirectory(prefix="autodo-upload-") as folder:
            path = Path(folder) / self.name
            with translate_os_errors(path, "written"):
                write(path)
            for beside in sorted(Path(folder).iterdir()):
                if beside != path:
                    (self.parent / beside.name).upload(beside)
            self.upload(path)

    def upload(self, path: Path) -> None:
        with translate_os_errors(self, "written"):
            if not path.stat().st_size:  # an empty file cannot be mapped
                return self.write_bytes(b"")
            with pa.memory_map(str(path)) as file:
                content = file.read_buffer()
            return _uninterrupted(lambda: self._put(content))

    def fetch(self, path: Path) -> None:
        with (
            translate_os_errors(self, "read"),
            atomic_path(path) as temporary,
            self._filesystem.open_input_stream(self._path) as stream,
            temporary.open("wb") as file,
        ):
            while chunk := stream.read(16 * 2**20):
                file.write(chunk)

    def sizes(self) -> dict[str, int | None]:
        return {info.base_name: info.size for info in self.list() if not info.base_name.startswith(".")}

    def names_in(self, folders: Iterable[str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {folder: set() for folder in folders}
        if not found:
            return found
        if len(found) <= _REQUESTS_AT_ONCE:
            with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
                return dict(zip(found, pool.map(lambda folder: (self / folder).names(), found), strict=True))
        start = len(self._path) + 1
        for info in self.list(recursive=True):
            folder, slash, name = info.path[start:].partition("/")
            if slash and folder in found and not name.startswith("."):
                found[folder].add(name)
        return found

    def list(self, *, recursive: bool = False) -> list[fs.FileInfo]:
        """List the objects below this prefix, with sizes and times; one request per 1,000 objects."""
        with translate_os_errors(self, "read"):
            selector = fs.FileSelector(self._path, allow_not_found=True, recursive=recursive)
            infos: list[fs.FileInfo] = self._filesystem.get_file_info(selector)
            return infos

    def delete(self) -> None:
        with contextlib.suppress(FileNotFoundError), translate_os_errors(self, "deleted"):
            self._filesystem.delete_file(self._path)

    def make_folder(self) -> None:
        # An object store has no folders; a hidden object represents an empty one.
        (self / _KEEP).write_bytes(b"")

    def _put(self, content: bytes | pa.Buffer) -> None:
        stream = self._filesystem.open_output_stream(self._path)
        stream.write(content)
        stream.close()


def open_object_store(uri: str) -> ObjectLocation:
    """Open a URI that has passed `autodo.io.uri.check_uri`.

    Raises:
        StoreError: if it names no bucket, or Arrow cannot use it.
    """
    shown = without_secrets(uri)
    parts = urllib.parse.urlsplit(uri)
    if not parts.netloc or parts.path.startswith("//"):
        raise StoreError(f"{shown}: names no bucket; use {parts.scheme}://BUCKET/FOLDER")
    filesystem, path = _connect(uri)
    return ObjectLocation(filesystem, path.rstrip("/"), shown.rstrip("/"), f"?{parts.query}" if parts.query else "")


@functools.lru_cache(maxsize=8)
def _connect(uri: str) -> tuple[fs.FileSystem, str]:
    try:
        # Arrow parses the URI and AWS_ENDPOINT_URL; the timeouts are ours.
        filesystem, path = fs.FileSystem.from_uri(uri)
        if isinstance(filesystem, fs.S3FileSystem):
            filesystem = _bounded_s3(filesystem)
        elif isinstance(filesystem, fs.GcsFileSystem):
            filesystem = _bounded_gcs(filesystem)
    except (OSError, ValueError, NotImplementedError, pa.ArrowException) as error:
        text = reason(error).replace(uri, without_secrets(uri))
        raise StoreError(f"{without_secrets(uri)}: cannot be used: {text}") from None
    # The default of 8 threads is for disks; requests wait for a remote server.
    if pa.io_thread_count() < _REQUESTS_AT_ONCE:
        pa.set_io_thread_count(_REQUESTS_AT_ONCE)
    return filesystem, path


def _bounded_s3(filesystem: fs.S3FileSystem) -> fs.S3FileSystem:
    options = _options(filesystem)
    options.pop("proxy_options", None)
    options |= {
        "connect_timeout": _CONNECT_SECONDS,
        "request_timeout": _REQUEST_SECONDS,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        "allow_delayed_open": True,  # a small object is one request
    }
    return fs.S3FileSystem(**options)


def _bounded_gcs(filesystem: fs.GcsFileSystem) -> fs.GcsFileSystem:
    import datetime

    options = _options(filesystem)
    known = ("anonymous", "target_service_account", "scheme", "endpoint_override", "default_bucket_location")
    kept = {key: options[key] for key in known if options.get(key)}
    seconds = options.get("retry_time_limit") or datetime.timedelta(seconds=20)
    return fs.GcsFileSystem(**kept, retry_time_limit=seconds, project_id=options.get("project_id"))


def _options(filesystem: fs.FileSystem) -> dict[str, Any]:
    """Options that a file system was created with, as pickling has them."""
    _, (options,) = filesystem.__reduce__()
    return dict(options)


def _uninterrupted(put: Callable[[], None]) -> None:
    """Run `put` in its own thread, which Ctrl-C does not interrupt.

    Arrow completes an object when its stream is dropped, so an interrupt between two calls would publish half of it.
    """
    with ThreadPoolExecutor(1) as pool:
        pool.submit(put).result()
