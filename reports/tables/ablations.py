"""Tables 5 and 6 of the paper: what other splits than its first change."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from reports.analysis.comparison import named
from reports.analysis.stats import Sample
from reports.document import Column, Table
from reports.keys import key
from reports.tables import cells
from reports.tables.errors import METRICS, OPTIMISTIC, paper_errors, paper_notes

# Split -> (table of the paper, what is compared, a word of care).
_SPLITS = {
    "test-as-val": (
        5,
        "lambda estimated on val (paper) and on the test images (test-as-val)",
        "With test-as-val the outer loop reads the test images: its errors say whether lambda overfits to val, and are "
        "no estimate of the error on new images.",
    ),
    "union": (
        6,
        "trained on the distorted train points (paper) and on those and the clean val points (union)",
        "With union there are more train points, and those of val have no distortion.",
    ),
}
_DIFFERENCE = "difference"


def split_tables(
    results: pd.DataFrame, metric: str = "error_best_val", expected: Iterable[Mapping[str, Any]] = ()
) -> list[Table]:
    """Errors of methods with the paper's split beside another, and their differences by seed.

    One table per group, distortion and other split that has runs; methods that have none with it are left out.

    Args:
        results, metric, expected: as for `error_tables`.
    """
    tables = []
    runs_of_all = cells.in_percent(named(results, expected), metric)
    for group, distortion, runs in cells.by_cell(runs_of_all.assign(name=_without_split(runs_of_all))):
        for split, (number, compared, care) in _SPLITS.items():
            methods = set(runs.loc[runs["split"] == split, "name"])
            of_both = runs[runs["name"].isin(methods) & runs["split"].isin(("paper", split))]
            if not methods:
                continue
            papers = paper_errors(of_both, "split", (number, 1, 2, 3))
            grid = cells.grid(of_both, "split", "percent")
            # The paper's names of splits are ours; only a method with both can be told apart from itself.
            columns = [Column(name, "%", better="lower") for name in ("paper", split)]
            rows = cells.rows(
                cells.names(of_both),
                [*columns, Column(_DIFFERENCE, "%")],
                {**grid, **{(name, _DIFFERENCE): _paired(grid, name, split) for name in methods}},
                known=cells.known(of_both),
                papers=papers,
            )
            tables.append(
                Table(
                    key=key("split", split, metric.replace("_", "-"), group, distortion),
                    title=f"{group}, {distortion}",
                    caption=f"{METRICS[metric]}, {compared}, mean ± std over seeds; difference by seed",
                    heading="method",
                    columns=(*columns, Column(_DIFFERENCE, "%")),
                    rows=rows,
                    notes=(
                        care,
                        *([OPTIMISTIC] if metric == "error_best_test" else []),
                        *cells.mark_notes(rows, columns),
                        *paper_notes(papers, metric),
                    ),
                    group=group,
                    distortion=distortion,
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
