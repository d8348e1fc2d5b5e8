"""Classes of the runs of a cell: their names, the minority among them, and the worst one."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from autodo.text import count_of
from reports.document import Floats

_NAMED = 12  # classes that a sentence names
_RULE = (
    "the classes that the synthetic imbalance reduced or, if it reduced none, those with fewer train images than the "
    "mean"
)
_NONE = (
    "There is no minority: no synthetic imbalance reduced a class, and the largest class has less than 1.5 times the "
    "train images of the smallest."
)


def class_names(runs: pd.DataFrame) -> tuple[str, ...]:
    """The names of the classes, from the first run that has them; numbers where none has.

    Args:
        runs: rows of results of one cell.
    """
    for names in runs["class_names"]:
        if listed(names):
            return tuple(str(name) for name in listed(names))
    lengths = [len(listed(accuracy)) for accuracy in runs["per_class_accuracy"]]
    return tuple(str(i) for i in range(max(lengths, default=0)))


def listed(value: object) -> list[Any]:
    """A list column's value, which pandas gives as an array, and as something else where it is null."""
    return list(value) if _is_list(value) else []


def class_accuracies(runs: pd.DataFrame, classes: int) -> Floats:
    """Test accuracy of each class in percent; NaN where a test set lacks the class, or a run has other classes.

    Shape:
        runs [R] -> [R, classes].
    """
    unknown = [None] * classes
    rows = [values if len(values := listed(given)) == classes else unknown for given in runs["per_class_accuracy"]]
    found = np.array(rows, dtype=np.float64).reshape(len(runs), classes)
    return 100 * np.where(np.isfinite(found), found, np.nan)


def worst_class(accuracies: Floats) -> int | None:
    """The class of the lowest mean accuracy over the runs that have it; None if no run has any.

    One class for all seeds of a method: the lowest accuracy of each seed would be of another class each time, and lower
    by chance the fewer test images a class has.

    Shape:
        accuracies [R, C], NaN where unknown.
    """
    known = np.isfinite(accuracies)
    if not known.any():
        return None
    count = known.sum(axis=0)
    mean = np.where(known, accuracies, 0.0).sum(axis=0) / np.maximum(count, 1)
    return int(np.argmin(np.where(count > 0, mean, np.inf)))


# ----- minority


def with_minority(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the column `minority_labels`: those of the minority classes of their cell; () if there are none.

    A cell has one minority. `minority_error` and `majority_error` are null in runs that had another, or whose own is
    unknown: they are not pooled with the others.

    Args:
        runs: with the columns `group` and `distortion`.
    """
    own = [_own_minority(*row) for row in zip(*(runs[name] for name in _OF_OWN), strict=True)]
    frame = runs.assign(minority_labels=pd.Series(own, index=runs.index, dtype=object))
    stated = frame["minority_classes"].map(_is_list)
    of_cells = {}
    for cell, of_cell in frame.groupby(["group", "distortion"], sort=False):
        for known in (of_cell.loc[stated[of_cell.index], "minority_labels"], of_cell["minority_labels"]):
            if counted := Counter(minority for minority in known if minority is not None):
                of_cells[cell] = counted.most_common(1)[0][0]
                break
    cells = [of_cells.get(cell, ()) for cell in zip(frame["group"], frame["distortion"], strict=True)]
    other = np.array([mine != theirs for mine, theirs in zip(own, cells, strict=True)], dtype=bool)
    frame["minority_labels"] = pd.Series(cells, index=frame.index, dtype=object)
    for name in ("minority_error", "majority_error"):
        frame[name] = frame[name].astype(float).mask(other)
    return frame


_OF_OWN = ("minority_classes", "imbalance_ratio", "class_names", "per_class_accuracy")


def _own_minority(
    minority_classes: object, imbalance_ratio: float, class_names: object, accuracies: object
) -> tuple[int, ...] | None:
    """Labels of the minority by which a run computed its errors; None if these need not be rare, or nobody knows."""
    if _is_list(minority_classes):
        return tuple(int(label) for label in listed(minority_classes))
    # An older run took the upper half of the labels, which are the rare ones only if the imbalance made them so.
    classes = len(listed(class_names)) or len(listed(accuracies))
    return tuple(range(classes // 2, classes)) if imbalance_ratio > 1 and classes else None


def _is_list(value: object) -> TypeGuard[Iterable[Any]]:
    return isinstance(value, np.ndarray | list | tuple)


def with_metric(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The runs of cells that have a metric: errors of the minority only those with a minority.

    Args:
        runs: from `with_minority`.
    """
    return runs[runs["minority_labels"].map(bool)] if metric == "minority_error" else runs


def minority(runs: pd.DataFrame) -> tuple[int, ...]:
    """Labels of the minority classes of the runs of one cell, from `with_minority`; () if there are none."""
    return next(iter(runs["minority_labels"]), ())


def majority_first(runs: pd.DataFrame, classes: int) -> tuple[list[int], int | None]:
    """The labels in the order of a figure, majority before minority, and where in it the minority begins.

    Returns:
        None for the latter if there is no minority, or no majority.
    """
    rare = [label for label in minority(runs) if label < classes]
    common = [label for label in range(classes) if label not in rare]
    return [*common, *rare], len(common) if rare and common else None


def minority_sentence(runs: pd.DataFrame) -> str:
    """A sentence that names the minority classes of the runs of one cell; empty if there are none."""
    rare = minority(runs)
    return f"Minority: {some_names(class_names(runs), rare)}." if rare else ""


def some_names(names: Sequence[str], labels: Sequence[int]) -> str:
    """The names of the first classes of these labels, and how many more there are: `cat, dog and 38 more`.

    Args:
        names: of all classes by label; a label without a name stands for itself.
    """
    shown = [names[label] if label < len(names) else str(label) for label in labels[:_NAMED]]
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"{', '.join(shown)}{more}"


def minority_notes(runs: pd.DataFrame) -> list[str]:
    """Notes for a table with figures of the minority: its classes, the rule, and the older runs.

    Args:
        runs: of one cell, from `with_minority`.
    """
    done = runs[runs["error_best_val"].notna()]
    if done.empty:
        return []
    older = done[~done["minority_classes"].map(_is_list)]
    rare = minority(done)
    sentence = f"{minority_sentence(done)[:-1]}: {_RULE}." if rare else _NONE if len(older) < len(done) else ""
    return [*([sentence] if sentence else []), *_older_notes(older, rare), *_other_notes(done.drop(older.index), rare)]


def _older_notes(older: pd.DataFrame, rare: tuple[int, ...]) -> Iterable[str]:
    own = [_own_minority(*row) for row in zip(*(older[name] for name in _OF_OWN), strict=True)]
    kept = sum(minority == rare for minority in own if minority)
    if kept:
        yield (
            f"Labels C/2..C-1, older run: {count_of(kept, 'run')} took this half for the minority, here the same "
            "classes."
        )
    if left_out := len(older) - kept:
        yield (
            f"Labels C/2..C-1, older run: {count_of(left_out, 'run')} took this half for the minority whatever its "
            "counts; their minority and majority are left out."
        )


def _other_notes(done: pd.DataFrame, rare: tuple[int, ...]) -> Iterable[str]:
    others = sum(tuple(listed(given)) != rare for given in done["minority_classes"])
    if others:
        yield f"Minority and majority of {count_of(others, 'run')} are left out: other classes are the minority there."
