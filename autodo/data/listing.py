"""Which image files of a person's own data are of which class, from class folders or from a CSV."""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from autodo.data.files import one_line
from autodo.errors import DataError
from autodo.validation import hint

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
SetName = Literal["train", "val", "test"]
SET_NAMES: tuple[SetName, ...] = get_args(SetName)
_COLUMNS = ("path", "label", "split")


class Item(NamedTuple):
    """An image file and the name of its class."""

    path: Path
    label: str


Listing = dict[SetName, list[Item]]
"""The files of every set, sorted within class folders, in the order of rows in a CSV."""


def list_images(path: Path) -> Listing:
    """The files of `dataset.path`: a directory for `list_folder`, or a CSV for `list_csv`.

    Raises:
        DataError: if it is neither, or cannot be read.
    """
    try:
        if path.is_dir():
            return list_folder(path)
        if path.is_file() and path.suffix.lower() == ".csv":
            return list_csv(path)
        problem = "neither a directory nor a .csv file" if path.exists() else "no such directory or file"
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from None
    raise DataError(
        f"{path}: {problem}; dataset.path is the directory of class folders, or the CSV of path,label, of your images"
    )


def relative_to_root(files: Sequence[Path], path: Path) -> list[str]:
    """Names of listed files: relative to the directory, or to the CSV's folder, if they lie in it, else as they are."""
    root = path if path.is_dir() else path.parent
    start = f"{root}/" if root.parts and str(root) != "/" else ""
    return [str(file).removeprefix(start) for file in files]


def list_folder(root: Path) -> Listing:
    """ROOT/<class>/*, or ROOT/train/<class>/* with optional ROOT/val and ROOT/test beside it.

    The second form is meant if ROOT/train holds folders. Hidden files and files that are no images are ignored.

    Raises:
        DataError: if there are no class folders, one holds no images, or a folder is at a place that has no meaning.
    """
    listing: Listing = {name: [] for name in SET_NAMES}
    folders = _visible_folders(root)
    if not any(folder.name == "train" and _visible_folders(folder) for folder in folders):
        listing["train"] = list_classes(root)
        return listing
    for folder in folders:
        name = next((name for name in SET_NAMES if name == folder.name), None)
        if name is None:
            raise DataError(
                f"{folder}: beside {root / 'train'} only 'val' and 'test' have a meaning"
                f"{hint(folder.name, SET_NAMES)}; rename it or move it away"
            )
        listing[name] = list_classes(folder)
    return listing


def list_csv(path: Path) -> Listing:
    """Rows of path,label and optionally split (train, val, test; empty is train).

    Paths are relative to the CSV's folder, or absolute.

    Raises:
        DataError: if the file is not such a CSV, a row's file is missing or a file stands in two rows; with the line.
    """
    listing: Listing = {name: [] for name in SET_NAMES}
    line_of: dict[str, int] = {}
    missing: list[str] = []
    for line, row in _rows(path):
        where = f"{path}: line {line}"
        name = next((name for name in SET_NAMES if name == (row.get("split") or "train")), None)
        if name is None:
            raise DataError(f"{where}: split is {row['split']!r}; train, val, test or nothing is possible")
        for column in ("path", "label"):
            if not row[column]:
                raise DataError(f"{where}: {column} is empty; fill it in or remove the row")
        file = path.parent / row["path"]
        earlier = line_of.setdefault(os.path.normpath(file), line)
        if earlier != line:
            raise DataError(f"{where}: {row['path']} stands in line {earlier} already; remove one of the rows")
        if not file.is_file():
            missing.append(f"line {line}: {row['path']}")
        listing[name].append(Item(file, row["label"]))
    if missing:
        more = f" (one of {len(missing)} such rows)" if len(missing) > 1 else ""
        raise DataError(
            f"{path}: {missing[0]}: no such file{more}; paths are relative to the CSV's folder, or absolute"
        )
    return listing


def csv_paths(path: Path) -> list[str]:
    """The paths as they stand in a CSV for `list_csv`. Raises DataError if it is not such a CSV."""
    return [row["path"] for _, row in _rows(path) if row["path"]]


def list_classes(folder: Path) -> list[Item]:
    """FOLDER/<class>/*. Raises DataError if a class folder has no images, or holds a folder."""
    items = []
    for class_folder in _visible_folders(folder):
        entries = _visible(class_folder)
        inner = next((entry for entry in entries if entry.is_dir()), None)
        if inner is not None:
            raise DataError(f"{inner.path}: a folder in a class folder; move its images up, or the folder away")
        files = [Path(entry.path) for entry in entries if entry.name.lower().endswith(SUFFIXES)]
        if not files:
            raise DataError(
                f"{class_folder}: a class folder without images ({' '.join(SUFFIXES)}); fill it or remove it"
            )
        items += [Item(file, class_folder.name) for file in files]
    return items


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _visible_folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _visible(folder) if entry.is_dir()]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) with stripped values, after checking the header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [column.strip() for column in next(reader, [])]
            _check_header(path, header)
            for row in reader:
                if not any(row):
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path}: line {reader.line_num}: {len(row)} values, but the header has {len(header)}; "
                        "put values that contain a comma in double quotes"
                    )
                yield reader.line_num, dict(zip(header, (value.strip() for value in row), strict=True))
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV: {error}; correct the line") from None


def _check_header(path: Path, header: list[str]) -> None:
    if len(set(header)) != len(header) or not {"path", "label"} <= set(header):
        raise DataError(f"{path}: line 1: the header is {','.join(header)!r}; path,label or path,label,split is needed")
    for column in header:
        if column not in _COLUMNS:
            raise DataError(
                f"{path}: line 1: unknown column {column!r}{hint(column, _COLUMNS)}; known: {', '.join(_COLUMNS)}"
            )
