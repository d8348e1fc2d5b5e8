"""Files and folders of a store: one interface for a file system and for an object store (docs/how-to/storage.md).

`locate` opens a path or URI, and `/` leads to the files below it. Nothing here knows what a store contains.
"""

import abc
import contextlib
import os
import re
import shutil
import stat
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from autodo.errors import StoreError, StoreRefused
from autodo.io.atomic import atomic_path
from autodo.io.uri import check_uri, is_uri

StrPath = str | os.PathLike[str]
"""Type of path arguments; functions that also accept URIs say so."""


class Location(abc.ABC):
    """A file or folder below a root, which it never leaves; prints as the path or URI a user knows.

    Every method raises StoreError, one line with the location and the reason, if the storage fails, and
    FileNotFoundError where it says so.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Last part of the path."""

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """Argument for `locate` in another working directory or on another node, without credentials."""

    @property
    @abc.abstractmethod
    def local(self) -> Path | None:
        """Path on a file system; None in an object store."""

    @property
    @abc.abstractmethod
    def arrow(self) -> tuple[Any, str]:
        """The pyarrow.fs.FileSystem, and the path on it."""

    @abc.abstractmethod
    def __str__(self) -> str: ...

    @abc.abstractmethod
    def _child(self, name: str) -> Self: ...

    def __truediv__(self, name: str) -> Self:
        """File or folder in this folder."""
        assert name not in ("", ".", "..")
        assert "/" not in name
        return self._child(name)

    @abc.abstractmethod
    def exists(self) -> bool:
        """Whether the file exists, or the folder with something in it."""

    @abc.abstractmethod
    def read_bytes(self) -> bytes:
        """Read the file. Raises FileNotFoundError if there is none."""

    @abc.abstractmethod
    def read_tail(self, size: int) -> bytes:
        """Read at most the last `size` bytes of the file. Raises FileNotFoundError if there is none."""

    @abc.abstractmethod
    def write_atomic(self, write: Callable[[Path], object]) -> None:
        """Write the file as a whole: readers see the old file, the new one, or none.

        Args:
            write: writes a file at the path it is called with, itself atomically, and others beside it if it wants to.
        """

    @abc.abstractmethod
    def upload(self, path: Path) -> None:
        """Copy a local file here, as a whole."""

    @abc.abstractmethod
    def fetch(self, path: Path) -> None:
        """Copy the file to a local path. Raises FileNotFoundError if there is none."""

    @abc.abstractmethod
    def sizes(self) -> dict[str, int | None]:
        """Names in the folder, without hidden ones, with sizes in bytes if the listing has them.

        Empty if there is no folder. Takes one listing.
        """

    @abc.abstractmethod
    def names_in(self, folders: Iterable[str]) -> dict[str, set[str]]:
        """Names in each of these subfolders, in few requests."""

    @abc.abstractmethod
    def delete(self) -> None:
        """Delete the file if there is one."""

    @abc.abstractmethod
    def make_folder(self) -> None:
        """Make the folder if needed, and check that it can be written."""

    def names(self) -> set[str]:
        """Names in the folder, without hidden ones."""
        return set(self.sizes())

    @property
    def stem(self) -> str:
        """Last part of the path without its suffix."""
        return Path(self.name).stem

    def write_bytes(self, content: bytes) -> None:
        """Write the file as a whole."""

        def write(path: Path) -> None:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)

        self.write_atomic(write)

    def read_text(self) -> str:
        """Read the file as UTF-8; invalid bytes are replaced."""
        return self.read_bytes().decode("utf-8", errors="replace")

    def write_text(self, text: str) -> None:
        """Write the file as a whole, in UTF-8."""
        self.write_bytes(text.encode())

    def read_parquet(self, columns: Sequence[str] | None = None) -> Any:
        """Read the file as a pyarrow.Table. Raises Arrow's errors if it is damaged."""
        import pyarrow.parquet as pq

        filesystem, path = self.arrow
        return pq.read_table(path, columns=columns, partitioning=None, filesystem=filesystem, use_threads=False)


