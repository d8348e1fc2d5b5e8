"""Cells of tables from values by seed: means, holes, and marks on the best and tied rows."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import pandas as pd

from reports.analysis.classes import with_metric
from reports.analysis.comparison import TEST_AS_VAL, names_in_order
from reports.analysis.stats import SIGNIFICANT, Sample, differences, mean_std, paired_t_tests
from reports.document import Cell, Column, Reference, Row, Table
from reports.keys import key

Grid = dict[tuple[str, str], Sample]
"""Values by seed of each (row, column)."""

TIED = (
    "Tied with the best: a paired t-test over common seeds finds no difference "
    f"(p ≥ {SIGNIFICANT:g}, not corrected for the number of comparisons)."
)
READ_TEST = f"Rows of {TEST_AS_VAL} are not compared: their outer loop read the test images."
UNTESTED = "Methods with fewer than two seeds in common with the best are not tested against it."


def grid(runs: pd.DataFrame, column: str, values: str) -> Grid:
    """Values by seed of each name and each value of a column of runs.

    Args:
        runs: of one group, from `reports.analysis.comparison.named`.
        column: its values become the columns of the table, such as `distortion`.
        values: column of the values shown; NaN where a run has none.
    """
    by_seed = runs.astype({values: float}).groupby(["name", column, "seed"], sort=False)[values].mean()
    found: dict[tuple[str, str], dict[int, float]] = {}
    for (name, place, seed), value in zip(by_seed.index.tolist(), by_seed.tolist(), strict=True):
        found.setdefault((str(name), str(place)), {})[int(seed)] = value
    return dict(found)


def names(runs: pd.DataFrame) -> list[str]:
    """Names of the rows of a table, in the order of `named`: the variants of a method are as in their grid."""
    return names_in_order(runs, runs["variant"])


def distortions(runs: pd.DataFrame) -> list[str]:
    """Columns of a table: IR-NR in the paper's notation, from little to much distortion."""
    return [str(name) for name in dict.fromkeys(runs["distortion"])]


