"""The files of a store: one interface for a file system and for an object store. See docs/how-to/storage.md.

`locate` gives the location of a path or URI; from there `/` leads on. Nothing here knows what a store holds.
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

StrPath = str | os.PathLike[str]
"""Type of path arguments; functions that also accept URIs say so."""
SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
_SECRET = re.compile(r"key|secret|token|password|signature|sas", re.IGNORECASE)


class Location(abc.ABC):
    """A file or a folder below a root that it never leaves; prints as what a person may look for.

    Every method raises StoreError, one line with the location and the reason, if the storage fails, and
    FileNotFoundError where it says so.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Its last part."""

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """What `locate` finds it by, in another working directory and on another node; it holds no credentials."""

    @property
    @abc.abstractmethod
    def local(self) -> Path | None:
        """Its path, if it lies on a file system."""

    @property
    @abc.abstractmethod
    def arrow(self) -> tuple[Any, str]:
        """The pyarrow.fs.FileSystem that it lies on, and its path there."""

    @abc.abstractmethod
    def __str__(self) -> str: ...

    @abc.abstractmethod
    def __truediv__(self, name: str) -> Self:
        """A file or folder in this folder."""

    @abc.abstractmethod
    def exists(self) -> bool:
        """Whether there is such a file, or such a folder with something in it."""

    @abc.abstractmethod
    def read_bytes(self) -> bytes:
        """The content of the file. Raises FileNotFoundError if there is none."""

    @abc.abstractmethod
    def read_tail(self, size: int) -> bytes:
        """The last bytes of the file, `size` at most. Raises FileNotFoundError if there is none."""

    @abc.abstractmethod
    def write_atomic(self, write: Callable[[Path], object]) -> None:
        """Makes the file as a whole: a reader sees the old one, the new one, or none.

        Args:
            write: writes the path that it is given, itself all or nothing.
        """

    @abc.abstractmethod
    def upload(self, path: Path) -> None:
        """Makes the file as a whole from a local one."""

    @abc.abstractmethod
    def fetch(self, path: Path) -> None:
        """Copies the file to a local path. Raises FileNotFoundError if there is none."""

    @abc.abstractmethod
    def sizes(self) -> dict[str, int | None]:
        """What the folder holds, hidden names left out; nothing if there is no folder. One listing.

        Returns:
            names, with sizes in bytes where the listing tells them without a further question.
        """

    @abc.abstractmethod
    def names_in(self, folders: Iterable[str]) -> dict[str, set[str]]:
        """`names` of each of these folders in this folder, in few requests."""

    @abc.abstractmethod
    def delete(self) -> None:
        """Removes the file if there is one."""

    @abc.abstractmethod
    def make_folder(self) -> None:
        """Makes the folder, if need be, and shows thereby that it can be written."""

    def names(self) -> set[str]:
        """The names that `sizes` gives."""
        return set(self.sizes())

    @property
    def stem(self) -> str:
        """Its last part without the suffix."""
        return Path(self.name).stem

    def write_bytes(self, content: bytes) -> None:
        """Writes the file as a whole."""

        def write(path: Path) -> None:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)

        self.write_atomic(write)

    def read_text(self) -> str:
        """The text of the file; bytes that are not UTF-8 are replaced."""
        return self.read_bytes().decode("utf-8", errors="replace")

    def write_text(self, text: str) -> None:
        """Writes the file as a whole, in UTF-8."""
        self.write_bytes(text.encode())

    def read_parquet(self, columns: Sequence[str] | None = None) -> Any:
        """The pyarrow.Table of the file. Raises what Arrow raises if it is damaged."""
        import pyarrow.parquet as pq

        filesystem, path = self.arrow
        return pq.read_table(path, columns=columns, partitioning=None, filesystem=filesystem, use_threads=False)


class LocalLocation(Location):
    """A file or folder on a local or shared file system.

    Symbolic links that lead out of the root are not followed, so that a store made by someone else cannot have other
    files read or overwritten. The root itself may be a link.
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

    def __truediv__(self, name: str) -> Self:
        assert name not in ("", ".", "..")
        assert "/" not in name
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
            self._stay_inside(self._path)
            # Without blocking, because a pipe in the place of a file would be waited for.
            with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise StoreError(f"{self}: cannot be read: not a regular file")
                yield file

    def write_atomic(self, write: Callable[[Path], object]) -> None:
        with translate_os_errors(self, "written"):
            self._stay_inside(self._path.parent)
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
                self._stay_inside(self._path)
                with os.scandir(self._path) as entries:  # which asks for no entry's stat
                    visible = (entry for entry in entries if not entry.name.startswith("."))
                    return {entry.name: None for entry in visible if self._usable(entry)}
        except FileNotFoundError:
            return {}

    def names_in(self, folders: Iterable[str]) -> dict[str, set[str]]:
        def names(folder: str) -> set[str]:
            try:
                return (self / folder).names()
            except StoreError:
                return set()  # a file in the place of a folder

        return {folder: names(folder) for folder in folders}

    def delete(self) -> None:
        with translate_os_errors(self, "deleted"):
            self._stay_inside(self._path.parent)
            self._path.unlink(missing_ok=True)

    def make_folder(self) -> None:
        with translate_os_errors(self, "written"):
            self._path.mkdir(parents=True, exist_ok=True)
            self._stay_inside(self._path)
            if not os.access(self._path, os.W_OK | os.X_OK):
                raise StoreError(f"{self}: cannot be written: permission denied")

    def open_append(self) -> int:
        """A file descriptor of the file, made if need be, that appends; a link is not followed."""
        with translate_os_errors(self, "written"):
            self._stay_inside(self._path.parent)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_APPEND | os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(self._path, flags, 0o666)

    def _usable(self, entry: os.DirEntry[str]) -> bool:
        """A file or folder, and no pipe, device or link that leads out of the root."""
        if entry.is_symlink():
            return self._is_inside(Path(entry.path)) and (entry.is_file() or entry.is_dir())
        return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)

    def _stay_inside(self, path: Path) -> None:
        if not self._is_inside(path):
            raise StoreRefused(f"{path}: is a symbolic link that leads out of the store, and so not followed")

    def _is_inside(self, path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._root))


