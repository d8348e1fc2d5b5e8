"""Classes of the runs of a cell: names, accuracies, the minority and the worst class."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from autodo.text import count_of
from reports.document import Floats

_NAMED = 12  # class names in a sentence
_RULE = (
    "the classes that the synthetic imbalance reduced or, if it reduced none, those with fewer train images than the "
    "mean"
)
_RULE_OF_A_LONG_TAIL = "the classes with fewer train images than the mean"
_NONE = (
    "There is no minority: no synthetic imbalance reduced a class, and the largest class has less than 1.5 times the "
    "train images of the smallest."
)


def class_names(runs: pd.DataFrame) -> tuple[str, ...]:
    """The names of the classes, from the first run that has them; numbers if none has.

    Args:
        runs: rows of results of one cell.
    """
    for names in runs["class_names"]:
        if as_list(names):
            return tuple(str(name) for name in as_list(names))
    lengths = [len(as_list(accuracy)) for accuracy in runs["per_class_accuracy"]]
    return tuple(str(i) for i in range(max(lengths, default=0)))


def as_list(value: object) -> list[Any]:
    """A value of a list column, which pandas reads as an array; [] if it is null."""
    return list(value) if _is_list(value) else []


def class_accuracies(runs: pd.DataFrame, classes: int) -> Floats:
    """Test accuracy of each class in percent; NaN if the test set lacks the class, or the run has other classes.

    Shape:
        runs [R] -> [R, classes].
    """
    unknown = [None] * classes
    rows = [values if len(values := as_list(given)) == classes else unknown for given in runs["per_class_accuracy"]]
    found = np.array(rows, dtype=np.float64).reshape(len(runs), classes)
    return 100 * np.where(np.isfinite(found), found, np.nan)


def worst_class(accuracies: Floats) -> int | None:
    """The class with the lowest mean accuracy over runs; None if no accuracy is known.

    One class for all seeds of a method: the lowest accuracy of each seed would be biased low, the more the fewer test
    images a class has.

    Shape:
        accuracies [R, C], NaN where unknown.
    """
    mean = pd.DataFrame(accuracies).mean().to_numpy()
    return int(np.nanargmin(mean)) if np.isfinite(mean).any() else None


def spread_over_classes(accuracies: object) -> float:
    """Standard deviation (ddof = 0) of the accuracy over the classes with test images; NaN if there is none.

    Args:
        accuracies: value of a list column.
    """
    values = np.asarray(as_list(accuracies), dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(values.std()) if values.size else float("nan")


# ----- minority


def with_minority(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the column `minority_labels`, the minority classes of their cell; () if there are none.

    A cell has one minority, that of most of its runs. `minority_error` and `majority_error` become null in runs with
    another or an unknown one, so that they are not pooled with the rest.

    Args:
        runs: with the columns `group` and `distortion`.
    """
    own = [tuple(map(int, labels)) if _is_list(labels) else None for labels in runs["minority_classes"]]
    cells = list(zip(runs["group"], runs["distortion"], strict=True))
    counts: dict[tuple[str, str], Counter[tuple[int, ...]]] = {cell: Counter() for cell in cells}
    for cell, labels in zip(cells, own, strict=True):
        counts[cell].update([] if labels is None else [labels])
    common = {cell: count.most_common(1)[0][0] if count else () for cell, count in counts.items()}
    of_cells = [common[cell] for cell in cells]
    differs = np.array([mine != theirs for mine, theirs in zip(own, of_cells, strict=True)], dtype=bool)
    frame = runs.assign(minority_labels=pd.Series(of_cells, index=runs.index, dtype=object))
    for name in ("minority_error", "majority_error"):
        frame[name] = frame[name].astype(float).mask(differs)
    return frame


def _is_list(value: object) -> TypeGuard[Iterable[Any]]:
    return isinstance(value, np.ndarray | list | tuple)


def with_metric(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The runs of cells that have a metric; `minority_error` only exists in cells with a minority.

    Args:
        runs: from `with_minority`.
    """
    return runs[runs["minority_labels"].map(bool)] if metric == "minority_error" else runs


def minority(runs: pd.DataFrame) -> tuple[int, ...]:
    """Labels of the minority classes of the runs of one cell, from `with_minority`; () if there are none."""
    return next(iter(runs["minority_labels"]), ())


def majority_first(runs: pd.DataFrame, classes: int) -> tuple[list[int], int | None]:
    """The labels with the majority before the minority, and the position of the first minority class.

    Returns:
        None for the position if there is no minority, or no majority.
    """
    rare = [label for label in minority(runs) if label < classes]
    common = [label for label in range(classes) if label not in rare]
    return [*common, *rare], len(common) if rare and common else None


def minority_sentence(runs: pd.DataFrame) -> str:
    """A sentence that names the minority classes of the runs of one cell; empty if there are none."""
    rare = minority(runs)
    return f"Minority: {first_names(class_names(runs), rare)}." if rare else ""


def first_names(names: Sequence[str], labels: Sequence[int]) -> str:
    """The names of the first of these classes and the number of the rest: `cat, dog and 38 more`.

    Args:
        names: of all classes by label; a label without a name is shown as a number.
    """
    shown = [names[label] if label < len(names) else str(label) for label in labels[:_NAMED]]
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"{', '.join(shown)}{more}"


def minority_notes(runs: pd.DataFrame) -> list[str]:
    """Notes for a table with figures of the minority: its classes, the rule, and runs that are left out.

    Args:
        runs: of one cell, from `reports.analysis.comparison.named`.
    """
    stated = [tuple(as_list(labels)) for labels in runs["minority_classes"] if _is_list(labels)]
    if not stated:
        return []
    rare = minority(runs)
    rule = _RULE_OF_A_LONG_TAIL if (runs["imbalance"] == "exponential").all() else _RULE
    notes = [f"{minority_sentence(runs)[:-1]}: {rule}." if rare else _NONE]
    if others := sum(labels != rare for labels in stated):
        notes.append(
            f"Minority and majority of {count_of(others, 'run')} are left out: other classes are the minority there."
        )
    return notes
