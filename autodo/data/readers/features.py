"""Features that a network has computed, with a label for each: .npy files or Parquet."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autodo.config.dataset import DatasetConfig
from autodo.data.files.columns import COLUMNS, column_files
from autodo.data.files.listing import FEATURE_SUFFIXES, SET_NAMES, SetName
from autodo.data.files.read_errors import one_line, reading
from autodo.data.files.remote import local_copy
from autodo.data.images.image_set import ArrayImages, Dataset, Images, Integers
from autodo.data.readers.labelled_files import LabelledPoints
from autodo.data.readers.location import DatasetLocation
from autodo.errors import DataError
from autodo.text import count_of, hint

if TYPE_CHECKING:
    import pyarrow as pa

Column = Sequence[str | int | None]


@dataclass(frozen=True, eq=False)
class Features:
    """Features of points, and their labels as text.

    Shape:
        values [N, D] float32; every column [N].
    """

    values: NDArray[np.float32]
    labels: list[str]
    sets: dict[SetName, Integers]
    """Positions of the points of each set."""
    clean_labels: list[str] | None
    """True label of each point, where they are known; those of val and test are their labels."""
    sources: list[str] | None
    """Origin of each point, such as the image file."""
    numbered: bool
    """Whether the labels are whole numbers."""

    @property
    def content(self) -> str:
        """Fingerprint of all of it: 16 hex digits. The same for the same values in another format."""
        digest = hashlib.blake2b(repr(self.values.shape).encode(), digest_size=8)
        digest.update(np.ascontiguousarray(self.values).data)
        texts = (self.labels, self.clean_labels or (), self.sources or ())
        digest.update("\1".join("\0".join(column) for column in texts).encode(errors="surrogateescape"))
        for rows in self.sets.values():
            digest.update(f"\1{len(rows)}\1".encode())
            digest.update(rows.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class LabelledFeatures(LabelledPoints[Features]):
    """Features with the name of each one's class, in sets."""

    def _images(self, order: Integers, config: DatasetConfig) -> Images:
        return ArrayImages(self.points.values[order][:, :, None, None])

    def _sources(self, positions: Integers) -> tuple[str, ...] | None:
        sources = self.points.sources
        return None if sources is None else tuple([sources[i] for i in positions.tolist()])


def read_features_dataset(config: DatasetConfig, location: DatasetLocation) -> Dataset:
    """The features of `config.path` (see docs/how-to/features.md), as images of 1x1 pixel with a channel for each.

    Without a test set, a fixed stratified fifth of the train points is the test set.

    Raises:
        DataError: if the file is missing, damaged or unsuitable, or the features are not those of `config.content`; one
            line with the file, the row and the remedy.
    """
    assert config.path is not None
    with local_copy(config.path) as path:
        features = read_features(path)
        if config.content is not None and features.content != config.content:
            raise DataError(
                f"{path}: the features have changed since this run was planned (dataset.content was {config.content}, "
                f"now it is {features.content}); put the old ones back, or start the command again, without "
                "dataset.content if it is set, for a new run"
            )
        if not len(features.sets["train"]):
            raise DataError(f"{path}: no features to train on: no row has the split train")
        where, clean = str(path), features.clean_labels
        return LabelledFeatures(
            where, features, features.labels, features.sets, numbered=features.numbered, clean_labels=clean
        ).dataset(config)


def features_content(config: DatasetConfig) -> str:
    """Fingerprint of the features, labels, sets and sources at `config.path`: 16 hex digits.

    Raises:
        DataError: if they cannot be read.
    """
    assert config.path is not None
    with local_copy(config.path) as path:
        return read_features(path).content


def read_features(path: Path) -> Features:
    """Read NAME.npy, with its columns in NAME.<column>.npy, or a Parquet file with the column `features`.

    Raises:
        DataError: if a file is missing, damaged or unsuitable.
    """
    advice = "dataset.path is the file of features, NAME.npy with NAME.label.npy beside it, or NAME.parquet"
    values, columns = _reader_of(path, advice)(path, labelled=True)
    for name, column in columns.items():
        if len(column) != len(values):
            raise DataError(f"{path}: {count_of(len(values), 'row')} of features, and {len(column)} of {name}")
    labels = _labels(path, columns["label"], "label")
    set_of = _set_of(path, columns.get("split"), len(labels))
    clean = columns.get("clean_label")
    source = columns.get("source")
    return Features(
        values=_checked(path, values),
        labels=labels,
        sets={name: np.flatnonzero(set_of == i) for i, name in enumerate(SET_NAMES)},
        clean_labels=None if clean is None else _clean_labels(path, clean, labels, set_of),
        sources=None if source is None else ["" if origin is None else str(origin) for origin in source],
        numbered=all(isinstance(label, int) for label in columns["label"]),
    )


def read_feature_values(path: Path) -> NDArray[np.float32]:
    """Features of NAME.npy, or of the column `features` of a Parquet file; labels are not read. Shape: -> [N, D].

    Raises:
        DataError: if the file is missing, damaged or unsuitable.
    """
    values, _ = _reader_of(path, "give files of features, NAME.npy or NAME.parquet")(path, labelled=False)
    return _checked(path, values)


def _reader_of(path: Path, advice: str) -> "_Reader":
    readers = dict(zip(FEATURE_SUFFIXES, (_read_npy, _read_parquet), strict=True))
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        problem = "no such file" if not path.exists() else "neither a .npy nor a .parquet file"
        raise DataError(f"{path}: {problem}; {advice}")
    return reader


