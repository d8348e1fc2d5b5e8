"""What a run's points table says of each train point's label, read a part at a time so that C takes no memory."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]

REQUIRED = ("index", "label", "clean_label", "prediction", "loss")
OPTIONAL = ("source", "weight", "soft_label", "top_classes", "top_probabilities")
"""Null in every row for methods that do not learn it; absent in files that are older than the column."""
UNKNOWN = -1
"""In place of a class, where there is no proposal."""
ROWS_AT_ONCE = 65_536
"""Rows of a table whose lists of C values are looked at together."""


class UnusableSignals(ValueError):
    """A points table that is not what it should be; the text says which column and why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Signals:
    """One row a train point, in the order of the table.

    Args:
        given: the label that training saw; clean: the label before the distortion.
        loss: cross-entropy of the given label after the last epoch.
        weight, soft_label: learned weight, and the learned probability of the given label; None if not learned.
        proposed: the network's most probable class but the given one; UNKNOWN if the table does not tell.
        top_classes, top_probabilities: the k most probable classes of the network; None in older files.
    Shape:
        top_classes [N, k] int64, top_probabilities [N, k]; all others [N].
    """

    classes: int
    index: Integers
    source: pa.Array
    given: Integers
    clean: Integers
    prediction: Integers
    loss: Floats
    weight: Floats | None
    soft_label: Floats | None
    proposed: Integers
    top_classes: Integers | None
    top_probabilities: Floats | None

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """Which labels the distortion changed; None if it changed none, because then nobody knows."""
        wrong: NDArray[np.bool_] = self.given != self.clean
        return wrong if wrong.any() else None

    @functools.cached_property
    def probabilities(self) -> Floats:
        """The network's probabilities [N, C]; what the k kept classes leave is spread evenly over the others."""
        assert self.top_classes is not None
        assert self.top_probabilities is not None
        kept = self.top_classes.shape[1]
        rest = np.clip(1 - self.top_probabilities.sum(1, dtype=np.float64), 0, None) / max(self.classes - kept, 1)
        filled = np.repeat(rest[:, None], self.classes, axis=1)
        np.put_along_axis(filled, self.top_classes, self.top_probabilities, axis=1)
        return filled


def read_signals(batches: Iterable[pa.RecordBatch], classes: int) -> Signals:
    """The signals of a points table that comes in parts.

    Args:
        batches: with the columns REQUIRED, and OPTIONAL where the table has them.
        classes: C.
    Raises:
        UnusableSignals: if a column is missing or holds what cannot be.
    """
    parts = [_part(batch, classes) for batch in batches if len(batch)]
    if not parts:
        raise UnusableSignals("it has no rows")
    columns = {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}
    if len(np.unique(columns["index"])) != len(columns["index"]):
        raise UnusableSignals("index: a train point stands in it twice")
    return Signals(classes=classes, **columns)


def _joined(name: str, parts: list[Any]) -> Any:
    if all(part is None for part in parts):
        return None
    if name == "source":
        return pa.concat_arrays(parts)
    if any(part is None for part in parts):
        raise UnusableSignals(f"{name}: null in some rows")
    if len({part.shape[1:] for part in parts}) > 1:
        raise UnusableSignals(f"{name}: not as many values in each row")
    return np.concatenate(parts)


def _part(batch: pa.RecordBatch, classes: int) -> dict[str, Any]:
    for name in REQUIRED:
        if name not in batch.schema.names:
            raise UnusableSignals(f"it has no column {name!r}, as runs of older versions; only a new run has")
    try:
        return _columns(batch, classes)
    except pa.ArrowException as error:  # such as a text where a number should be
        raise UnusableSignals((str(error).splitlines() or [type(error).__name__])[0]) from None


