"""Allowed values of the columns of a store, and checks that find others."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from autodo.text import CONTROL_CHARACTERS

Rows = NDArray[np.bool_]

_FINITE = float(np.finfo(np.float32).max)  # also a bound of float32 columns


class UnusableFile(ValueError):
    """A file of a store that must be left out; the text says why."""


@dataclasses.dataclass(frozen=True)
class AllowedRange:
    """Numbers from `low` to `high`; in a column of lists, of each element.

    Args:
        essential: a row without a valid value is useless. In other columns an invalid value becomes null.
        nullable: null is a valid value of an essential column.
    """

    low: float
    high: float
    essential: bool = False
    nullable: bool = False


_SHARE, _AMOUNT, _FREE = AllowedRange(0, 1), AllowedRange(0, _FINITE), AllowedRange(-_FINITE, _FINITE)
_NEEDED_SHARE, _NEEDED_AMOUNT = AllowedRange(0, 1, essential=True), AllowedRange(0, _FINITE, essential=True)
_TESTED_SHARE = dataclasses.replace(_NEEDED_SHARE, nullable=True)  # null in epochs that were not tested
_PROBABILITY = AllowedRange(0, 1 + 1e-4)  # float32 rounding
_EPOCH = AllowedRange(0, 10**6)  # trainings have 200 to 10,000

RANGES: dict[str, dict[str, AllowedRange]] = {
    "results": {
        "imbalance_ratio": AllowedRange(1, _FINITE, essential=True),
        "noise_ratio": _NEEDED_SHARE,
        "seed": _NEEDED_AMOUNT,
        **dict.fromkeys(("error_best_val", "error_last"), _NEEDED_SHARE),
        "error_best_test": _TESTED_SHARE,
        # Null if the test set has no image of these classes.
        **dict.fromkeys(("minority_error", "majority_error", "per_class_accuracy"), _SHARE),
        **dict.fromkeys(("best_val_epoch", "epochs"), _EPOCH),
        **dict.fromkeys(("train_points", "val_points", "test_points", "wrong_labels"), _AMOUNT),
        **dict.fromkeys(("seconds", "inner_seconds", "outer_seconds", "images_per_second"), _AMOUNT),
        **dict.fromkeys(("peak_memory_bytes", "host_cpus", "slots", "load_average"), _AMOUNT),
    },
    "epochs": {
        "epoch": dataclasses.replace(_EPOCH, essential=True),
        "val_error": _NEEDED_SHARE,
        "test_error": _TESTED_SHARE,
        # May be infinite: training continues if the loss of a val or test image is.
        **dict.fromkeys(("train_loss", "val_loss", "test_loss"), _FREE),
        "per_class_accuracy": _SHARE,
        **dict.fromkeys(("lr", "inner_seconds", "outer_seconds", "eval_seconds"), _AMOUNT),
        **dict.fromkeys(("images_per_second", "peak_memory_bytes"), _AMOUNT),
    },
    "predictions": {
        **dict.fromkeys(("index", "label", "prediction"), _NEEDED_AMOUNT),
        "probability": _PROBABILITY,
    },
    "points": {
        **dict.fromkeys(("index", "label", "clean_label", "prediction"), _NEEDED_AMOUNT),
        **dict.fromkeys(("weight", "loss", "magnitude", "top_classes"), _AMOUNT),
        **dict.fromkeys(("soft_label", "gate_probability", "top_probabilities"), _PROBABILITY),
    },
    "embeddings": {
        **dict.fromkeys(("index", "label", "prediction"), _NEEDED_AMOUNT),
        "embedding": dataclasses.replace(_FREE, essential=True),
    },
}
"""By kind and column. Columns without an entry may hold any value of their dtype."""

_CONTROL_CHARACTERS = re.sub(r"\\[xu]([0-9a-f]+)", r"\\x{\1}", CONTROL_CHARACTERS)  # in the syntax of RE2


def with_control_characters(texts: pa.ChunkedArray) -> Rows:
    """Rows of a column of strings, or of lists of strings, with a control character. Shape: -> [rows]."""

    def holds(values: pa.ChunkedArray) -> Rows:
        found: Rows = pc.fill_null(pc.match_substring_regex(values, _CONTROL_CHARACTERS), False).to_numpy()
        return found

    return _of_any_element(texts, holds)


def labels_of(table: pa.Table, names: Sequence[str], classes: int) -> list[NDArray[np.int64]]:
    """Columns of labels.

    Raises:
        UnusableFile: if one is not in 0..classes-1.
    """
    columns = [table[name].to_numpy() for name in names]
    if any(not np.isin(column, np.arange(classes)).all() for column in columns):
        raise UnusableFile(f"it has a label that none of its {classes} classes has")
    return [column.astype(np.int64) for column in columns]


def out_of_range(column: pa.ChunkedArray, allowed: AllowedRange) -> Rows:
    """Rows with a number, or a list with a number, outside the allowed range; NaN always is.

    Null is allowed unless the range is essential; as an element of a list it always is.

    Shape:
        column [rows] -> [rows].
    """

    def outside(values: pa.ChunkedArray) -> Rows:
        numbers = values.to_numpy()
        with np.errstate(over="ignore"):  # a bound beyond float32 becomes infinite
            bad: Rows = ~((numbers >= allowed.low) & (numbers <= allowed.high))
        return bad & values.is_valid().to_numpy() if values.null_count else bad

    bad = _of_any_element(column, outside)
    null_is_bad = allowed.essential and not allowed.nullable
    return bad | column.is_null().to_numpy() if null_is_bad and column.null_count else bad


def _of_any_element(column: pa.ChunkedArray, test: Callable[[pa.ChunkedArray], Rows]) -> Rows:
    if not pa.types.is_list(column.type):
        return test(column)
    rows = np.zeros(len(column), dtype=bool)
    found = test(pc.list_flatten(column))
    if found.any():
        rows[pc.list_parent_indices(column).to_numpy()[found]] = True
    return rows


def with_nulls(table: pa.Table, name: str, rows: Rows) -> pa.Table:
    """The table with a column set to null in these rows."""
    place, field = table.schema.get_field_index(name), table.schema.field(name)
    return table.set_column(place, field, pc.if_else(pa.array(rows), pa.scalar(None, field.type), table[name]))


def fault(name: str, value: Any, allowed: AllowedRange) -> str:
    """Error text for a value out of range, such as `error_last is 1.2, more than 1`."""
    if isinstance(value, list):
        return f"{name} holds a number that is not from {allowed.low:g} to {allowed.high:g}"
    if value is None or not math.isfinite(value):
        return f"{name} is not a number"
    if value < allowed.low:
        return f"{name} is {value:g}, less than {allowed.low:g}"
    return f"{name} is {value:g}, more than {allowed.high:g}"


def as_declared(values: pa.ChunkedArray, declared: pa.DataType) -> pa.ChunkedArray:
    """Cast a column to the dtype in `records.SCHEMAS`.

    Raises:
        pa.ArrowException: if that would change a value.
    """
    if values.type == declared:
        return values
    if is_text(values.type) != is_text(declared) and not pa.types.is_null(values.type):
        raise pa.ArrowTypeError(f"it is {values.type}, not {declared}")
    return values.cast(declared)


def is_text(dtype: pa.DataType) -> bool:
    """Whether a column holds strings or lists of strings."""
    while pa.types.is_dictionary(dtype) or pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        dtype = dtype.value_type
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype))
