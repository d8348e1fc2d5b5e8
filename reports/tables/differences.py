"""Differences of methods from the baseline and from the best method, seed by seed."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from reports.analysis.comparison import baseline_among, without_test_as_val
from reports.analysis.metrics import metric_name
from reports.analysis.stats import (
    COVERAGE,
    FEWEST,
    SAME,
    Floats,
    bootstrap_intervals,
    differences,
    mean_std,
    too_few_pairs,
)
from reports.document import Cell, Column, Row, Table
from reports.keys import key
from reports.tables import cells
from reports.tables.errors import OPTIMISTIC

INTERVAL = "In brackets: 95% confidence interval of the mean difference over many seeds (BCa bootstrap)."
"""Note on intervals in a table of differences."""


def difference_tables(runs: pd.DataFrame, metric: str = "error_best_val") -> list[Table]:
    """Each method's error minus the baseline's and minus the best's, with bootstrap confidence intervals.

    Up to two tables for each group. Runs of one seed have the same images and wrong labels, so that only the method
    differs; n is the number of seeds that both have.

    Args:
        runs, metric: as for `error_tables`.
    """
    tables = []
    for group, of_group in cells.by_group(cells.in_percent(without_test_as_val(runs), metric)):
        names, columns = cells.names(of_group), cells.distortions(of_group)
        grid = cells.grid(of_group, "distortion", "percent")
        known, error = cells.has_expected(of_group), metric_name(metric, of_group)
        best = {}
        for column in columns:
            of_column = {name: cells.cell(grid.get((name, column), {}), known) for name in names}
            best[column] = next(iter(cells.best_of(of_column, "lower")), None)
        references: dict[str, dict[str, str | None]] = {}
        baseline = baseline_among(names)
        if baseline is not None:
            references["the baseline"] = dict.fromkeys(columns, baseline)
        references["the best"] = best
        for what, reference in references.items():
            if len(names) > 1 and any(reference.values()):
                tables.append(_table(group, metric, error, names, grid, known, what, reference))
    return tables


def _table(
    group: str,
    metric: str,
    error: str,
    names: list[str],
    grid: cells.Grid,
    known: bool,
    what: str,
    reference: Mapping[str, str | None],
) -> Table:
    names = [name for name in names if set(reference.values()) != {name}]
    places = [(name, column) for name in names for column in reference]
    paired = {place: _paired(grid, place, reference[place[1]]) for place in places}
    intervals = dict(zip(places, bootstrap_intervals([paired[place] for place in places]), strict=True))
    columns = tuple(Column(column, "%", better="lower") for column in reference)
    made = []
    for name in names:
        of_name = []
        for column in reference:
            mean, std = mean_std(paired[name, column].tolist())
            asked = len(grid.get((name, column), {})) if known and reference[column] not in (None, name) else None
            of_name.append(Cell(mean, std, paired[name, column].size, expected=asked, interval=intervals[name, column]))
        made.append(Row(name, tuple(of_name)))
    best = "; ".join(f"{column}: {name}" for column, name in reference.items() if name)
    return Table(
        key=key("differences", what.removeprefix("the "), metric.replace("_", "-"), group),
        title=f"{group}, minus {what}",
        caption=f"{error}, minus that of {what}, mean over seeds",
        heading="method / IR-NR",
        columns=columns,
        rows=tuple(made),
        notes=(
            *([f"The best of each column: {best}."] if what == "the best" else []),
            *([OPTIMISTIC] if metric == "error_best_test" else []),
            *([INTERVAL] if any(intervals.values()) else []),
            *care_notes([sample for sample in paired.values() if sample.size]),
        ),
        group=group,
    )


def _paired(grid: cells.Grid, place: tuple[str, str], reference: str | None) -> Floats:
    """Differences by seed; empty for a method and itself, and where nothing is the best."""
    name, column = place
    ours = grid.get(place, {})
    theirs = grid.get((reference, column), {}) if reference is not None and reference != name else {}
    return differences(ours, theirs)


def care_notes(samples: list[Floats]) -> list[str]:
    """Notes on what few seeds cannot show.

    Args:
        samples: differences by seed; none is empty.
    """
    sizes = sorted({sample.size for sample in samples})
    if not sizes:
        return []
    covered = [f"{COVERAGE[n]} with {n} seeds" for n in sizes if n in COVERAGE]
    narrow = (
        "Intervals from few seeds are too narrow: of 100 of them, not 95 but about "
        f"{', '.join(covered)} contain the true difference."
    )
    few = too_few_pairs(sizes)
    alone = (
        "Under three common seeds, or if all differences are equal, there is no interval; ± is the standard deviation "
        "of the differences."
    )
    return [
        *([narrow] if covered else []),
        *([alone] if any(sample.size < FEWEST or np.ptp(sample) <= SAME for sample in samples) else []),
        *([few] if few else []),
    ]
