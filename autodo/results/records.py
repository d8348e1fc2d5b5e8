"""Names and dtypes of every Parquet column, written and read in one place.

One run writes four tables, and `embeddings` on request; `results` is written last, so a run is done if and only if its
results file exists. Files of older versions may lack `top_classes`, `top_probabilities` and `thumbnail`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from autodo.io.atomic import atomic_path
from autodo.io.storage import StrPath

TOP_CLASSES = 10
"""Classes of a train point that are kept with their probability; all of them if there are fewer."""

Kind = Literal["results", "epochs", "predictions", "points", "embeddings"]

_IDENTITY = [
    ("run_id", pa.string()),
    ("dataset", pa.string()),
    ("split", pa.string()),
    ("method", pa.string()),
    ("model", pa.string()),
    ("imbalance_ratio", pa.float64()),
    ("noise_ratio", pa.float64()),
    ("seed", pa.int64()),
    ("recipe_id", pa.string()),  # what a comparison holds fixed: RunConfig.recipe_id
    ("variant_id", pa.string()),  # the method's own settings: RunConfig.variant_id
]

SCHEMAS: dict[Kind, pa.Schema] = {
    # One row a run. Errors and accuracies are shares in [0, 1] of the test set.
    "results": pa.schema(
        [
            *_IDENTITY,
            # Test error of the classifier, the headline: at the epoch of lowest val error, or after the last epoch if
            # the run selects that one or solves its head. Null, like all test values, if there were no test images.
            ("error_best_val", pa.float64()),
            ("error_last", pa.float64()),  # after the last epoch, with the head that was trained
            # Lowest over epochs on the test set itself: optimistic. Null if some epochs were not tested (`test_every`).
            ("error_best_test", pa.float64()),
            ("best_val_epoch", pa.int64()),  # of the classifier, from 0
            ("minority_error", pa.float64()),  # of the minority classes, at best_val_epoch; null if there are none
            ("majority_error", pa.float64()),  # of the others; likewise
            # Labels of the minority classes: autodo.data.minority. Null in older runs, which took C//2..C-1.
            ("minority_classes", pa.list_(pa.int64())),
            ("per_class_accuracy", pa.list_(pa.float64())),  # at best_val_epoch, in class order
            ("class_names", pa.list_(pa.string())),
            ("train_points", pa.int64()),
            ("val_points", pa.int64()),
            ("test_points", pa.int64()),
            ("wrong_labels", pa.int64()),  # train points whose label is not the clean one
            ("epochs", pa.int64()),
            ("seconds", pa.float64()),  # training time over all attempts, evaluation included
            ("inner_seconds", pa.float64()),
            ("outer_seconds", pa.float64()),
            ("images_per_second", pa.float64()),  # train images over inner_seconds
            (
                "peak_memory_bytes",
                pa.int64(),
            ),  # of the GPU in this run; on a CPU, of the process so far; largest worker's
            ("device", pa.string()),  # of one worker, and how many there were
            # What the times were measured under; null outside of a launch. Older runs lack these columns.
            ("launch_id", pa.string()),
            ("host", pa.string()),
            ("host_cpus", pa.int64()),  # CPU cores of the host
            ("slots", pa.int64()),  # runs that the launch had at work at a time, at most
            ("load_average", pa.float64()),  # of the host over the minute before the run began
            (
                "resumed",
                pa.bool_(),
            ),  # whether the run went on from a checkpoint, so that its times are of several attempts
            ("git_sha", pa.string()),  # with "-dirty" if the work tree had changes; null outside a checkout
            ("versions", pa.map_(pa.string(), pa.string())),  # of libraries and plug-ins; of a file its hash
            ("finished_at", pa.timestamp("us", tz="UTC")),
            ("config", pa.string()),  # the RunConfig as JSON
        ]
    ),
    # One row an epoch.
    "epochs": pa.schema(
        [
            *_IDENTITY,
            ("epoch", pa.int64()),  # from 0
            ("train_loss", pa.float64()),
            ("val_loss", pa.float64()),
            ("val_error", pa.float64()),
            ("test_loss", pa.float64()),  # this and the next two: null in epochs that were not tested (`test_every`)
            ("test_error", pa.float64()),
            ("per_class_accuracy", pa.list_(pa.float64())),
            ("outer_phase", pa.bool_()),  # this epoch ended with an outer pass
            ("lr", pa.float64()),  # inner, at the epoch's last step
            ("inner_seconds", pa.float64()),
            ("outer_seconds", pa.float64()),
            ("eval_seconds", pa.float64()),
            ("images_per_second", pa.float64()),
            ("peak_memory_bytes", pa.int64()),
        ]
    ),
    # One row a test image, at best_val_epoch.
    "predictions": pa.schema(
        [
            ("run_id", pa.string()),
            ("index", pa.int64()),  # position in the test set
            ("label", pa.int16()),
            ("prediction", pa.int16()),
            ("probability", pa.float32()),  # of the prediction
        ]
    ),
    # One row a train point, after the last epoch.
    "points": pa.schema(
        [
            ("run_id", pa.string()),
            ("index", pa.int64()),  # position in the original train set
            ("source", pa.string()),  # file of the image, for folders; else null
            ("label", pa.int16()),  # the observed label, that training saw
            ("clean_label", pa.int16()),  # the label before the distortion, or the CSV's clean_label
            ("weight", pa.float32()),  # learned loss weight; null if not learned
            ("soft_label", pa.list_(pa.float32())),  # [C]; null if not learned
            ("prediction", pa.int16()),  # of the network after the last epoch, unaugmented
            ("loss", pa.float32()),  # cross-entropy of the observed label, likewise
            ("top_classes", pa.list_(pa.int16())),  # the TOP_CLASSES most probable, likewise, best first
            ("top_probabilities", pa.list_(pa.float32())),  # of each of them
            ("gate_probability", pa.list_(pa.float32())),  # of each affine operation; null if not learned
            ("magnitude", pa.list_(pa.float32())),  # standard deviation of each affine operation; likewise
            (
                "thumbnail",
                pa.binary(),
            ),  # PNG of the most suspicious points: autodo.results.thumbnails; null for the others
        ]
    ),
    # One row a test image, at best_val_epoch; only on request.
    "embeddings": pa.schema(
        [
            ("run_id", pa.string()),
            ("index", pa.int64()),  # position in the test set
            ("label", pa.int16()),
            ("prediction", pa.int16()),
            ("embedding", pa.list_(pa.float32())),  # output of the encoder
        ]
    ),
}

CONDITIONS = ("launch_id", "host", "host_cpus", "slots", "load_average", "resumed")
"""Columns of results that describe the conditions of the time measurements."""

_identity_names = {name for name, _ in _IDENTITY}
EPOCH_SCALARS = tuple(
    field.name
    for field in SCHEMAS["epochs"]
    if field.name not in _identity_names and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
)
"""Columns of an epoch that make a curve over `epoch`: losses, errors, learning rate, times."""


def table(kind: Kind, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of a schema; every row must have every column.

    Raises:
        KeyError: if a row lacks a column. ValueError: if it has one that the schema does not know.
    """
    schema = SCHEMAS[kind]
    for row in rows:
        unknown = row.keys() - set(schema.names)
        if unknown:
            raise ValueError(f"{kind} has no columns {sorted(unknown)}")
    return pa.table({name: pa.array([row[name] for row in rows], schema.field(name).type) for name in schema.names})


def write(kind: Kind, rows: pa.Table, path: StrPath) -> None:
    """Writes a table of `kind` atomically: a reader sees the old file, the new one, or none.

    Raises:
        ValueError: if the table is not of the kind's schema. OSError: if the file cannot be written.
    """
    if not rows.schema.equals(SCHEMAS[kind]):
        raise ValueError(f"not a table of {kind}: {rows.schema}")
    with atomic_path(Path(path)) as temporary:
        pq.write_table(rows, temporary, write_page_checksum=True)  # so that a reader detects a flipped bit
