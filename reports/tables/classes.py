"""Accuracy of minority, majority and worst class, and how much classes differ (section 5.3 of the paper)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.analysis.classes import class_accuracies, class_names, minority, minority_notes, worst_class
from reports.analysis.comparison import named
from reports.analysis.paper import paper_accuracies
from reports.document import Column, Reference, Table
from reports.keys import key
from reports.tables import cells

# Quantity of `reports.analysis.paper.paper_accuracies` -> column.
_COLUMNS = {
    "all": Column("all classes", "%", better="higher"),
    "majority": Column("majority", "%", better="higher"),
    "minority": Column("minority", "%", better="higher"),
    "worst": Column("worst class", "%", better="higher"),
    "spread": Column("std over classes", "%", better="lower"),
}
_OF_MINORITY = ("majority", "minority")
_SPREAD = "The standard deviation over classes is that of all classes (ddof = 0)."
_WORST = "Worst class, the one of the lowest mean accuracy over the seeds of a method: {classes}."
_ONE_MODEL = "The paper's figures of section 5.3 are of one model each, at the best epoch on the test set."
_NO_IMAGES = "Classes without test images are left out: {classes}."


def class_tables(results: pd.DataFrame, expected: Iterable[Mapping[str, Any]] = ()) -> list[Table]:
    """Accuracy of parts of the classes at the epoch of lowest val error: one table per group and distortion.

    Args:
        results, expected: as for `error_tables`.
    """
    tables = []
    for group, distortion, runs in cells.by_cell(named(results, expected)):
        quantities = [quantity for quantity in _COLUMNS if minority(runs) or quantity not in _OF_MINORITY]
        columns = tuple(_COLUMNS[quantity] for quantity in quantities)
        worst = _worst_classes(runs)
        values = pd.concat([runs[["name", "seed", "config"]], _accuracies(runs, worst)], axis=1)
        melted = values.melt(["name", "seed", "config"], quantities, "quantity", "percent")
        melted["column"] = [_COLUMNS[quantity].name for quantity in melted["quantity"]]
        papers = _papers(values)
        aside, aside_notes = cells.aside(runs)
        rows = cells.rows(
            cells.names(runs),
            columns,
            cells.grid(melted, "column", "percent"),
            known=cells.known(runs),
            papers=papers,
            aside=aside,
        )
        tables.append(
            Table(
                key=key("classes", group, distortion),
                title=f"{group}, {distortion}",
                caption="test accuracy by class at the epoch of lowest val error, mean ± std over seeds",
                heading="method",
                columns=columns,
                rows=rows,
                notes=(
                    *minority_notes(runs),
                    *_worst_notes(runs, worst),
                    _SPREAD,
                    *_unknown_classes(runs),
                    *cells.mark_notes(rows, columns),
                    *aside_notes,
                    *([_ONE_MODEL] if papers else []),
                ),
                group=group,
                distortion=distortion,
            )
        )
    return tables


def _worst_classes(runs: pd.DataFrame) -> dict[str, int]:
    """The worst class of each method of a cell that has any accuracies."""
    classes = len(class_names(runs))
    found = {str(name): worst_class(class_accuracies(of, classes)) for name, of in runs.groupby("name", sort=False)}
    return {name: label for name, label in found.items() if label is not None}


def _worst_notes(runs: pd.DataFrame, worst: Mapping[str, int]) -> list[str]:
    names = class_names(runs)
    listed = "; ".join(f"{name} {names[worst[name]]}" for name in cells.names(runs) if name in worst)
    return [_WORST.format(classes=listed)] if listed else []


def _accuracies(runs: pd.DataFrame, worst: Mapping[str, int]) -> pd.DataFrame:
    """The quantities of every run in percent, NaN where it has none.

    Args:
        worst: the worst class of each method.
    Shape:
        runs [R] -> [R, 5].
    """
    of_classes = [known_accuracies(accuracies) for accuracies in runs["per_class_accuracy"]]
    by_class = class_accuracies(runs, len(class_names(runs)))
    return pd.DataFrame(
        {
            "all": 100 * (1 - runs["error_best_val"].astype(float)),
            "majority": 100 * (1 - runs["majority_error"].astype(float)),
            "minority": 100 * (1 - runs["minority_error"].astype(float)),
            "worst": [by_class[i, worst[name]] if name in worst else np.nan for i, name in enumerate(runs["name"])],
            "spread": [100 * values.std(ddof=0) if values.size else np.nan for values in of_classes],
        },
        index=runs.index,
    )


def known_accuracies(accuracies: Sequence[float | None] | float | None) -> np.ndarray:
    """Accuracies of the classes that have test images.

    Args:
        accuracies: a value of `per_class_accuracy`; None or NaN for a run without a result.
    Shape:
        -> [C'] float64, C' up to C.
    """
    if accuracies is None or isinstance(accuracies, float):
        return np.empty(0)
    values = np.asarray(accuracies, dtype=float)
    return values[np.isfinite(values)]


def _unknown_classes(runs: pd.DataFrame) -> list[str]:
    unknown: dict[str, None] = {}
    for accuracies, names in zip(runs["per_class_accuracy"], runs["class_names"], strict=True):
        if accuracies is None or isinstance(accuracies, float):
            continue
        missing = np.flatnonzero(~np.isfinite(np.asarray(accuracies, dtype=float)))
        has_names = names is not None and not isinstance(names, float) and len(names) > max(missing, default=0)
        unknown.update(dict.fromkeys(str(names[i]) if has_names else str(i) for i in missing))
    return [_NO_IMAGES.format(classes=", ".join(unknown))] if unknown else []


def _papers(values: pd.DataFrame) -> dict[tuple[str, str], Reference]:
    found = {}
    for name, of_name in values.groupby("name", sort=False):
        for quantity, reference in paper_accuracies(str(of_name["config"].iloc[0])).items():
            found[str(name), _COLUMNS[quantity].name] = reference
    return found
