"""From values by seed to the cells of a table: means, holes, the best of a column and what is not told from it."""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import pandas as pd

from reports.analysis.classes import with_metric
from reports.analysis.comparison import TEST_AS_VAL
from reports.analysis.stats import SIGNIFICANT, Sample, differences, mean_std, paired_t_tests
from reports.document import Cell, Column, Reference, Row

Grid = dict[tuple[str, str], Sample]
"""Values by seed of each (row, column)."""

TIED = (
    "Tied with the best: a paired t-test over common seeds does not tell them apart "
    f"(p ≥ {SIGNIFICANT:g}, not corrected for the number of comparisons)."
)
READ_TEST = f"Rows of {TEST_AS_VAL} are not compared: their outer loop read the test images."
UNTESTED = "With fewer than two seeds in common with the best, nothing is claimed of how methods differ from it."


def grid(runs: pd.DataFrame, column: str, values: str) -> Grid:
    """Values by seed, of every name and every value of a column of runs.

    Args:
        runs: of one group, with the columns of `reports.analysis.comparison.named`.
        column: over whose values the table's columns go, such as `distortion`.
        values: what is shown; NaN for runs without.
    """
    by_seed = runs.astype({values: float}).groupby(["name", column, "seed"], sort=False)[values].mean()
    found: dict[tuple[str, str], dict[int, float]] = {}
    for (name, place, seed), value in zip(by_seed.index.tolist(), by_seed.tolist(), strict=True):
        found.setdefault((str(name), str(place)), {})[int(seed)] = value
    return dict(found)


def names(runs: pd.DataFrame) -> list[str]:
    """Rows of a table: names in the order of the runs of its first distortion that has them, baselines first."""
    found = dict.fromkeys(runs["name"])
    return sorted((str(name) for name in found), key=lambda name: (not name.startswith("baseline"), name))


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
    """Runs that can be compared, by group and distortion, from little to much."""
    for group, of_group in by_group(runs):
        for distortion, of_cell in of_group.groupby("distortion", sort=False):
            yield group, str(distortion), of_cell


def known(runs: pd.DataFrame) -> bool:
    """Whether anybody knows which of these runs should be there."""
    return bool(runs["is_expected"].any())


def cell(sample: Sample, known: bool, paper: Reference | None = None) -> Cell:
    """Mean, standard deviation and n over seeds; seeds beyond those that a grid asked for are not missing anywhere.

    Args:
        sample: NaN for every seed that should be there and is not.
        known: whether anybody knows which should.
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
    aside: Collection[str] = (),
) -> tuple[Row, ...]:
    """The rows of a table.

    Args:
        grid: values by seed of each (row, column); what is not in it is a hole that nobody expected to be filled.
        papers: what the paper states, by (row, column).
        marked: whether to mark the best of each column that has a good end, and what is tied with it.
        aside: names of rows that are shown and not compared.
    """
    papers = papers or {}
    made: dict[str, list[Cell]] = {name: [] for name in names}
    for column in columns:
        cells = {
            name: cell(grid.get((name, column.name), {}), known, papers.get((name, column.name))) for name in names
        }
        if marked and column.better is not None:
            compared = {name: cells[name] for name in names if name not in aside}
            samples = {name: grid.get((name, column.name), {}) for name in compared}
            cells |= _mark(compared, samples, column)
        for name in names:
            made[name].append(cells[name])
    return tuple(Row(name, tuple(cells)) for name, cells in made.items())


def aside(runs: pd.DataFrame) -> tuple[frozenset[str], tuple[str, ...]]:
    """Names of rows that are shown and not compared, since their outer loop read the test images; and a note if any."""
    names = frozenset(map(str, runs.loc[runs["split"] == TEST_AS_VAL, "name"]))
    return names, (READ_TEST,) if names else ()


def best_of(cells: Mapping[str, Cell], better: str) -> list[str]:
    """Names of the best complete cells; none where all are equal.

    Args:
        better: `lower` or `higher`.
    """
    # Over other seeds than the rest, a mean is good by chance. Rounded, because a sum depends on its order.
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
    """Whether a method that lacks seeds is better than the best of the others on the seeds that both have."""
    sign = 1 if column.better == "lower" else -1
    for name, cell in cells.items():
        if not cell.complete and cell.mean is not None:
            paired = differences(samples[name], samples[best])
            if paired.size and sign * float(paired.mean()) < 0:
                return True
    return False


def mark_notes(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """What the marks of a table claim, and where and why they claim nothing."""
    marks = [[row.cells[i] for row in rows] for i in range(len(rows[0].cells))] if rows else []
    notes = [TIED] if any(cell.tied for column in marks for cell in column) else []
    alone = any(
        any(cell.best for cell in column) and any(not cell.best and cell.complete and cell.n < 2 for cell in column)
        for column in marks
    )
    return [*notes, *([UNTESTED] if alone else []), *_undecided(rows, columns)]


def _undecided(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[str, ...]:
    """A note on columns in which nothing is the best, because a method that lacks seeds is ahead; or nothing."""
    names = []
    for i, column in enumerate(columns):
        cells = {row.name: row.cells[i] for row in rows}
        ahead = any(cell.mean is not None and not cell.complete for cell in cells.values())
        if column.better and ahead and best_of(cells, column.better) and not any(c.best for c in cells.values()):
            names.append(column.name)
    if not names:
        return ()
    return (f"Nothing is marked in {', '.join(names)}: a method that lacks seeds is ahead on those that it has.",)
