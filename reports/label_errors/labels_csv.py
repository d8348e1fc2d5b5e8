"""All train points of a run as CSV, the most probably wrong label first.

Spreadsheets run a cell that begins with one of = + - @ as a formula. A path that does is written as ./path, which opens
the same file; a class name gets an apostrophe in front.
"""

import posixpath
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from autodo.io.storage import Location, StrPath, as_location
from autodo.io.uri import is_uri
from reports.formats.tidy import BEGINS_FORMULA, without_formula
from reports.label_errors.ranked_labels import RankedLabels


def write_labels(labels: RankedLabels, file: StrPath | Location, folder: str | None = None) -> None:
    """Write the columns rank, index, path, given, proposed, score, weight, loss, soft_label, prediction, known_wrong.

    Unknown values are empty. Every text is quoted.

    Args:
        folder: of the files in `source`; see `image_folder`.
    Raises:
        StoreError: if the file cannot be written.
    """
    names = pa.array([without_formula(name) for name in labels.class_names], pa.string())

    def named(numbers: np.ndarray) -> pa.Array:
        return names.take(pa.array(numbers))

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
    """The folder of a run's images: its dataset.path, or the folder of that CSV; None without one."""
    if not dataset_path:
        return None
    folder = posixpath.dirname(dataset_path) if dataset_path.lower().endswith(".csv") else dataset_path
    return folder if is_uri(folder) else str(Path(folder).expanduser())


def path_of(source: str, folder: str | None = None) -> str:
    """The path of a point's file, which no spreadsheet takes for a formula."""
    path = posixpath.join(folder, source) if folder else source
    return f"./{path}" if path.startswith(BEGINS_FORMULA) else path