def in_percent(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The runs of cells that have a metric, with the column `percent`: the error times 100."""
    having = with_metric(runs, metric)
    return having.assign(percent=100 * having[metric].astype(float))


def by_group(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Runs that can be compared, by group."""
    for group, of_group in runs.groupby("group", sort=True):
        yield str(group), of_group


def by_cell(runs: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Runs that can be compared, by group and distortion, from little to much distortion."""
    for group, of_group in by_group(runs):
        for distortion, of_cell in of_group.groupby("distortion", sort=False):
            yield group, str(distortion), of_cell


def cell_table(
    subject: Iterable[str],
    group: str,
    distortion: str,
    *,
    caption: str,
    columns: Sequence[Column],
    rows: tuple[Row, ...],
    notes: Iterable[str],
    heading: str = "method",
) -> Table:
    """A table of the runs of one group and distortion.

    Args:
        subject: first parts of the key.
    """
    return Table(
        key=key(*subject, group, distortion),
        title=f"{group}, {distortion}",
        caption=caption,
        heading=heading,
        columns=tuple(columns),
        rows=rows,
        notes=tuple(notes),
        group=group,
        distortion=distortion,
    )


def has_expected(runs: pd.DataFrame) -> bool:
    """Whether it is known which of these runs should be there."""
    return bool(runs["is_expected"].any())


def cell(sample: Sample, known: bool, paper: Reference | None = None) -> Cell:
    """Mean, standard deviation and n over seeds.

    Args:
        sample: NaN for each seed that is missing.
        known: whether it is known which seeds should be there.
    """
    values = [value for value in sample.values() if not math.isnan(value)]
    mean, std = mean_std(values)
    return Cell(mean, std, len(values), expected=len(sample) if known else None, paper=paper)


def rows(
    names: Sequence[str],
    columns: Sequence[Column],
    grid: Mapping[tuple[str, str], Sample],
    *,
    known: bool,
    papers: Mapping[tuple[str, str], Reference] | None = None,
    marked: bool = True,
    not_compared: Collection[str] = (),
) -> tuple[Row, ...]:
    """The rows of a table.

    Args:
        grid: values by seed of each (row, column); a cell without an entry is a hole that was not expected.
        papers: figures of the paper, by (row, column).
        marked: whether to mark the best of each column with a good end, and rows tied with it.
        not_compared: names of rows that are shown but never marked.
    """
    papers = papers or {}
    made: dict[str, list[Cell]] = {name: [] for name in names}
    for column in columns:
        cells = {
            name: cell(grid.get((name, column.name), {}), known, papers.get((name, column.name))) for name in names
        }
        if marked and column.better is not None:
            compared = {name: cells[name] for name in names if name not in not_compared}
            samples = {name: grid.get((name, column.name), {}) for name in compared}
            cells |= _mark(compared, samples, column)
        for name in names:
            made[name].append(cells[name])
    return tuple(Row(name, tuple(cells)) for name, cells in made.items())


def rows_of_test_as_val(runs: pd.DataFrame) -> tuple[frozenset[str], tuple[str, ...]]:
    """Names of rows whose outer loop read the test images, which are not compared; and a note if there are any."""
    names = frozenset(map(str, runs.loc[runs["split"] == TEST_AS_VAL, "name"]))
    return names, (READ_TEST,) if names else ()


def configs_of_rows(runs: pd.DataFrame, cells: Iterable[tuple[str, str]]) -> list[str]:
    """Configurations, as JSON, of the runs in the rows of these (row, column)."""
    return [str(config) for config in runs.loc[runs["name"].isin({row for row, _ in cells}), "config"]]


def best_of(cells: Mapping[str, Cell], better: str) -> list[str]:
    """Names of the best complete cells; none if all are equal.

    Args:
        better: `lower` or `higher`.
    """
    # A mean over fewer seeds than the rest may be good by chance. Rounded, because a sum depends on its order.
    means = {name: round(c.mean, 9) for name, c in cells.items() if c.mean is not None and c.complete}
    if not means or min(means.values()) == max(means.values()):
        return []
    top = min(means.values()) if better == "lower" else max(means.values())
    return [name for name, mean in means.items() if mean == top]


def _mark(cells: dict[str, Cell], samples: Mapping[str, Sample], column: Column) -> dict[str, Cell]:
    best = best_of(cells, column.better or "")
    if not best or _beaten(best[0], cells, samples, column):
        return cells
    others = [name for name, given in cells.items() if given.complete and name not in best]
    p_values = paired_t_tests([differences(samples[name], samples[best[0]]) for name in others])
    tied = {name for name, p in zip(others, p_values, strict=True) if p is not None and p >= SIGNIFICANT}
    return {name: dataclasses.replace(c, best=name in best, tied=name in tied) for name, c in cells.items()}


def _beaten(best: str, cells: Mapping[str, Cell], samples: Mapping[str, Sample], column: Column) -> bool:
    """Whether a method that lacks seeds is better than the best complete one on their common seeds."""
    sign = 1 if column.better == "lower" else -1
    for name, cell in cells.items():
        if not cell.complete and cell.mean is not None:
            paired = differences(samples[name], samples[best])
            if paired.size and sign * float(paired.mean()) < 0:
                return True
    return False


def mark_notes(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Notes on the meaning of the marks in a table, and on why marks are missing."""
    tied = untested = False
    undecided = []
    for i, column in enumerate(columns):
        of_column = {row.name: row.cells[i] for row in rows}
        has_best = any(cell.best for cell in of_column.values())
        tied |= any(cell.tied for cell in of_column.values())
        untested |= has_best and any(not c.best and c.complete and c.n < 2 for c in of_column.values())
        ahead = any(cell.mean is not None and not cell.complete for cell in of_column.values())
        if column.better and ahead and not has_best and best_of(of_column, column.better):
            undecided.append(column.name)
    reason = "a method with missing seeds is ahead on the seeds that it has"
    return [
        *([TIED] if tied else []),
        *([UNTESTED] if untested else []),
        *([f"Nothing is marked in {', '.join(undecided)}: {reason}."] if undecided else []),
    ]
