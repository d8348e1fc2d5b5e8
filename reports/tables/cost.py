"""Table 7 of the paper: what a run costs."""

import dataclasses
import json
import math
from collections.abc import Collection

import pandas as pd

from reports.analysis.cost import condition_notes, relative_costs
from reports.analysis.paper_results import departure_notes, paper_hours, paper_outer_hours
from reports.document import Column, Reference, Table
from reports.tables import cells

EPOCH_COLUMNS = ("run_id", "outer_phase", "inner_seconds", "outer_seconds")
"""Columns of epochs that `cost_tables` reads."""

_COST = Column("cost", "× baseline", better="lower")
_RUN = Column("run", "h", digits=3, better="lower")
_INNER = Column("inner, an epoch", "s", better="lower")
_OUTER = Column("outer, an epoch", "s", better="lower")
_OUTER_PHASE = Column("outer phase", "h", digits=3, better="lower")
_SHARE = Column("outer share", "%", digits=1, better="lower")
_SPEED = Column("speed", "images/s", digits=0, better="higher")
_MEMORY = Column("peak memory", "GiB", better="lower")
_COLUMNS = (_COST, _RUN, _INNER, _OUTER, _OUTER_PHASE, _SHARE, _SPEED, _MEMORY)
_OF_EPOCHS = (_OUTER, _OUTER_PHASE)

# Unit, its seconds, digits, and the smallest figure of a column for which the unit is used; the first that fits.
_UNITS = (("h", 3600.0, 3, 0.1), ("min", 60.0, 2, 1.0), ("s", 1.0, 2, 0.0))
_RELATIVE = (
    "Cost is the time of a run over the mean time of the baseline's runs in the same launch and split on the same "
    "device: only such times are comparable."
)
_MEANING = (
    "The time of a run includes evaluation but no policy search; the outer share is the outer part of inner and outer "
    "seconds; the outer phase is all epochs that end with an outer pass, with their inner part; the speed is of the "
    "inner part."
)
_CPU_MEMORY = "On a CPU, peak memory is that of the process, including data and libraries."
_ESTIMATED = (
    "The paper's hours are its table 7: AutoDO's epochs from E on, estimated for a V100 GPU, not for the device here."
)


def cost_tables(runs: pd.DataFrame, epochs: pd.DataFrame | None = None, despite: Collection[str] = ()) -> list[Table]:
    """Time and memory of the methods' runs: one table for each group and distortion, which decide the train images.

    Nothing is marked as best: the cheapest method is the one that does least.

    Args:
        runs, despite: as for `error_tables`.
        epochs: EPOCH_COLUMNS of the runs' epochs; without it, the columns that need them are left out.
    """
    outer = pd.DataFrame(columns=["seconds", "hours"]) if epochs is None else _outer_phases(epochs)
    tables = []
    for group, distortion, of_cell in cells.by_cell(runs):
        values = pd.concat([of_cell[["name", "seed", "config"]], _costs(of_cell, outer)], axis=1)
        papers = _papers(values, despite) if epochs is not None else {}
        left_out = [*(_OF_EPOCHS if epochs is None else ()), *([_COST] if values[_COST.name].isna().all() else [])]
        with_paper = {name for _, name in papers}
        columns = [
            _readable(column, values, fixed=column.name in with_paper) for column in _COLUMNS if column not in left_out
        ]
        melted = values.melt(["name", "seed", "config"], [column.name for column in columns], "column", "figure")
        grid = _asked(cells.grid(melted, "column", "figure"), of_cell)
        known = cells.has_expected(of_cell)
        tables.append(
            cells.cell_table(
                ("cost",),
                group,
                distortion,
                caption="time and memory of a run, mean ± std over seeds",
                columns=columns,
                rows=cells.rows(cells.names(of_cell), columns, grid, known=known, papers=papers, marked=False),
                notes=(
                    *([_RELATIVE] if _COST not in left_out else []),
                    *condition_notes(of_cell),
                    _MEANING,
                    *_device_notes(of_cell),
                    *_paper_notes(of_cell, bool(papers)),
                    *departure_notes(cells.configs_of_rows(of_cell, papers)),
                ),
            )
        )
    return tables


