"""Expected figures of tables, computed by pandas' groupby without code of reports."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
import pytest

from autodo.config.run import RunConfig
from reports.document import Table

Rows = Iterable[tuple[RunConfig, Mapping[str, Any]]]


def by_cell(
    rows: Rows, value: Callable[[Mapping[str, Any]], float]
) -> dict[tuple[str, str, str], tuple[float, float, int]]:
    """Mean, standard deviation and n of a value, by dataset, distortion and method."""
    frame = pd.DataFrame(
        [
            {
                "dataset": run.dataset.name,
                "distortion": str(run.distortion),
                "method": run.method.name,
                "value": value(row),
            }
            for run, row in rows
        ]
    )
    found = frame.groupby(["dataset", "distortion", "method"])["value"].agg(["mean", "std", "count"])
    return {key: (row["mean"], row["std"], int(row["count"])) for key, row in found.iterrows()}


def shown(tables: Iterable[Table], column: str | None = None) -> dict[tuple[str, str, str], tuple[float, float, int]]:
    """What the tables show in the same form.

    Args:
        column: the one to read of tables of one distortion; None for tables that have distortions across.
    """
    found = {}
    for table in tables:
        dataset = table.title.split(" ")[0]
        for row in table.rows:
            for head, cell in zip(table.columns, row.cells, strict=True):
                if column in (None, head.name) and cell.n:
                    distortion = head.name if column is None else table.title.rsplit(", ", 1)[1]
                    assert cell.mean is not None
                    found[dataset, distortion, row.name] = (
                        cell.mean,
                        float("nan") if cell.std is None else cell.std,
                        cell.n,
                    )
    return found


def agree(
    tables: Iterable[Table], rows: Rows, value: Callable[[Mapping[str, Any]], float], column: str | None = None
) -> None:
    """Assert that all cells of the tables agree with pandas."""
    expected, found = by_cell(rows, value), shown(tables, column)
    assert found.keys() == expected.keys()
    for key, figures in expected.items():
        assert found[key] == pytest.approx(figures, rel=1e-9, nan_ok=True), key
