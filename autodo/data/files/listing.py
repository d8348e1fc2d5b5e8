"""Listing of image files and their classes, from class folders or a CSV."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from autodo.data.files.read_errors import reading
from autodo.errors import DataError
from autodo.text import hint

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
FEATURE_SUFFIXES = (".npy", ".parquet")
SetName = Literal["train", "val", "test"]
SET_NAMES: tuple[SetName, ...] = get_args(SetName)
_COLUMNS = ("path", "label", "split", "clean_label")


class FileList(NamedTuple):
    """Image files of one set, as text, because creating a Path for each takes longer than finding them.

    Shape:
        names, labels [N].
    """

    names: list[str]
    """Relative to `root_of` the listed path if the file lies in it, else absolute."""
    labels: list[str]
    """Class name of each file."""
    clean_labels: list[str] | None = None
    """True class name of each file, from the column clean_label of a CSV."""


Listing = dict[SetName, FileList]
"""Files of each set, sorted within class folders, or in the order of the CSV's rows."""


class WrongFolders(DataError):
    """Error about class folders that are empty or hold folders, one line each.

    Args:
        files: images in the correct class folders.
    """

    def __init__(self, text: str, files: Sequence[Path] = ()) -> None:
        super().__init__(text)
        self.files = files


def list_images(path: Path) -> Listing:
    """Lists the files of `dataset.path`, a directory (`list_folder`) or a CSV (`list_csv`).

    Raises:
        DataError: if it is neither, or cannot be read.
    """
    with reading(path):
        if path.is_dir():
            return list_folder(path)
        if path.is_file() and path.suffix.lower() == ".csv":
            return list_csv(path)
        problem = "neither a directory nor a .csv file" if path.exists() else "no such directory or file"
    if path.suffix.lower() in FEATURE_SUFFIXES:
        problem += "; files of vectors are for the dataset 'features', see docs/how-to/features.md"
    raise DataError(
        f"{path}: {problem}; dataset.path is the directory of class folders, or the CSV of path,label, of your images, "
        "or the directory of their tar shards, if they are streamed"
    )


def root_of(path: Path) -> Path:
    """Folder that the names of listed files are relative to: the directory itself, or the CSV's folder."""
    return path if path.is_dir() else path.parent


def list_folder(root: Path) -> Listing:
    """Lists ROOT/<class>/*, or ROOT/train/<class>/* with optional ROOT/val and ROOT/test beside it.

    The second form applies if ROOT/train holds folders. Hidden files and files that are not images are ignored.

    Raises:
        DataError: if there are no class folders, or a folder beside `train` has another name.
        WrongFolders: if class folders hold no images, or hold folders.
    """
    folders = _folders_in(root)
    problems: list[str] = []
    listing = _empty_listing()
    if "train" not in folders or not _folders_in(root / "train"):
        listing["train"] = _list_classes(root, None, problems)
        folders = []
    for folder in folders:
        name = next((name for name in SET_NAMES if name == folder), None)
        if name is None:
            raise DataError(
                f"{root / folder}: beside {root / 'train'} only 'val' and 'test' have a meaning"
                f"{hint(folder, SET_NAMES)}; rename it or move it away"
            )
        listing[name] = _list_classes(root, name, problems)
    if problems:
        raise WrongFolders("\n".join(problems), [root / file for listed in listing.values() for file in listed.names])
    return listing


def list_csv(path: Path) -> Listing:
    """Lists the rows of a CSV of path,label and optionally split (train, val, test; empty means train), clean_label.

    Paths are relative to the CSV's folder, or absolute. A clean label is the true class of a train image, which
    training never sees. The labels of val and test are trusted, so there it is empty or the same as the label.

    Raises:
        DataError: with the line, if the CSV is malformed, a row's file is missing, or two rows name the same file.
    """
    listing = _empty_listing()
    start = f"{path.parent}/" if path.parent.parts and str(path.parent) != "/" else ""
    line_of: dict[str, int] = {}
    missing: list[str] = []
    clean: dict[SetName, list[str]] = {name: [] for name in SET_NAMES}
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
        listing[name].names.append(str(file).removeprefix(start))
        listing[name].labels.append(row["label"])
        if "clean_label" in row:
            clean[name].append(_clean_label(row, name, where))
    if any(clean.values()):
        listing = {name: part._replace(clean_labels=clean[name]) for name, part in listing.items()}
    if missing:
        more = f" (one of {len(missing)} such rows)" if len(missing) > 1 else ""
        raise DataError(
            f"{path}: {missing[0]}: no such file{more}; paths are relative to the CSV's folder, or absolute"
        )
    return listing