class LocalLocation(Location):
    """A file or folder on a local or shared file system.

    Symbolic links that lead out of the root are not followed, so that a foreign store cannot make us read or overwrite
    other files. The root itself may be a link.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self._path = path
        self._root = root or path

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def uri(self) -> str:
        return str(self._path.absolute())

    @property
    def local(self) -> Path:
        return self._path

    @property
    def arrow(self) -> tuple[Any, str]:
        import pyarrow.fs

        return pyarrow.fs.LocalFileSystem(), self.uri

    def __str__(self) -> str:
        return str(self._path)

    def __fspath__(self) -> str:
        return str(self._path)

    def _child(self, name: str) -> Self:
        return type(self)(self._path / name, self._root)

    def exists(self) -> bool:
        return self._path.exists()

    def read_bytes(self) -> bytes:
        with self._open() as file:
            return file.read()

    def read_tail(self, size: int) -> bytes:
        with self._open() as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)

    @contextlib.contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        with translate_os_errors(self, "read"):
            self._check_inside(self._path)
            # Opening a pipe would block without O_NONBLOCK.
            with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise StoreError(f"{self}: cannot be read: not a regular file")
                yield file

    def write_atomic(self, write: Callable[[Path], object]) -> None:
        with translate_os_errors(self, "written"):
            self._check_inside(self._path.parent)
            write(self._path)

    def upload(self, path: Path) -> None:
        def copy(target: Path) -> None:
            with atomic_path(target) as temporary:
                shutil.copyfile(path, temporary)

        self.write_atomic(copy)

    def fetch(self, path: Path) -> None:
        content = self.read_bytes()
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)

    def sizes(self) -> dict[str, int | None]:
        try:
            with translate_os_errors(self, "read"):
                self._check_inside(self._path)
                with os.scandir(self._path) as entries:  # needs no stat per entry
                    visible = (entry for entry in entries if not entry.name.startswith("."))
                    return {entry.name: None for entry in visible if self._is_file_or_folder(entry)}
        except FileNotFoundError:
            return {}

    def names_in(self, folders: Iterable[str]) -> dict[str, set[str]]:
        def names(folder: str) -> set[str]:
            try:
                return (self / folder).names()
            except StoreError:
                return set()  # a file instead of a folder

        return {folder: names(folder) for folder in folders}

    def delete(self) -> None:
        with translate_os_errors(self, "deleted"):
            self._check_inside(self._path.parent)
            self._path.unlink(missing_ok=True)

    def make_folder(self) -> None:
        with translate_os_errors(self, "written"):
            self._path.mkdir(parents=True, exist_ok=True)
            self._check_inside(self._path)
            if not os.access(self._path, os.W_OK | os.X_OK):
                raise StoreError(f"{self}: cannot be written: permission denied")

    def open_append(self) -> int:
        """Open the file for appending, or create it; return its descriptor. A link is not followed."""
        with translate_os_errors(self, "written"):
            self._check_inside(self._path.parent)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_APPEND | os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(self._path, flags, 0o666)

    def _is_file_or_folder(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is not a pipe, a device or a link that leads out of the root."""
        follow = entry.is_symlink() and self._is_inside(Path(entry.path))
        return entry.is_file(follow_symlinks=follow) or entry.is_dir(follow_symlinks=follow)

    def _check_inside(self, path: Path) -> None:
        if not self._is_inside(path):
            raise StoreRefused(f"{path}: is a symbolic link that leads out of the store, and is not followed")

    def _is_inside(self, path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._root))


def locate(root: StrPath) -> Location:
    """Open a path, or a URI such as s3://bucket/folder or file:///folder.

    Raises:
        StoreError: if the URI cannot be used; one line with the remedy and without secrets.
    """
    text = os.fspath(root)
    if not is_uri(text):
        return LocalLocation(Path(text).expanduser())
    check_uri(text)
    parts = urllib.parse.urlsplit(text)
    if parts.scheme.lower() == "file":
        return LocalLocation(Path(urllib.parse.unquote(parts.path)))
    from autodo.io.object_store import open_object_store

    return open_object_store(text)


def as_location(place: StrPath | Location) -> Location:
    """Open a path or URI; a Location stays as it is."""
    return place if isinstance(place, Location) else locate(place)


@contextlib.contextmanager
def translate_os_errors(location: object, verb: str) -> Iterator[None]:
    """Turn an OSError into a StoreError, one line with the location and the reason.

    FileNotFoundError passes unless `verb` is "written".
    """
    try:
        yield
    except FileNotFoundError:
        if verb != "written":
            raise
        raise StoreError(f"{location}: cannot be {verb}: {os.strerror(2)}") from None
    except IsADirectoryError as error:
        raise StoreRefused(f"{location}: cannot be {verb}: {reason(error)}") from None
    except OSError as error:
        raise StoreError(f"{location}: cannot be {verb}: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Reason for an error of Python or Arrow, on one line."""
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number)
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r" \(Request ID: [^)]*\)", "", text).partition("AWS Error ")[2] or text
    if re.search(r"ACCESS_DENIED|ACCESS_KEY|SIGNATURE|EXPIRED_TOKEN|NO_CREDENTIAL|HTTP status 40[13]", text):
        text += "; check the credentials in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, …)"
    return text