def _columns(batch: pa.RecordBatch, classes: int) -> dict[str, Any]:
    given = _labels(batch, "label", classes)
    loss = _numbers(batch, "loss")
    weight, soft = _numbers(batch, "weight"), _matrix(batch, "soft_label")
    top_classes, top_probabilities = _top(batch, classes)
    if loss is None:
        raise UnusableSignals("loss: null")
    if soft is not None and soft.shape[1] != classes:
        raise UnusableSignals(f"soft_label: {soft.shape[1]} values, but {classes} classes")
    prediction = _labels(batch, "prediction", classes)
    rows = np.arange(len(given))
    source = batch.column("source") if "source" in batch.schema.names else pa.nulls(len(given))
    return {
        "index": _integers(batch, "index"),
        "source": source.cast(pa.string()),
        "given": given,
        "clean": _labels(batch, "clean_label", classes),
        "prediction": prediction,
        "loss": loss,
        "weight": weight,
        "soft_label": None if soft is None else soft[rows, given].astype(np.float64),
        "proposed": _proposed(given, prediction, soft, top_classes, top_probabilities),
        "top_classes": top_classes,
        "top_probabilities": top_probabilities,
    }


def _proposed(
    given: Integers, prediction: Integers, soft: Any, top_classes: Integers | None, top_probabilities: Floats | None
) -> Integers:
    """The network's choice: better than the soft label's, even where that moved (docs/how-to/find-label-errors.md)."""
    rows = np.arange(len(given))
    if top_classes is not None and top_probabilities is not None and top_classes.shape[1] > 1:
        others = np.where(top_classes == given[:, None], -1.0, top_probabilities)
        return top_classes[rows, others.argmax(1)]
    if soft is None:
        return np.where(prediction != given, prediction, UNKNOWN)
    others = soft.copy()
    others[rows, given] = -1
    return np.where(prediction != given, prediction, others.argmax(1))


def _top(batch: pa.RecordBatch, classes: int) -> tuple[Integers, Floats] | tuple[None, None]:
    """Numbers and probabilities of the kept classes."""
    numbers, probabilities = _matrix(batch, "top_classes"), _matrix(batch, "top_probabilities")
    if numbers is None or probabilities is None:
        return None, None
    if numbers.shape != probabilities.shape:
        raise UnusableSignals("top_classes: not one for each of top_probabilities")
    if numbers.min() < 0 or numbers.max() >= classes or (np.diff(np.sort(numbers, axis=1), axis=1) == 0).any():
        raise UnusableSignals(f"top_classes: not different classes of 0..{classes - 1}")
    # Sums of float32.
    if probabilities.min() < 0 or (probabilities.sum(1) > 1 + 1e-3).any():
        raise UnusableSignals("top_probabilities: not probabilities")
    return numbers.astype(np.int64), probabilities


def _integers(batch: pa.RecordBatch, name: str) -> Integers:
    column = batch.column(name).cast(pa.int64())
    if column.null_count:
        raise UnusableSignals(f"{name}: null")
    return np.asarray(column)


def _labels(batch: pa.RecordBatch, name: str, classes: int) -> Integers:
    labels = _integers(batch, name)
    if labels.min() < 0 or labels.max() >= classes:
        raise UnusableSignals(f"{name}: {labels.min()}..{labels.max()}, but classes are 0..{classes - 1}")
    return labels


def _numbers(batch: pa.RecordBatch, name: str) -> Floats | None:
    """A column of numbers; None if it is null throughout, or absent."""
    if name not in batch.schema.names or batch.column(name).null_count == len(batch):
        return None
    return _known(name, batch.column(name).cast(pa.float64()))


def _matrix(batch: pa.RecordBatch, name: str) -> Floats | None:
    """A column of lists of one length [n, K] float32; None if it is null throughout, or absent."""
    if name not in batch.schema.names or batch.column(name).null_count == len(batch):
        return None
    column = batch.column(name)
    lengths = pc.unique(pc.list_value_length(column))
    if column.null_count or len(lengths) != 1 or not lengths[0].as_py():
        raise UnusableSignals(f"{name}: not as many values in each row")
    return _known(name, column.flatten().cast(pa.float32())).reshape(len(batch), -1)


def _known(name: str, column: pa.Array) -> Floats:
    values = np.asarray(column)
    if column.null_count or np.isnan(values).any():
        raise UnusableSignals(f"{name}: not a number in some rows")
    return values