class _Reader(Protocol):
    """Reads the features of a file, and the columns beside them if they are labelled."""

    def __call__(self, path: Path, *, labelled: bool) -> tuple[NDArray[Any], dict[str, Column]]: ...


def _read_npy(path: Path, *, labelled: bool) -> tuple[NDArray[Any], dict[str, Column]]:
    if not labelled:
        return _load(path), {}
    files = column_files(path)
    if not files["label"].is_file():
        raise DataError(f"{files['label']}: no such file; it holds the label of each row of {path.name}")
    columns: dict[str, Column] = {}
    for name, file in files.items():
        if file.is_file():
            values = _load(file)
            if values.ndim != 1 or values.dtype.kind not in "iuU":
                raise DataError(
                    f"{file}: {values.dtype} of shape {list(values.shape)}; an array of whole numbers or of text is "
                    "needed, with one for each row of features"
                )
            columns[name] = values.tolist()
    return _load(path), columns


def _load(file: Path) -> NDArray[Any]:
    with reading(file):
        try:
            values: NDArray[Any] = np.load(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError(f"{file}: not an array that numpy.save wrote: {one_line(error)}") from None
    return values


def _read_parquet(path: Path, *, labelled: bool) -> tuple[NDArray[Any], dict[str, Column]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading(path):
        try:
            with pq.ParquetFile(path) as file:
                needed, possible = (("features", "label"), COLUMNS) if labelled else (("features",), ())
                known = [name for name in ("features", *possible) if name in file.schema_arrow.names]
                lacking = [name for name in needed if name not in known]
                if lacking:
                    rule = "features and label are needed, and split, clean_label and source are possible; "
                    raise DataError(
                        f"{path}: no column {lacking[0]!r}; {rule if labelled else ''}its columns: "
                        f"{', '.join(file.schema_arrow.names)}"
                    )
                table = file.read(columns=known)
        except pa.ArrowException as error:
            raise DataError(f"{path}: not a Parquet file: {one_line(error)}") from None
    columns: dict[str, Column] = {}
    for name in known[1:]:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not (pa.types.is_integer(column.type) or pa.types.is_string(column.type) or _is_long_text(column.type)):
            raise DataError(f"{path}: column {name!r} is {column.type}; whole numbers or text are needed")
        columns[name] = column.to_pylist()
    return _lists(path, table["features"]), columns


def _is_long_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _lists(path: Path, column: "pa.ChunkedArray") -> NDArray[Any]:
    """Values of a column of lists of equal length. Shape: -> [N, D]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise DataError(f"{path}: column 'features' is {column.type}; a list of numbers in each row is needed")
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise DataError(f"{path}: row {row}: features are missing; fill them in or remove the row")
    lengths = pc.list_value_length(column).to_numpy()
    width = int(lengths[0]) if len(lengths) else 0
    if (lengths != width).any():
        row = int(np.flatnonzero(lengths != width)[0])
        raise DataError(f"{path}: row {row} has {lengths[row]} features, and row 0 has {width}")
    flat: NDArray[Any] = pc.list_flatten(column).to_numpy()
    return flat.reshape(len(lengths), width)


def _checked(path: Path, values: NDArray[Any]) -> NDArray[np.float32]:
    """Features as float32. Shape: [N, D]."""
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: {values.dtype} of shape {list(values.shape)}; features are numbers of shape [points, features]"
        )
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(values, np.float32)
    finite = np.isfinite(features).all(1)
    if not finite.all():
        row = int(np.argmin(finite))
        more = f" (one of {count_of(int((~finite).sum()), 'such row')})" if (~finite).sum() > 1 else ""
        raise DataError(
            f"{path}: row {row}{more}: a feature is NaN, infinite or too large for float32; mend or remove the row"
        )
    return features


def _labels(path: Path, column: Column, name: str) -> list[str]:
    labels = ["" if value is None else str(value) for value in column]
    if "" in labels:
        raise DataError(f"{path}: row {labels.index('')}: {name} is empty; fill it in or remove the row")
    return labels


def _set_of(path: Path, split: Column | None, count: int) -> Integers:
    """Number of each point's set. Shape: -> [N]."""
    numbers: dict[str | int | None, int] = {name: i for i, name in enumerate(SET_NAMES)} | {None: 0, "": 0}
    set_of = np.array([numbers.get(name, -1) for name in split or [None] * count], np.int64)
    if (set_of < 0).any():
        assert split is not None
        row = int(np.argmin(set_of))
        near = hint(str(split[row]), SET_NAMES)
        raise DataError(f"{path}: row {row}: split is {split[row]!r}{near}; train, val, test or nothing is possible")
    return set_of


def _clean_labels(path: Path, column: Column, labels: list[str], set_of: Integers) -> list[str]:
    trusted = set_of > 0
    filled = [
        label if rest and value in (None, "") else value
        for value, label, rest in zip(column, labels, trusted.tolist(), strict=True)
    ]
    clean = _labels(path, filled, "clean_label")
    for row in np.flatnonzero(trusted).tolist():
        if clean[row] != labels[row]:
            raise DataError(
                f"{path}: row {row}: clean_label is {clean[row]!r} and label is {labels[row]!r}, but labels of "
                f"{SET_NAMES[set_of[row]]} are trusted; write the true one into label"
            )
    return clean
