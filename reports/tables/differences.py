"""By how much methods differ from the baseline and from the best, seed by seed."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from reports.analysis.comparison import baseline_among, named, without_test_as_val
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
from reports.tables.errors import METRICS, OPTIMISTIC

_INTERVAL = (
    "In brackets: between which figures the mean difference over many seeds is estimated to lie (BCa bootstrap, 95% "
    "confidence)."
)


def difference_tables(
    results: pd.DataFrame, metric: str = "error_best_val", expected: Iterable[Mapping[str, Any]] = ()
) -> list[Table]:
    """Each method's error minus the baseline's and minus the best's, with bootstrap confidence intervals.

    Up to two tables per group. Runs of one seed have the same images and the same wrong labels: what they differ in is
    the method, and n is the number of seeds that both have.

    Args:
        results, metric, expected: as for `error_tables`.
    """
    tables = []
    compared = without_test_as_val(named(results, expected))
    for group, runs in cells.by_group(cells.in_percent(compared, metric)):
        names, columns = cells.names(runs), cells.distortions(runs)
        grid = cells.grid(runs, "distortion", "percent")
        known = cells.known(runs)
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
                tables.append(_table(group, metric, runs, grid, known, what, reference))
    return tables


def _table(
    group: str,
    metric: str,
    runs: pd.DataFrame,
    grid: cells.Grid,
    known: bool,
    what: str,
    reference: Mapping[str, str | None],
) -> Table:
    names = [name for name in cells.names(runs) if set(reference.values()) != {name}]
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
        caption=f"{METRICS[metric]}, minus that of {what}, mean over seeds",
        heading="method / IR-NR",
        columns=columns,
        rows=tuple(made),
        notes=(
            *([f"The best of each column is, for {best}."] if what == "the best" else []),
            *([OPTIMISTIC] if metric == "error_best_test" else []),
            *([_INTERVAL] if any(intervals.values()) else []),
            *_care([sample for sample in paired.values() if sample.size]),
        ),
        group=group,
    )


def _paired(grid: cells.Grid, place: tuple[str, str], reference: str | None) -> Floats:
    """Differences by seed; none of a method from itself, or from a best that there is not."""
    name, column = place
    ours = grid.get(place, {})
    theirs = grid.get((reference, column), {}) if reference is not None and reference != name else {}
    return differences(ours, theirs)


def _care(samples: list[Floats]) -> list[str]:
    """What so few seeds cannot show."""
    sizes = sorted({sample.size for sample in samples})
    if not sizes:
        return []
    covered = [f"{COVERAGE[n]} with {n} seeds" for n in sizes if n in COVERAGE]
    narrow = (
        "Made from few seeds, such an interval is too narrow: of 100 of them, not 95 contain the true difference, but "
        f"about {', '.join(covered)}."
    )
    few = too_few_pairs(sizes)
    alone = (
        "Under three common seeds, or where all differences are the same, there is no interval: after ± stands the "
        "standard deviation of the differences."
    )
    return [
        *([narrow] if covered else []),
        *([alone] if any(sample.size < FEWEST or np.ptp(sample) <= SAME for sample in samples) else []),
        *([few] if few else []),
    ]
