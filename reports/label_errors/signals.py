"""Signals of wrong labels in the points table of a run, read in parts so that memory does not grow with C."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reports.readers.column_checks import UnusableFile

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]

COLUMNS = (
    *("index", "source", "label", "clean_label", "prediction", "loss", "weight", "soft_label"),
    *("top_classes", "top_probabilities"),
)
"""Columns of points that `read_signals` reads; `weight` and `soft_label` are null if the method does not learn them."""
ROWS_AT_ONCE = 65_536
"""Rows of a table whose lists of C values are read together."""


@dataclasses.dataclass(frozen=True, eq=False)
class Signals:
    """One row for each train point, in the order of the table.

    Args:
        index: position in the original train set; source: file of the image, null if it has none.
        given: the label that training saw.
        wrong: whether each label differs from the clean one; None if none does, so that the truth is unknown.
        loss: cross-entropy of the given label after the last epoch.
        weight, soft_label: learned weight, and the learned probability of the given label; None if not learned.
        proposed: the network's most probable class other than the given one.
        top_classes, top_probabilities: the k most probable classes of the network.
    Shape:
        top_classes [N, k] int64, top_probabilities [N, k]; all others [N].
    """

    classes: int
    index: Integers
    source: pa.Array
    given: Integers
    wrong: NDArray[np.bool_] | None
    prediction: Integers
    loss: Floats
    weight: Floats | None
    soft_label: Floats | None
    proposed: Integers
    top_classes: Integers
    top_probabilities: Floats

    @functools.cached_property
    def probabilities(self) -> Floats:
        """The network's probabilities [N, C]; the rest after the k stored classes is spread evenly over the others."""
        kept = self.top_classes.shape[1]
        rest = np.clip(1 - self.top_probabilities.sum(1, dtype=np.float64), 0, None) / max(self.classes - kept, 1)
        filled = np.repeat(rest[:, None], self.classes, axis=1)
        np.put_along_axis(filled, self.top_classes, self.top_probabilities, axis=1)
        return filled


def read_signals(batches: Iterable[pa.RecordBatch], classes: int) -> Signals:
    """The signals of a points table that comes in parts.

    Args:
        batches: with COLUMNS.
        classes: C.
    Raises:
        UnusableFile: if a column is missing or holds impossible values.
    """
    parts = [_part(batch, classes) for batch in batches if len(batch)]
    if not parts:
        raise UnusableFile("it has no rows")
    columns = {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}
    if len(np.unique(columns["index"])) != len(columns["index"]):
        raise UnusableFile("index: a train point occurs twice")
    wrong = columns["given"] != columns.pop("clean")
    return Signals(classes=classes, wrong=wrong if wrong.any() else None, **columns)


def _joined(name: str, parts: list[Any]) -> Any:
    if all(part is None for part in parts):
        return None
    if name == "source":
        return pa.concat_arrays(parts)
    if any(part is None for part in parts):
        raise UnusableFile(f"{name}: null in some rows")
    if len({part.shape[1:] for part in parts}) > 1:
        raise UnusableFile(f"{name}: not as many values in each row")
    return np.concatenate(parts)


def _part(batch: pa.RecordBatch, classes: int) -> dict[str, Any]:
    for name in COLUMNS:
        if name not in batch.schema.names:
            raise UnusableFile(f"it has no column {name!r}")
    try:
        return _columns(batch, classes)
    except pa.ArrowException as error:  # such as a text in place of a number
        raise UnusableFile((str(error).splitlines() or [type(error).__name__])[0]) from None


def _columns(batch: pa.RecordBatch, classes: int) -> dict[str, Any]:
    given = _labels(batch, "label", classes)
    soft = _matrix(batch, "soft_label")
    top_classes, top_probabilities = _top(batch, classes)
    if soft is not None and soft.shape[1] != classes:
        raise UnusableFile(f"soft_label: {soft.shape[1]} values, but {classes} classes")
    rows = np.arange(len(given))
    others = np.where(top_classes == given[:, None], -1.0, top_probabilities)
    return {
        "index": _integers(batch, "index"),
        "source": batch.column("source").cast(pa.string()),
        "given": given,
        "clean": _labels(batch, "clean_label", classes),
        "prediction": _labels(batch, "prediction", classes),
        "loss": _required("loss", _numbers(batch, "loss")),
        "weight": _numbers(batch, "weight"),
        "soft_label": None if soft is None else soft[rows, given].astype(np.float64),
        # Measured better than the highest class of the soft label (docs/results/label-errors.md).
        "proposed": top_classes[rows, others.argmax(1)],
        "top_classes": top_classes,
        "top_probabilities": top_probabilities,
    }


def _top(batch: pa.RecordBatch, classes: int) -> tuple[Integers, Floats]:
    """Numbers and probabilities of the stored classes."""
    numbers, probabilities = (_required(name, _matrix(batch, name)) for name in ("top_classes", "top_probabilities"))
    if numbers.shape != probabilities.shape:
        raise UnusableFile("top_classes: not one for each of top_probabilities")
    if numbers.min() < 0 or numbers.max() >= classes or (np.diff(np.sort(numbers, axis=1), axis=1) == 0).any():
        raise UnusableFile(f"top_classes: not different classes of 0..{classes - 1}")
    if probabilities.min() < 0 or (probabilities.sum(1) > 1 + 1e-3).any():  # float32 rounding
        raise UnusableFile("top_probabilities: not probabilities")
    return numbers.astype(np.int64), probabilities


def _required(name: str, values: Floats | None) -> Floats:
    if values is None:
        raise UnusableFile(f"{name}: null")
    return values


def _integers(batch: pa.RecordBatch, name: str) -> Integers:
    column = batch.column(name).cast(pa.int64())
    if column.null_count:
        raise UnusableFile(f"{name}: null")
    return np.asarray(column)


def _labels(batch: pa.RecordBatch, name: str, classes: int) -> Integers:
    labels = _integers(batch, name)
    if labels.min() < 0 or labels.max() >= classes:
        raise UnusableFile(f"{name}: {labels.min()}..{labels.max()}, but classes are 0..{classes - 1}")
    return labels


def _numbers(batch: pa.RecordBatch, name: str) -> Floats | None:
    """A column of numbers; None if all are null."""
    column = batch.column(name)
    return None if column.null_count == len(batch) else _known(name, column.cast(pa.float64()))


def _matrix(batch: pa.RecordBatch, name: str) -> Floats | None:
    """A column of lists of equal length [n, K] float32; None if all are null."""
    column = batch.column(name)
    if column.null_count == len(batch):
        return None
    lengths = pc.unique(pc.list_value_length(column))
    if column.null_count or len(lengths) != 1 or not lengths[0].as_py():
        raise UnusableFile(f"{name}: not as many values in each row")
    return _known(name, column.flatten().cast(pa.float32())).reshape(len(batch), -1)


def _known(name: str, column: pa.Array) -> Floats:
    values = np.asarray(column)
    if column.null_count or np.isnan(values).any():
        raise UnusableFile(f"{name}: not a number in some rows")
    return values
