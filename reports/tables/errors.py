"""Tables 1 to 4 of the paper: test error of methods on distortions."""

from collections.abc import Collection

import pandas as pd

from reports.analysis.classes import minority_notes
from reports.analysis.metrics import metric_name
from reports.analysis.paper_results import LIKE_FOR_LIKE, SEARCHED, TWO_READINGS, departure_notes, paper_error
from reports.document import Column, Reference, Table
from reports.keys import key
from reports.tables import cells

MINORITY = {
    "total": "together the minority classes keep 1/IR of the number of images of the others, drawn at random over them",
    "total-proportional": "the minority classes keep as many images as with total, in proportion to their sizes",
    "class": "each minority class keeps 1/IR of its own images",
}
"""Meanings of the values of `distortion.minority`."""
OPTIMISTIC = (
    "The lowest test error over all epochs chooses the epoch on the test set itself, as the published code does: "
    "it is lower than any error that can be reached without test labels."
)


def error_tables(runs: pd.DataFrame, metric: str = "error_best_val", despite: Collection[str] = ()) -> list[Table]:
    """Mean ± std over seeds of one error: one table for each group, since only runs of one group can be compared.

    Args:
        runs: from `reports.analysis.comparison.named`; expected runs without a result are holes.
        metric: a key of METRICS.
        despite: settings in which runs may differ from the paper's protocol and still have its figures beside them.
    """
    tables = []
    for group, of_group in cells.by_group(cells.in_percent(runs, metric)):
        columns = [Column(name, "%", better="lower") for name in cells.distortions(of_group)]
        papers = {} if metric == "minority_error" else paper_errors(of_group, "distortion", despite=despite)
        not_compared, not_compared_notes = cells.rows_of_test_as_val(of_group)
        rows = cells.rows(
            cells.names(of_group),
            columns,
            cells.grid(of_group, "distortion", "percent"),
            known=cells.has_expected(of_group),
            papers=papers,
            not_compared=not_compared,
        )
        tables.append(
            Table(
                key=key(metric.replace("_", "-"), group),
                title=group,
                caption=f"{metric_name(metric, of_group)}, mean ± std over seeds",
                heading="method / IR-NR",
                columns=tuple(columns),
                rows=rows,
                notes=(
                    *([OPTIMISTIC] if metric == "error_best_test" else []),
                    *(_minority_notes(of_group) if metric == "minority_error" else []),
                    *cells.mark_notes(rows, columns),
                    *not_compared_notes,
                    *reduction_notes(of_group),
                    *paper_notes(papers, metric, of_group, "distortion"),
                ),
                group=group,
            )
        )
    return tables


def _minority_notes(runs: pd.DataFrame) -> list[str]:
    """Minority classes at each distortion, in one line where they agree."""
    by_distortion = {str(d): minority_notes(of_cell) for d, of_cell in runs.groupby("distortion", sort=False)}
    if len({tuple(notes) for notes in by_distortion.values()}) == 1:
        return next(iter(by_distortion.values()))
    return [f"{distortion}: {note}" for distortion, notes in by_distortion.items() for note in notes]


def paper_errors(
    runs: pd.DataFrame, column: str, tables: tuple[int, ...] = (1, 2, 3, 4, 6, 5), despite: Collection[str] = ()
) -> dict[tuple[str, str], Reference]:
    """Errors in the paper for runs of one group, by (name, value of the column).

    Args:
        tables, despite: as for `paper_error`.
    """
    found = {}
    for (name, place), of_cell in runs.groupby(["name", column], sort=False):
        reference = paper_error(str(of_cell["config"].iloc[0]), tables, despite)
        if reference is not None:
            found[str(name), str(place)] = reference
    return found


def reduction_notes(runs: pd.DataFrame) -> list[str]:
    """A note on how minority classes were reduced, unless all runs did it as in the paper.

    Args:
        runs: from `comparison.named`.
    """
    kinds = sorted({*runs["minority"]} - {""})
    if kinds in ([], ["total"]):
        return []
    meanings = "; ".join(f"{kind} ({MINORITY.get(kind, 'unknown to this version')})" for kind in kinds)
    return [
        f"Minority classes were reduced by distortion.minority = {meanings}. The paper's figures are for total only."
    ]


def paper_notes(papers: Collection[tuple[str, str]], metric: str, runs: pd.DataFrame, column: str) -> list[str]:
    """Notes needed to compare a table with the paper; none if it shows none of the paper's figures.

    Args:
        papers: the (row, column) of the cells with figures of the paper.
        runs, column: as for `paper_errors`.
    """
    shown = [name for name, _ in papers]
    beside = [cell in papers for cell in zip(runs["name"], runs[column], strict=True)]
    return [
        *([LIKE_FOR_LIKE] if shown and metric != "error_best_test" else []),
        *([SEARCHED] if any("-searched" in name for name in shown) else []),
        *([TWO_READINGS] if any(name.startswith("autodo-published") for name in shown) else []),
        *departure_notes(runs.loc[beside, "config"].astype(str)),
    ]
