"""Image files that a person names: files, folders, globs and CSV files."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from autodo.data.files.listing import SUFFIXES, list_paths_of_csv
from autodo.data.files.read_errors import reading
from autodo.errors import DataError
from autodo.io.uri import is_uri, without_secrets


def find_images(places: Sequence[str]) -> list[str]:
    """Paths of the image files at `places`, each once, in the order given; those of a folder are sorted.

    A folder stands for all images in it and in its folders, without hidden ones; a .csv file for the paths in its
    column `path`. Whether a file that is named, or that a CSV names, is there and is an image, shows when it is read.

    Args:
        places: files, folders, CSV files, or globs such as `photos/**/*.jpg`.
    Raises:
        DataError: if a place does not exist or has no images; one line.
    """
    found: dict[str, None] = {}
    for place in places:
        images = list(_images_at(place))
        if not images:
            raise DataError(f"{place}: no images in it ({' '.join(SUFFIXES)})")
        found.update(dict.fromkeys(images))
    return list(found)


def _images_at(place: str) -> Iterator[str]:
    if is_uri(place):
        raise DataError(f"{without_secrets(place)}: is a URI; copy the images to this machine and give their paths")
    path = Path(place).expanduser()
    with reading(path):
        if path.is_dir():
            yield from _in_folder(path)
        elif path.exists():
            yield from list_paths_of_csv(path) if path.suffix.lower() == ".csv" else [str(path)]
        elif glob.has_magic(place):
            yield from _matches(str(path))
        else:
            raise DataError(f"{path}: no such file or folder")


def _matches(pattern: str) -> Iterator[str]:
    paths = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 Path.glob takes no absolute pattern
    if not paths:
        raise DataError(f"{pattern}: nothing has such a name")
    yield from (path for path in paths if path.lower().endswith(SUFFIXES) and Path(path).is_file())


def _in_folder(folder: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield str(Path(parent, name))
