"""All train points of a run as CSV, the most probably wrong label first.

Spreadsheets run a cell that begins with one of = + - @ as a formula, and paths and class names are anybody's. Such a
path is written as ./path, which opens the same file; such a class name gets an apostrophe in front.
"""

import posixpath
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from autodo.io.storage import Location, StrPath, as_location
from autodo.io.uri import is_uri
from reports.label_errors.ranked_labels import RankedLabels

_BEGINS_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def write_labels(labels: RankedLabels, file: StrPath | Location, folder: str | None = None) -> None:
    """Writes the columns rank, index, path, given, proposed, score, weight, loss, soft_label, prediction, known_wrong.

    What is not known is empty. Every text is quoted.

    Args:
        folder: where the files of `source` are, if a person can open them there; see `image_folder`.
    Raises:
        StoreError: if it cannot be written.
    """
    names = pa.array([_no_formula(name) for name in labels.class_names], pa.string())

    def named(numbers: np.ndarray) -> pa.Array:
        return names.take(pa.array(numbers, mask=numbers < 0))

    def learned(values: np.ndarray | None) -> pa.Array:
        return pa.nulls(len(labels), pa.float32()) if values is None else pa.array(values.astype(np.float32))

    paths = [None if source is None else path_of(source, folder) for source in labels.source.to_pylist()]
    table = pa.table(
        {
            "rank": np.arange(1, len(labels) + 1),
            "index": labels.index,
            "path": pa.array(paths, pa.string()),
            "given": named(labels.given),
            "proposed": named(labels.proposed),
            "score": labels.score.astype(np.float32),
            "weight": learned(labels.weight),
            "loss": labels.loss.astype(np.float32),
            "soft_label": learned(labels.soft_label),
            "prediction": named(labels.prediction),
            "known_wrong": pa.nulls(len(labels), pa.bool_()) if labels.wrong is None else labels.wrong,
        }
    )
    text = pa.BufferOutputStream()
    pa.csv.write_csv(table, text)
    as_location(file).write_bytes(text.getvalue().to_pybytes())


def image_folder(dataset_path: str | None) -> str | None:
    """Where the sources of a run's points lie: its dataset.path, or the folder of that CSV; None without one."""
    if not dataset_path:
        return None
    folder = posixpath.dirname(dataset_path) if dataset_path.lower().endswith(".csv") else dataset_path
    return folder if is_uri(folder) else str(Path(folder).expanduser())


def path_of(source: str, folder: str | None = None) -> str:
    """What opens the file of a point, and is no formula."""
    path = posixpath.join(folder, source) if folder else source
    return f"./{path}" if path.startswith(_BEGINS_FORMULA) else path


def _no_formula(name: str) -> str:
    return f"'{name}" if name.startswith(_BEGINS_FORMULA) else name
