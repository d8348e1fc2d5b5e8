"""Checks of the rows of results: which can be used, and which of their values."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from autodo.text import printable
from reports.readers.column_checks import (
    RANGES,
    Rows,
    fault,
    is_text,
    out_of_range,
    with_control_characters,
    with_nulls,
)

ESSENTIAL = (
    *("run_id", "dataset", "split", "method", "imbalance_ratio", "noise_ratio", "seed", "recipe_id", "variant_id"),
    *("error_best_val", "error_last", "error_best_test", "config"),
)
"""Columns without which a run cannot be compared."""

# With the kinds of distortion, what the id of a run is a hash of.
_SAME_RUN = ("dataset", "recipe_id", "variant_id", "split", "imbalance_ratio", "noise_ratio", "seed")

_MOST_NESTED = 500  # opening brackets of a configuration, normally about 20; bounds recursion
_YEARS = (2000, 2200)


class CheckedRows:
    """Rows of results with the faults of each. Refused rows are left out; other faulty values become null."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows
        self.refused: dict[int, str] = {}
        """By position: why a row is left out."""
        self.remarks: dict[int, list[str]] = {}
        """By position: the values of a row that became null."""
        self._check_texts()
        self._check_numbers()
        self._check_times()
        self._check_classes()
        self._check_minority()
        self._check_configs()
        self._check_twice()

    @property
    def usable(self) -> pa.Table:
        """The rows that were not refused, faulty values null."""
        return self.rows.filter(pa.array([i not in self.refused for i in range(len(self.rows))], pa.bool_()))

    def _refuse(self, bad: Rows, why: Callable[[int], str]) -> None:
        for i in map(int, np.flatnonzero(bad)):
            self.refused.setdefault(i, why(i))

    def _remark(self, bad: Rows, why: Callable[[int], str]) -> None:
        for i in map(int, np.flatnonzero(bad)):
            self.remarks.setdefault(i, []).append(why(i))

    def _forget(self, name: str, bad: Rows, why: Callable[[int], str]) -> None:
        """Set a column to null in these rows and remark on it."""
        self._remark(bad, lambda i: f"{why(i)}: unknown")
        if bad.any():
            self.rows = with_nulls(self.rows, name, bad)

    def _check_texts(self) -> None:
        for field in self.rows.schema:
            column, name = self.rows[field.name], field.name
            if name in ESSENTIAL and pa.types.is_string(field.type):
                empty = pc.fill_null(pc.equal(column, ""), True).to_numpy()
                self._refuse(empty, lambda i, name=name: f"its {name} is unknown")  # type: ignore[misc]
            if name == "config" or not is_text(field.type):
                continue  # JSON may contain line breaks
            bad = with_control_characters(column)
            if name == "run_id":
                self._refuse(bad, lambda _: "its name holds control characters")
            elif bad.any():
                self._remark(bad, lambda _, name=name: f"its {name} holds control characters, which are escaped")  # type: ignore[misc]
                escaped = pa.chunked_array([pa.array(_escaped(column.to_pylist()), field.type)])
                self.rows = self.rows.set_column(self.rows.schema.get_field_index(name), field, escaped)

    def _check_numbers(self) -> None:
        for name, allowed in RANGES["results"].items():
            column = self.rows[name]

            def why(i: int, name: str = name, column: Any = column, allowed: Any = allowed) -> str:
                return f"its {fault(name, column[i].as_py(), allowed)}"

            bad = out_of_range(column, allowed)
            self._refuse(bad, why) if allowed.essential else self._forget(name, bad, why)

    def _check_times(self) -> None:
        year = pc.year(self.rows["finished_at"])
        odd = pc.or_(pc.less(year, _YEARS[0]), pc.greater(year, _YEARS[1]))
        bad = pc.fill_null(odd, False).to_numpy()
        self._forget("finished_at", bad, lambda i: f"its finished_at is in the year {year[i]}")

    def _check_classes(self) -> None:
        accuracies, names = (pc.list_value_length(self.rows[c]) for c in ("per_class_accuracy", "class_names"))
        bad = pc.fill_null(pc.not_equal(accuracies, names), False).to_numpy()
        self._forget("per_class_accuracy", bad, lambda i: f"it has {accuracies[i]} accuracies of {names[i]} classes")

    def _check_minority(self) -> None:
        classes = pc.list_value_length(self.rows["class_names"]).to_pylist()
        of_rows = zip(self.rows["minority_classes"].to_pylist(), classes, strict=True)
        bad = np.array([labels is not None and not _are_labels(labels, count) for labels, count in of_rows], dtype=bool)
        for name in ("minority_classes", "minority_error", "majority_error"):
            self._forget(name, bad, lambda i, name=name: f"its minority is not of its classes, so that {name}")  # type: ignore[misc]

    def _check_configs(self) -> None:
        for i, text in enumerate(self.rows["config"].to_pylist()):
            if i not in self.refused and not _is_config(text):
                self.refused[i] = "its config is not that of a run"

    def _check_twice(self) -> None:
        columns = [self.rows[name].to_pylist() for name in _SAME_RUN]
        first: dict[tuple[Any, ...], int] = {}
        ratios, configs = self.rows["imbalance_ratio"].to_pylist(), self.rows["config"].to_pylist()
        for i, columns_of_run in enumerate(zip(*columns, strict=True)):
            if i in self.refused:
                continue
            identity = (*columns_of_run, *distortion_kinds(ratios[i], configs[i]))
            if first.setdefault(identity, i) != i:
                self.refused[i] = f"it claims to be the same run as {self.rows['run_id'][first[identity]]}"


def _are_labels(labels: Sequence[int | None], classes: int | None) -> bool:
    return all(label is not None and label >= 0 and (classes is None or label < classes) for label in labels)


def _escaped(value: Any) -> Any:
    if isinstance(value, list):
        return [_escaped(element) for element in value]
    return None if value is None else printable(value)


def _is_config(text: str) -> bool:
    """Whether the text is JSON with the parts that name a recipe, not nested too deep."""
    if text.count("{") + text.count("[") > _MOST_NESTED:
        return False
    try:
        config = json.loads(text)
    except ValueError:
        return False
    if not isinstance(config, Mapping):
        return False
    model, training = config.get("model"), config.get("training")
    return isinstance(model, Mapping) and "name" in model and isinstance(training, Mapping) and "epochs" in training


class DistortionKinds(NamedTuple):
    """The settings of a run's distortion besides its ratios.

    Args:
        imbalance, noise: `distortion.imbalance` and `distortion.noise`.
        minority: `distortion.minority`; empty without a step imbalance, where nothing depends on it.
    """

    imbalance: str = "step"
    noise: str = "uniform"
    minority: str = ""


def distortion_kinds(imbalance_ratio: float, config: str) -> DistortionKinds:
    """The kinds of a run's distortion, from its configuration as JSON."""
    distortion = json.loads(config).get("distortion")
    if not isinstance(distortion, Mapping):
        return DistortionKinds()
    imbalance, noise = distortion.get("imbalance", "step"), distortion.get("noise", "uniform")
    minority = distortion.get("minority", "") if imbalance == "step" and imbalance_ratio > 1 else ""
    return DistortionKinds(*(printable(str(kind)) for kind in (imbalance, noise, minority)))