def is_uri(text: str) -> bool:
    """Whether a text is a URI rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def absolute(place: StrPath) -> str:
    """A path as an absolute one, so that it means the same in another working directory; a URI as it is."""
    text = os.fspath(place)
    return text if is_uri(text) else str(Path(text).expanduser().absolute())


def locate(root: StrPath) -> Location:
    """The location of a path, or of a URI such as s3://bucket/folder or file:///folder.

    Raises:
        StoreError: if the URI cannot be used; one line with the remedy and without its secrets.
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
    """`locate`, for what may be a location already."""
    return place if isinstance(place, Location) else locate(place)


def check_uri(uri: str) -> None:
    """Raises StoreError if a URI is of an unknown scheme or holds credentials; nothing is connected to."""
    shown = without_secrets(uri)
    try:
        parts = urllib.parse.urlsplit(uri)
        query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    except ValueError as error:
        raise StoreError(f"{shown}: is not a URI: {error}") from None
    scheme = parts.scheme.lower()
    if scheme not in ("file", *SCHEMES):
        raise StoreError(f"{shown}: unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}, file, or a path")
    if _user(uri) or any(_SECRET.search(key) for key, _ in query):
        raise StoreError(
            f"{shown}: holds credentials, which would end up in logs; give them in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, …)"
        )
    if scheme == "file" and parts.netloc not in ("", "localhost"):
        raise StoreError(f"{shown}: names the host {parts.netloc!r}; file:///PATH has none")


def without_secrets(uri: str) -> str:
    """A URI to print: no query, and no user name or password."""
    bare = re.sub(r"[?#].*", "", uri, flags=re.DOTALL)
    user = _user(uri)
    return bare.replace(f"{user}@", "***@", 1) if user else bare


def _user(uri: str) -> str:
    """What stands before the @ of a URI and may be a secret."""
    scheme, _, rest = re.sub(r"[?#].*", "", uri, flags=re.DOTALL).partition("://")
    # With a colon to the last @, because a secret key may hold slashes.
    user = rest.rpartition("@")[0]
    if ":" in user:
        return user
    # Azure's container and Google's `anonymous` stand there too.
    return rest.partition("/")[0].rpartition("@")[0] if scheme.lower() == "s3" else ""


@contextlib.contextmanager
def translate_os_errors(location: object, verb: str) -> Iterator[None]:
    """An error of the storage as one line; FileNotFoundError stays what it is unless a file was to be written."""
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
    """Why a storage failed, on one line, from an error of Python or of Arrow."""
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number)
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r" \(Request ID: [^)]*\)", "", text).partition("AWS Error ")[2] or text
    if re.search(r"ACCESS_DENIED|ACCESS_KEY|SIGNATURE|EXPIRED_TOKEN|NO_CREDENTIAL|HTTP status 40[13]", text):
        text += "; check the credentials in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, …)"
    return text
