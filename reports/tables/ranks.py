"""Average ranks of methods over all datasets and distortions, and tests of their differences."""

import numpy as np
import pandas as pd

from reports.analysis.classes import with_metric
from reports.analysis.comparison import without_test_as_val
from reports.analysis.metrics import metric_name
from reports.analysis.stats import SIGNIFICANT, Ranks, rank
from reports.document import Cell, Column, Row, Table
from reports.keys import key
from reports.tables import cells
from reports.tables.errors import OPTIMISTIC

_ENOUGH = 0.5
"""Share of cells that a method needs to be compared; methods with fewer would leave few cells that all have."""
_SMALLEST_P = 0.001
_P = Column("p against the first", digits=3, smallest=_SMALLEST_P)
_FEW_BLOCKS = 10  # cells that Friedman's chi-squared approximation needs (Demšar 2006, section 3.2.2)


def ranks(runs: pd.DataFrame, metric: str = "error_best_val") -> Ranks | None:
    """Average ranks of methods over the (group, distortion) cells that are complete for all compared methods.

    Methods with complete cells in less than half of all cells are not compared, and are in `left_out`.

    Args:
        runs, metric: as for `error_tables`.
    Returns:
        None if there are under three methods or under two such cells.
    """
    means = _means(with_metric(without_test_as_val(runs), metric), metric)
    share = means.notna().mean(axis=0)
    compared = [str(name) for name in means.columns if share[name] >= _ENOUGH]
    left_out = tuple(str(name) for name in means.columns if share[name] < _ENOUGH)
    return rank(means[compared].dropna(axis=0), left_out)


def _means(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean error of each complete cell, NaN elsewhere.

    Shape:
        -> [(group, distortion), method].
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    for group, of_group in cells.by_group(runs):
        known = cells.has_expected(of_group)
        for (name, distortion), sample in cells.grid(of_group, "distortion", metric).items():
            cell = cells.cell(sample, known)
            of_cell = found.setdefault((group, distortion), {})
            of_cell[name] = cell.mean if cell.mean is not None and cell.complete else np.nan
    frame = pd.DataFrame.from_dict(found, orient="index", dtype=float)
    return frame.reindex(columns=sorted(frame.columns))


def rank_sentences(ranks: Ranks | None) -> tuple[str, ...]:
    """Sentences on what the ranks show and cannot show."""
    if ranks is None:
        return ("Ranks need three methods with results in two datasets or distortions: nothing is compared.",)
    blocks = len(ranks.blocks)
    groups = len({group for group, _ in ranks.blocks})
    p = f"p < {_SMALLEST_P:g}" if ranks.friedman_p < _SMALLEST_P else f"p = {ranks.friedman_p:.2g}"
    found = (
        f"Friedman's test finds a difference between methods ({p}), and Nemenyi's test between which"
        if ranks.different
        else f"Friedman's test finds no difference between methods ({p}), so that no pair can be said to differ"
    )
    sentences = [f"{found}: {len(ranks.names)} methods over {blocks} cells of {groups} group{'s' * (groups > 1)}."]
    if blocks < _FEW_BLOCKS:
        sentences.append(
            f"{blocks} cells are few for these tests, whose p are approximations for {_FEW_BLOCKS} or more."
        )
    if groups < blocks:
        sentences.append(
            "Distortions of one dataset are not independent datasets: p is lower than it should be for new datasets."
        )
    if ranks.left_out:
        sentences.append(f"Not compared, because too few of their cells are complete: {', '.join(ranks.left_out)}.")
    return tuple(sentences)


def rank_tables(runs: pd.DataFrame, metric: str = "error_best_val") -> list[Table]:
    """The table of average ranks, lower is better; none if there is nothing to compare.

    Args:
        runs, metric: as for `error_tables`.
    """
    found = ranks(runs, metric)
    if found is None:
        return []
    blocks = len(found.blocks)
    lowest, highest = float(found.average_rank[0]), float(found.average_rank[-1])
    rows = []
    for i, (name, average) in enumerate(zip(found.names, found.average_rank.tolist(), strict=True)):
        best = average == lowest < highest
        p = float(found.p_values[0, i])
        tied = found.different and not best and p >= SIGNIFICANT
        rows.append(
            Row(name, (Cell(average, None, blocks, best=best, tied=tied), Cell(p, n=blocks) if i else Cell(None)))
        )
    tied_note = "Tied with the best: Nemenyi's test finds no difference (p ≥ 0.05)."
    return [
        Table(
            key=key("ranks", metric.replace("_", "-")),
            title="Average ranks",
            caption=f"average rank by {metric_name(metric, runs)}, over all cells that are complete for "
            "all of the methods",
            heading="method",
            columns=(Column("average rank", better="lower"), _P),
            rows=tuple(rows),
            notes=(
                *([OPTIMISTIC] if metric == "error_best_test" else []),
                *([tied_note] if any(row.cells[0].tied for row in rows) else []),
                *rank_sentences(found),
            ),
        )
    ]
