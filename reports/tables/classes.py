"""Accuracy of minority, majority and worst class, and spread over classes (section 5.3 of the paper)."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from reports.analysis.classes import (
    as_list,
    class_accuracies,
    class_names,
    minority,
    minority_notes,
    spread_over_classes,
    worst_class,
)
from reports.analysis.metrics import epoch_of_classifier
from reports.analysis.paper_results import departure_notes, paper_accuracies
from reports.document import Column, Reference, Table
from reports.tables import cells

# Quantity of `reports.analysis.paper_results.paper_accuracies` -> column.
_COLUMNS = {
    "all": Column("all classes", "%", better="higher"),
    "majority": Column("majority", "%", better="higher"),
    "minority": Column("minority", "%", better="higher"),
    "worst": Column("worst class", "%", better="higher"),
    "spread": Column("std over classes", "%", better="lower"),
}
_OF_MINORITY = ("majority", "minority")
_SPREAD = "The standard deviation over classes is that of all classes (ddof = 0)."
_WORST = "Worst class (lowest mean accuracy over the seeds of a method): {classes}."
_ONE_MODEL = "The paper's figures of section 5.3 are of one model each, at the best epoch on the test set."
_NO_IMAGES = "Classes without test images are left out: {classes}."


def class_tables(runs: pd.DataFrame, despite: Collection[str] = ()) -> list[Table]:
    """Accuracy of parts of the classes of the classifier: one table for each group and distortion.

    Args:
        runs, despite: as for `error_tables`.
    """
    tables = []
    for group, distortion, of_cell in cells.by_cell(runs):
        quantities = [quantity for quantity in _COLUMNS if minority(of_cell) or quantity not in _OF_MINORITY]
        columns = [_COLUMNS[quantity] for quantity in quantities]
        worst = _worst_classes(of_cell)
        values = pd.concat([of_cell[["name", "seed", "config"]], _accuracies(of_cell, worst)], axis=1)
        melted = values.melt(["name", "seed", "config"], quantities, "quantity", "percent")
        melted["column"] = [_COLUMNS[quantity].name for quantity in melted["quantity"]]
        papers = _papers(values, despite)
        not_compared, not_compared_notes = cells.rows_of_test_as_val(of_cell)
        rows = cells.rows(
            cells.names(of_cell),
            columns,
            cells.grid(melted, "column", "percent"),
            known=cells.has_expected(of_cell),
            papers=papers,
            not_compared=not_compared,
        )
        tables.append(
            cells.cell_table(
                ("classes",),
                group,
                distortion,
                caption=f"test accuracy by class {epoch_of_classifier(of_cell)}, mean ± std over seeds",
                columns=columns,
                rows=rows,
                notes=(
                    *minority_notes(of_cell),
                    *_worst_notes(of_cell, worst),
                    _SPREAD,
                    *_notes_on_missing_classes(of_cell),
                    *cells.mark_notes(rows, columns),
                    *not_compared_notes,
                    *([_ONE_MODEL] if papers else []),
                    *departure_notes(cells.configs_of_rows(of_cell, papers)),
                ),
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
    """The quantities of each run in percent, NaN where it has none.

    Args:
        worst: the worst class of each method.
    Shape:
        runs [R] -> [R, 5].
    """
    by_class = class_accuracies(runs, len(class_names(runs)))
    return pd.DataFrame(
        {
            "all": 100 * (1 - runs["error_best_val"].astype(float)),
            "majority": 100 * (1 - runs["majority_error"].astype(float)),
            "minority": 100 * (1 - runs["minority_error"].astype(float)),
            "worst": [by_class[i, worst[name]] if name in worst else np.nan for i, name in enumerate(runs["name"])],
            "spread": [100 * spread_over_classes(accuracies) for accuracies in runs["per_class_accuracy"]],
        },
        index=runs.index,
    )


def _notes_on_missing_classes(runs: pd.DataFrame) -> list[str]:
    missing: dict[str, None] = {}
    for accuracies, names in zip(runs["per_class_accuracy"], runs["class_names"], strict=True):
        labels = np.flatnonzero(~np.isfinite(np.asarray(as_list(accuracies), dtype=float)))
        missing.update(dict.fromkeys(str(names[i]) if as_list(names) else str(i) for i in labels))
    return [_NO_IMAGES.format(classes=", ".join(missing))] if missing else []


def _papers(values: pd.DataFrame, despite: Collection[str]) -> dict[tuple[str, str], Reference]:
    found = {}
    for name, of_name in values.groupby("name", sort=False):
        for quantity, reference in paper_accuracies(str(of_name["config"].iloc[0]), despite).items():
            found[str(name), _COLUMNS[quantity].name] = reference
    return found
