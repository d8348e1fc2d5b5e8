"""Location of a published dataset's files, and their download."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from autodo.data.files.read_errors import one_line
from autodo.errors import DataError


@dataclass(frozen=True)
class DatasetLocation:
    """Folders that may hold the files of a published dataset."""

    data_dir: Path
    download: bool = False
    system_dir: Path | None = None
    """Where the system's package puts the files; tried when `data_dir` has none of them."""
    package: str | None = None
    """Name of that package. Like `system_dir` it is None if the user gave a data_dir."""

    @property
    def remedy(self) -> str:
        """Advice for a missing file."""
        absent = "" if self.data_dir.is_dir() else f"there is no directory {self.data_dir}; "
        package = f", or `apt-get install {self.package}`" if self.package else ""
        return f"{absent}pass --data-dir with the folder that holds the files, or --download{package}"


def fetch(name: str, download: Callable[[Path], object], files: Iterable[str], data_dir: Path) -> None:
    """Downloads into a temporary folder beside `data_dir` and moves `files` in when all of them are there.

    Args:
        download: fills the folder that it is given; torchvision checks the files' checksums.
        files: paths relative to that folder, and to `data_dir` afterwards.
    Raises:
        DataError: if the download fails or a file cannot be written; `data_dir` is unchanged then.
    """
    existing = next((folder for folder in (data_dir, *data_dir.parents) if folder.is_dir()), Path())
    try:
        with tempfile.TemporaryDirectory(prefix=".autodo-download-", dir=existing) as temporary:
            download(Path(temporary))
            for file in files:
                target = data_dir / file
                target.parent.mkdir(parents=True, exist_ok=True)
                (Path(temporary) / file).replace(target)
    except Exception as error:  # torchvision, urllib and tarfile raise exceptions of many kinds
        raise DataError(
            f"{name}: cannot be downloaded to {data_dir}: {one_line(error)}; "
            "check the network, or pass --data-dir with the folder that holds the files"
        ) from None


def unreadable(path: Path, reason: str) -> DataError:
    """The error for a file that exists but cannot be used."""
    return DataError(f"{path}: cannot be read: {reason}; replace it, or delete it and pass --download")
