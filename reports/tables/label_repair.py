"""How well methods find and repair labels that are known to be wrong."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from reports.analysis.label_repair import LabelRepair
from reports.document import Column, Table
from reports.tables import cells

_FIND = (Column("AUROC", digits=3, better="higher"), Column("precision", "%", digits=1, better="higher"))
_REPAIR = (
    Column("wrong labels set right", "%", digits=1, better="higher"),
    Column("right labels lost", "%", digits=1, better="lower"),
)
# Field of LabelRepair -> name of the score.
_SCORES = {"weight": "low weight", "soft_label": "soft label", "loss": "loss"}

_CHANCE = (
    "Precision is measured at the true number of wrong labels, where it equals recall. A random order has an AUROC of "
    "0.5 and a precision equal to the share of wrong labels, here {share}."
)
_MEANING = (
    "A wrong label is set right if its soft label is highest at the true class; a right label is lost if its soft "
    "label is highest at another."
)


def label_repair_tables(runs: pd.DataFrame, repairs: Mapping[str, LabelRepair]) -> list[Table]:
    """Tables of how well wrong labels were found, and how many were set right.

    Up to two tables for each group and distortion with wrong labels: one with a row for each method and score, one
    with a row for each method that learns soft labels.

    Args:
        runs: as for `error_tables`.
        repairs: from `reports.analysis.label_repair.label_repair`, by run id; a run without an entry is a hole.
    """
    tables = []
    for group, distortion, of_cell in cells.by_cell(runs):
        of_runs = [repairs.get(str(run_id)) for run_id in of_cell["run_id"]]
        if not any(repair is not None and repair.wrong for repair in of_runs):
            continue
        order = cells.names(of_cell)
        scored = _scored(of_cell, of_runs)
        repaired = of_cell.copy()
        for column, field in zip(_REPAIR, ("repaired", "lost"), strict=True):
            repaired[column.name] = [
                np.nan if repair is None else _percent(getattr(repair, field)) for repair in of_runs
            ]
        repaired = _known(repaired, _REPAIR[0].name)
        tables.append(
            _table(
                ("label-errors", group, distortion),
                scored,
                {f"{name}: {score}": score for name in order for score in _SCORES.values()},
                _FIND,
                caption="how well scores of train points find the wrong labels, mean ± std over seeds",
                heading="method: score",
                note=_CHANCE.format(share=_share(of_runs)),
            )
        )
        if len(repaired):
            tables.append(
                _table(
                    ("label-repair", group, distortion),
                    repaired,
                    dict.fromkeys(order, ""),
                    _REPAIR,
                    caption="what soft labels made of the labels, mean ± std over seeds",
                    heading="method",
                    note=_MEANING,
                )
            )
    return tables


def _scored(runs: pd.DataFrame, repairs: Sequence[LabelRepair | None]) -> pd.DataFrame:
    """One row for each run and score, with the name `METHOD: SCORE`."""
    parts = []
    for field, score in _SCORES.items():
        findings = [None if repair is None else getattr(repair, field) for repair in repairs]
        part = runs.assign(name=[f"{name}: {score}" for name in runs["name"]])
        part[_FIND[0].name] = [np.nan if found is None else found.auroc for found in findings]
        part[_FIND[1].name] = [np.nan if found is None else 100 * found.precision for found in findings]
        parts.append(_known(part, _FIND[0].name))
    return pd.concat(parts)


def _known(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """The runs of names with at least one value; methods without any do not learn it."""
    return runs[runs[column].notna().groupby(runs["name"]).transform("any")]


def _percent(share: float | None) -> float:
    return np.nan if share is None else 100 * share


def _share(repairs: Sequence[LabelRepair | None]) -> str:
    shares = [100 * repair.wrong / repair.points for repair in repairs if repair is not None and repair.wrong]
    low, high = f"{min(shares):.1f}%", f"{max(shares):.1f}%"
    return low if low == high else f"{low} to {high}"


def _table(
    place: tuple[str, str, str],
    values: pd.DataFrame,
    parts: Mapping[str, str],
    columns: tuple[Column, ...],
    *,
    caption: str,
    heading: str,
    note: str,
) -> Table:
    """A table of means over seeds.

    Args:
        place: beginning of the key, group and distortion.
        parts: names of the rows, in order, with `Row.part` of each; names without values are left out.
    """
    subject, group, distortion = place
    grid: cells.Grid = {}
    for column in columns:
        grid |= cells.grid(values.assign(column=column.name), "column", column.name)
    present = set(values["name"])
    rows = cells.rows([name for name in parts if name in present], columns, grid, known=cells.has_expected(values))
    return cells.cell_table(
        (subject,),
        group,
        distortion,
        caption=caption,
        heading=heading,
        columns=columns,
        rows=tuple(dataclasses.replace(row, part=parts[row.name]) for row in rows),
        notes=(note, *cells.mark_notes(rows, columns)),
    )