def _clean_label(row: dict[str, str], name: SetName, where: str) -> str:
    clean, label = row["clean_label"], row["label"]
    if name != "train" and clean not in ("", label):
        raise DataError(
            f"{where}: clean_label is {clean!r} and label is {label!r}, but labels of {name} are trusted; write the "
            "true one into label"
        )
    if name == "train" and not clean:
        raise DataError(f"{where}: clean_label is empty; fill it in for all train images or remove the column")
    return clean or label


def csv_paths(path: Path) -> list[str]:
    """Paths as written in a CSV for `list_csv`. Raises DataError if the CSV is malformed."""
    return [row["path"] for _, row in _rows(path) if row["path"]]


def list_paths_of_csv(path: Path) -> list[str]:
    """Paths of the column `path` of a CSV, which are relative to its folder or absolute; other columns are ignored.

    Raises:
        DataError: with the line, if the CSV is malformed or a path is empty.
    """

    def check_header(path: Path, header: list[str]) -> None:
        if header.count("path") != 1:
            raise DataError(f"{path}: line 1: the header is {','.join(header)!r}; one column must be named path")

    names = []
    for line, row in _rows(path, check_header):
        if not row["path"]:
            raise DataError(f"{path}: line {line}: path is empty; fill it in or remove the row")
        names.append(str(path.parent / row["path"]))
    return names


def list_classes(root: Path, part: SetName | None = None) -> FileList:
    """Lists ROOT/<class>/*, or ROOT/<part>/<class>/*; the names are relative to ROOT.

    Raises:
        WrongFolders: if class folders hold no images, or hold folders.
    """
    problems: list[str] = []
    listed = _list_classes(root, part, problems)
    if problems:
        raise WrongFolders("\n".join(problems), [root / file for file in listed.names])
    return listed


def _list_classes(root: Path, part: SetName | None, problems: list[str]) -> FileList:
    """`list_classes` that adds a line to `problems` for each wrong class folder and goes on."""
    listed = FileList([], [])
    folder, start = (root, "") if part is None else (root / part, f"{part}/")
    for label in _folders_in(folder):
        try:
            files = _images_in(folder / label)
        except DataError as error:
            problems.append(str(error))
            continue
        listed.names.extend([f"{start}{label}/{file}" for file in files])
        listed.labels.extend([label] * len(files))
    return listed


def _empty_listing() -> Listing:
    return {name: FileList([], []) for name in SET_NAMES}


def _images_in(class_folder: Path) -> list[str]:
    with os.scandir(class_folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    inner = min((entry.name for entry in visible if entry.is_dir()), default=None)
    if inner is not None:
        raise DataError(f"{class_folder / inner}: a folder in a class folder; move its images up, or the folder away")
    files = sorted([entry.name for entry in visible if entry.name.lower().endswith(SUFFIXES)])
    if not files:
        raise DataError(f"{class_folder}: a class folder without images ({' '.join(SUFFIXES)}); fill it or remove it")
    return files


def _folders_in(folder: Path) -> list[str]:
    """Names of the folders that are not hidden, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def _rows(
    path: Path, check_header: Callable[[Path, list[str]], None] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line, row) with stripped values, after checking the header; by default it is that of `list_csv`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [column.strip() for column in next(reader, [])]
            (check_header or _check_header)(path, header)
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
        raise DataError(
            f"{path}: line 1: the header is {','.join(header)!r}; path,label is needed, and split and clean_label are "
            "possible"
        )
    for column in header:
        if column not in _COLUMNS:
            raise DataError(
                f"{path}: line 1: unknown column {column!r}{hint(column, _COLUMNS)}; known: {', '.join(_COLUMNS)}"
            )
