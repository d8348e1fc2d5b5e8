"""Histograms of the learned hyperparameters of train points; memory does not grow with the number of points."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from autodo.io.storage import Location
from reports.document import Floats
from reports.readers.column_checks import UnusableFile, labels_of
from reports.readers.load import reduce_runs

# Affine operation -> largest standard deviation of its magnitude, in the order of the columns gate_probability and
# magnitude. The same as autodo.augment.affine.WARP_OPERATIONS, whose import would need PyTorch.
OPERATIONS = {
    "rotate": np.radians(30),
    "scale-x": 0.5,
    "scale-y": 0.5,
    "translate-x": 0.45,
    "translate-y": 0.45,
    "shear-x": 0.3,
    "shear-y": 0.3,
}
GROUPS = ("clean, majority", "clean, minority", "wrong, majority", "wrong, minority")
"""By whether the label was changed, and by the true class of the image."""

WEIGHT_EDGES = np.append(np.linspace(0, 10, 1001), np.inf)
SHARE_EDGES = np.linspace(0, 1, 201)

Counts = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class PointSummary:
    """Histograms of the learned values of train points, by group; None for values that were not learned.

    Args:
        weight: counts by WEIGHT_EDGES.
        gate, magnitude: counts by SHARE_EDGES of each operation; magnitudes as shares of their range.
    Shape:
        size [4] points of each group; weight [4, W]; gate, magnitude [4, 7, S].
    """

    size: Counts
    weight: Counts | None = None
    gate: Counts | None = None
    magnitude: Counts | None = None

    def __add__(self, other: "PointSummary") -> "PointSummary":
        return PointSummary(
            self.size + other.size,
            _sum(self.weight, other.weight),
            _sum(self.gate, other.gate),
            _sum(self.magnitude, other.magnitude),
        )


def _sum(one: Counts | None, other: Counts | None) -> Counts | None:
    return other if one is None else one if other is None else one + other


def point_summaries(
    root: Location | str, run_ids: Sequence[str], classes: int, minority: Sequence[int] = ()
) -> tuple[dict[str, PointSummary], tuple[str, ...]]:
    """The summary of each run, and warnings.

    Args:
        classes: C.
        minority: labels of the minority classes.
    """

    def summarise(table: pa.Table) -> PointSummary:
        label, clean = labels_of(table, ("label", "clean_label"), classes)
        group = 2 * (label != clean) + np.isin(clean, list(minority))
        weight = table["weight"].to_numpy().astype(float)
        gate, magnitude = (_rows(table[name]) for name in ("gate_probability", "magnitude"))
        share = None if magnitude is None else magnitude / np.array(list(OPERATIONS.values()))
        return PointSummary(
            np.bincount(group, minlength=len(GROUPS)),
            _counts(weight[:, None], group, WEIGHT_EDGES)[:, 0] if np.isfinite(weight).any() else None,
            None if gate is None else _counts(gate, group, SHARE_EDGES),
            None if share is None else _counts(share, group, SHARE_EDGES),
        )

    columns = ["label", "clean_label", "weight", "gate_probability", "magnitude"]
    return reduce_runs(root, "points", run_ids, columns, summarise)


def _rows(column: pa.ChunkedArray) -> Floats | None:
    """A column of lists as [n, 7]; None if all are null."""
    if column.null_count == len(column):
        return None
    lists = column.combine_chunks()
    if lists.null_count or set(lists.value_lengths().to_pylist()) != {len(OPERATIONS)}:
        raise UnusableFile(f"it does not have {len(OPERATIONS)} operations for each point")
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1).astype(float)


def _counts(values: Floats, group: Counts, edges: Floats) -> Counts:
    """Counts of finite values by group, column and bin. Shape: values [n, K], group [n] -> [4, K, S]."""
    bins = len(edges) - 1
    row, column = np.nonzero(np.isfinite(values))
    # A share of the range may be rounded above 1.
    place = np.clip(np.searchsorted(edges, values[row, column], side="right") - 1, 0, bins - 1)
    flat = (group[row] * values.shape[1] + column) * bins + place
    return np.bincount(flat, minlength=len(GROUPS) * values.shape[1] * bins).reshape(len(GROUPS), -1, bins)


def quantiles(counts: Counts, edges: Floats, shares: Sequence[float]) -> Floats:
    """Quantiles of binned values, taken as uniform within their bins; NaN without values.

    Shape:
        counts [..., S], edges [S + 1] finite -> [..., len(shares)].
    """
    flat = counts.reshape(-1, counts.shape[-1])
    found = np.full((len(flat), len(shares)), np.nan)
    for i, row in enumerate(flat):
        if row.any():
            below = np.concatenate([[0.0], np.cumsum(row) / row.sum()])
            for j, share in enumerate(shares):
                # The bin in which the cumulative share is reached, skipping empty bins.
                at = max(int(np.searchsorted(below, share, side="left")), 1)
                left, right = below[at - 1], below[at]
                part = 0.0 if right == left else (share - left) / (right - left)
                found[i, j] = edges[at - 1] + part * (edges[at] - edges[at - 1])
    return found.reshape(*counts.shape[:-1], len(shares))