def _costs(runs: pd.DataFrame, outer: pd.DataFrame) -> pd.DataFrame:
    """The figures of each run in the units of the columns, NaN where it has none.

    Shape:
        runs [R] -> [R, 8].
    """
    inner_seconds, outer_seconds = runs["inner_seconds"].astype(float), runs["outer_seconds"].astype(float)
    trained = (inner_seconds + outer_seconds).where(lambda seconds: seconds > 0)
    of_epochs = outer.reindex(runs["run_id"]).set_axis(runs.index).astype(float)
    return pd.DataFrame(
        {
            _COST.name: relative_costs(runs),
            _RUN.name: runs["seconds"].astype(float) / 3600,
            _INNER.name: inner_seconds / runs["epochs"].astype(float).where(lambda count: count > 0),
            _OUTER.name: of_epochs["seconds"],
            _OUTER_PHASE.name: of_epochs["hours"],
            _SHARE.name: 100 * outer_seconds / trained,
            _SPEED.name: runs["images_per_second"].astype(float),
            _MEMORY.name: runs["peak_memory_bytes"].astype(float) / 2**30,
        }
    )


def _readable(column: Column, values: pd.DataFrame, *, fixed: bool) -> Column:
    """A column of hours in a unit in which none of its figures rounds to 0; converts its `values` too.

    Args:
        fixed: whether the paper's hours stand beside it, so that it stays in hours.
    """
    if column.unit != "h" or fixed:
        return column
    hours = values[column.name]
    least = hours[hours > 0].min()
    for unit, seconds, digits, smallest in _UNITS:
        if not least * 3600 / seconds < smallest:
            values[column.name] = hours * 3600 / seconds
            return dataclasses.replace(column, unit=unit, digits=digits)
    raise AssertionError(column)


def _outer_phases(epochs: pd.DataFrame) -> pd.DataFrame:
    """Seconds of an outer pass and hours of all epochs with one, by run id, for runs with outer passes."""
    passed = epochs[epochs["outer_phase"].fillna(False).astype(bool)]
    seconds = passed.groupby("run_id")[["inner_seconds", "outer_seconds"]]
    return pd.DataFrame(
        {
            "seconds": seconds.mean()["outer_seconds"],
            "hours": seconds.sum(min_count=1).sum(axis=1, skipna=False) / 3600,
        }
    )


def _asked(grid: cells.Grid, runs: pd.DataFrame) -> cells.Grid:
    """The grid without holes that are no missing results: outer phases of methods without one, unknown costs."""
    inner_only = {
        str(name)
        for name, of_name in runs.groupby("name", sort=False)
        if json.loads(str(of_name["config"].iloc[0])).get("outer") is None
    }
    unasked = {(name, column.name) for name in inner_only for column in _OF_EPOCHS}
    there = runs[runs["error_best_val"].notna()]
    done = set(zip(there["name"], there["seed"], strict=True))
    asked = {}
    for (name, column), sample in grid.items():
        kept = sample
        if column == _COST.name:
            kept = {seed: cost for seed, cost in sample.items() if not (math.isnan(cost) and (name, seed) in done)}
        if kept and (name, column) not in unasked:
            asked[name, column] = kept
    return asked


def _papers(runs: pd.DataFrame, despite: Collection[str]) -> dict[tuple[str, str], Reference]:
    found = {}
    for name, of_name in runs.groupby("name", sort=False):
        reference = paper_outer_hours(str(of_name["config"].iloc[0]), despite)
        if reference is not None:
            found[str(name), _OUTER_PHASE.name] = reference
    return found


def _device_notes(runs: pd.DataFrame) -> list[str]:
    """The device, if all runs share it; several devices are named in a warning at the top of the report."""
    devices = sorted(set(runs["device"].dropna().astype(str)))
    on_cpu = [_CPU_MEMORY] if any("cpu" in device.lower() for device in devices) else []
    return [*([f"Measured on: {devices[0]}."] if len(devices) == 1 else []), *on_cpu]


def _paper_notes(runs: pd.DataFrame, beside: bool) -> list[str]:
    """The paper's table 7, if its figures are in the table or it has the same dataset and model."""
    datasets = {(str(dataset), str(model)) for dataset, model in zip(runs["dataset"], runs["model"], strict=True)}
    stated = [
        f"{algorithm} {hours:g}" for d, m in datasets if m == "wrn-28-10" for algorithm, hours in paper_hours(d).items()
    ]
    listed = [f"The whole of the paper's table 7, in GPU hours: {'; '.join(stated)}."] if stated else []
    return [_ESTIMATED, *listed] if beside or stated else []
