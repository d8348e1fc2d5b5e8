"""Tables 5 and 6 of the paper: other splits than `paper`."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from reports.analysis.metrics import metric_name
from reports.analysis.stats import Sample
from reports.document import Column, Table
from reports.tables import cells
from reports.tables.errors import OPTIMISTIC, paper_errors, paper_notes

# Split -> (tables of the paper, subject of the comparison, caution).
_SPLITS = {
    "test-as-val": (
        (5, 1, 2, 3),
        "lambda estimated on val (paper) and on the test images (test-as-val)",
        "With test-as-val the outer loop reads the test images: its errors say whether lambda overfits to val, and are "
        "no estimate of the error on new images.",
    ),
    "oversplit": (
        (6, 1, 2, 3),
        "train points and val set apart (paper) and both of all train images (oversplit)",
        "With oversplit val is trained on: choosing the epoch by its error is a weak criterion.",
    ),
    "union": (
        (1, 2, 3),
        "trained on the distorted train points (paper) and on those and the clean val points (union)",
        "With union there are more train points, and those of val have no distortion.",
    ),
}
_DIFFERENCE = "difference"


def split_tables(runs: pd.DataFrame, metric: str = "error_best_val", despite: Collection[str] = ()) -> list[Table]:
    """Errors with the paper's split beside another split, and their differences by seed.

    One table for each group, distortion and other split; methods without runs of that split are left out.

    Args:
        runs, metric, despite: as for `error_tables`.
    """
    tables = []
    in_percent = cells.in_percent(runs, metric)
    for group, distortion, of_cell in cells.by_cell(in_percent.assign(name=_without_split(in_percent))):
        for split, (tables_of_paper, compared, caution) in _SPLITS.items():
            methods = set(of_cell.loc[of_cell["split"] == split, "name"])
            of_both = of_cell[of_cell["name"].isin(methods) & of_cell["split"].isin(("paper", split))]
            if not methods:
                continue
            papers = paper_errors(of_both, "split", tables_of_paper, despite)
            grid = cells.grid(of_both, "split", "percent")
            columns = [Column(name, "%", better="lower") for name in ("paper", split)]
            with_difference = [*columns, Column(_DIFFERENCE, "%")]
            rows = cells.rows(
                cells.names(of_both),
                with_difference,
                {**grid, **{(name, _DIFFERENCE): _paired(grid, name, split) for name in methods}},
                known=cells.has_expected(of_both),
                papers=papers,
            )
            tables.append(
                cells.cell_table(
                    ("split", split, metric.replace("_", "-")),
                    group,
                    distortion,
                    caption=f"{metric_name(metric, of_both)}, {compared}, mean ± std over seeds; difference by seed",
                    columns=with_difference,
                    rows=rows,
                    notes=(
                        caution,
                        *([OPTIMISTIC] if metric == "error_best_test" else []),
                        *cells.mark_notes(rows, columns),
                        *paper_notes(papers, metric, of_both, "split"),
                    ),
                )
            )
    return tables


def _without_split(runs: pd.DataFrame) -> list[str]:
    """Names that are the same for all splits of a method and variant."""
    return [
        name if split == "paper" else method + name.removeprefix(f"{method} ({split})")
        for name, method, split in zip(runs["name"], runs["method"], runs["split"], strict=True)
    ]


def _paired(grid: cells.Grid, name: str, split: str) -> Sample:
    """The other split minus the paper's by seed, NaN for seeds that one of them lacks."""
    ours, theirs = grid.get((name, split), {}), grid.get((name, "paper"), {})
    return {seed: ours.get(seed, np.nan) - theirs.get(seed, np.nan) for seed in ours.keys() | theirs.keys()}
