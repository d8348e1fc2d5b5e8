"""Cost of the outer phase: as the paper counts it, as it is here, and as measured (section 4.3)."""

import dataclasses
import json

import numpy as np
import pandas as pd

from reports.analysis.cost import (
    outer_pass_in_passes,
    paper_cost_in_passes,
    paper_outer_pass_in_passes,
    relative_costs,
)
from reports.analysis.roles import roles
from reports.document import Column, Row, Table
from reports.keys import key
from reports.tables import cells

_COUNT = (
    "A pass is one forward or one backward of all N train images through the network. An epoch of training takes 2 N. "
    "The paper counts (5 + T) N for an outer pass, where T is the number of terms of the Neumann series. A run whose "
    "outer phase starts at the share E of its epochs then costs 1 + (1 − E) (5 + T) / 2 trainings: 3.5 for T = 5 and "
    "E = 0.5, 2.25 for T = 0 (DARTS), and 4.75 for the E = 50 of 200 epochs of the paper's experiments."
)
_UNCOUNTED = (
    "The paper has no count for other solvers, for a val gradient of all of val, or for outer passes after each second "
    "epoch."
)
_HERE = (
    "Here an outer pass takes fewer: theta is the last layer, whose products with the Hessian have a closed form, and "
    "the val images are predicted by the evaluation of the epoch."
)
_TIMED = (
    "Measured is the time of the inner and outer loops over that of the inner loops of the same run (lines 3 to 19 of "
    "algorithm 1 over lines 3 to 9). A whole run, over one of the baseline in the same launch, includes evaluation."
)

# Figures without a standard deviation, then measured ones.
_COUNTED = (
    Column("outer pass, paper", "× N"),
    Column("outer pass, here", "× N"),
    Column("run, paper", "× training"),
    Column("run, here", "× training"),
)
_MEASURED = (Column("run, measured", "× training"), Column("whole run", "× baseline"))


def outer_cost_tables(runs: pd.DataFrame, epochs: pd.DataFrame) -> list[Table]:
    """Cost of AutoDO's runs in passes and in time: one table for each group that has such runs.

    Args:
        runs: as for `error_tables`.
        epochs: `run_id` and `outer_phase` of the epochs.
    """
    tables = []
    for group, of_group in cells.by_group(runs):
        is_ours = of_group["error_best_val"].notna() & (of_group["name"].map(roles(of_group)) == "autodo")
        if is_ours.any():
            relative = pd.concat([relative_costs(of_cell) for _, _, of_cell in cells.by_cell(of_group)])
            tables.append(_table(group, of_group[is_ours], relative, epochs))
    return tables


def _table(group: str, runs: pd.DataFrame, relative: "pd.Series[float]", epochs: pd.DataFrame) -> Table:
    configs = [json.loads(config) for config in runs["config"]]
    points = zip(configs, runs["train_points"], runs["val_points"], strict=True)
    outer_pass = np.array([outer_pass_in_passes(*of_run) for of_run in points], dtype=np.float64)
    of_runs = epochs["outer_phase"].astype(float).groupby(epochs["run_id"], observed=True)
    passes = of_runs.sum(min_count=1).reindex(runs["run_id"]).to_numpy(np.float64)
    inner, outer = (runs[name].to_numpy(np.float64) for name in ("inner_seconds", "outer_seconds"))
    paper_pass, paper_run = (
        np.array([of(config) for config in configs], dtype=np.float64)
        for of in (paper_outer_pass_in_passes, paper_cost_in_passes)
    )
    run = 1 + outer_pass * passes / (2 * runs["epochs"].to_numpy(np.float64))
    measured = np.divide(inner + outer, inner, out=np.full_like(inner, np.nan), where=inner > 0)
    figures = paper_pass, outer_pass, paper_run, run, measured, relative.reindex(runs.index).to_numpy(np.float64)
    values = pd.DataFrame({"name": runs["name"], "seed": runs["seed"]})
    for column, of_column in zip((*_COUNTED, *_MEASURED), figures, strict=True):
        values[column.name] = of_column
    columns = tuple(column for column in (*_COUNTED, *_MEASURED) if values[column.name].notna().any())
    melted = values.melt(["name", "seed"], [column.name for column in columns], "column", "figure").dropna()
    grid = cells.grid(melted, "column", "figure")
    rows = []
    for row in cells.rows(cells.names(runs), columns, grid, known=False, marked=False):
        shown = zip(row.cells, columns, strict=True)
        made = tuple(dataclasses.replace(cell, std=None) if column in _COUNTED else cell for cell, column in shown)
        rows.append(Row(row.name, made))
    return Table(
        key=key("claims", "cost", group),
        title=f"{group}: cost of the outer phase",
        caption="cost of AutoDO's runs, over all distortions, mean over seeds",
        heading="method",
        columns=columns,
        rows=tuple(rows),
        notes=(_COUNT, *([_UNCOUNTED] if np.isnan(paper_pass).any() else []), _HERE, _TIMED),
        group=group,
    )
