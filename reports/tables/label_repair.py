"""How well methods find wrong labels and set them right, where it is known which are wrong."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.analysis.comparison import named
from reports.analysis.label_repair import LabelRepair
from reports.document import Column, Table
from reports.keys import key
from reports.tables import cells

_FIND = (Column("AUROC", digits=3, better="higher"), Column("precision", "%", digits=1, better="higher"))
_REPAIR = (
    Column("wrong labels set right", "%", digits=1, better="higher"),
    Column("right labels lost", "%", digits=1, better="lower"),
)
# Field of LabelRepair -> what ranks the points.
_SCORES = {"weight": "low weight", "soft_label": "soft label", "loss": "loss"}

_CHANCE = (
    "Precision is at the true number of wrong labels, where recall is the same. A random order has an AUROC of 0.5 and "
    "a precision of the share of wrong labels, here {share}."
)
_MEANING = (
    "A wrong label is set right if its soft label is highest at the true class; a right label is lost if its soft "
    "label is highest at another."
)


def label_repair_tables(
    results: pd.DataFrame, repairs: Mapping[str, LabelRepair], expected: Iterable[Mapping[str, Any]] = ()
) -> list[Table]:
    """How well wrong labels were found, and how many set right.

    Up to two tables per group and distortion with wrong labels: a row for each method and score that it has, and a row
    for each method with soft labels.

    Args:
        results, expected: as for `error_tables`.
        repairs: from `reports.analysis.label_repair.label_repair`, by run id; a run without is a hole.
    """
    tables = []
    for group, distortion, runs in cells.by_cell(named(results, expected)):
        of_runs = [repairs.get(str(run_id)) for run_id in runs["run_id"]]
        if not any(repair is not None and repair.wrong for repair in of_runs):
            continue
        order = cells.names(runs)
        scored = _scored(runs, of_runs)
        tables.append(
            _table(
                scored,
                {f"{name}: {score}": score for name in order for score in _SCORES.values()},
                _FIND,
                subject="label-errors",
                group=group,
                distortion=distortion,
                caption="how well scores of train points find the wrong labels, mean ± std over seeds",
                heading="method: score",
                note=_CHANCE.format(share=_share(of_runs)),
            )
        )
        repaired = _known(
            runs.assign(
                **{
                    _REPAIR[0].name: [_percent(repair and repair.repaired) for repair in of_runs],
                    _REPAIR[1].name: [_percent(repair and repair.lost) for repair in of_runs],
                }
            ),
            _REPAIR[0].name,
        )
        if len(repaired):
            tables.append(
                _table(
                    repaired,
                    dict.fromkeys(order, ""),
                    _REPAIR,
                    subject="label-repair",
                    group=group,
                    distortion=distortion,
                    caption="what soft labels made of the labels, mean ± std over seeds",
                    heading="method",
                    note=_MEANING,
                )
            )
    return tables


def _scored(runs: pd.DataFrame, repairs: Sequence[LabelRepair | None]) -> pd.DataFrame:
    """One row per run and score, named by both."""
    parts = []
    for field, score in _SCORES.items():
        findings = [None if repair is None else getattr(repair, field) for repair in repairs]
        part = runs.assign(name=[f"{name}: {score}" for name in runs["name"]])
        part[_FIND[0].name] = [np.nan if found is None else found.auroc for found in findings]
        part[_FIND[1].name] = [np.nan if found is None else 100 * found.precision for found in findings]
        parts.append(_known(part, _FIND[0].name))
    return pd.concat(parts)


def _known(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """The runs of names of which any has a value: others have not learned it, and nothing is missing there."""
    return runs[runs[column].notna().groupby(runs["name"]).transform("any")]


def _percent(share: float | None) -> float:
    return np.nan if share is None else 100 * share


def _share(repairs: Sequence[LabelRepair | None]) -> str:
    shares = [100 * repair.wrong / repair.points for repair in repairs if repair is not None and repair.wrong]
    low, high = f"{min(shares):.1f}%", f"{max(shares):.1f}%"
    return low if low == high else f"{low} to {high}"


def _table(
    values: pd.DataFrame,
    parts: Mapping[str, str],
    columns: tuple[Column, ...],
    *,
    subject: str,
    group: str,
    distortion: str,
    caption: str,
    heading: str,
    note: str,
) -> Table:
    """A table of means over seeds.

    Args:
        parts: of the names of its rows, in their order; names without values are left out.
        subject: what its key begins with.
    """
    grid: cells.Grid = {}
    for column in columns:
        grid |= cells.grid(values.assign(column=column.name), "column", column.name)
    present = set(values["name"])
    rows = cells.rows([name for name in parts if name in present], columns, grid, known=cells.known(values))
    return Table(
        key=key(subject, group, distortion),
        title=f"{group}, {distortion}",
        caption=caption,
        heading=heading,
        columns=columns,
        rows=tuple(dataclasses.replace(row, part=parts[row.name]) for row in rows),
        notes=(note, *cells.mark_notes(rows, columns)),
        group=group,
        distortion=distortion,
    )
