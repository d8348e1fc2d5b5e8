"""Learning curves over seeds, from the epochs of all runs at once."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports.document import Curve, Floats, Panel
from reports.keys import key

COLUMNS = ("run_id", "epoch", "test_error", "test_loss", "train_loss", "outer_phase")
"""Those of epochs that curves are made of."""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What a panel shows of an epoch, as `transform` of a column."""

    name: str
    unit: str
    column: str
    transform: Callable[[Floats], Floats] = lambda values: values


QUANTITIES = (
    Quantity("test accuracy", "%", "test_error", lambda error: 100 * (1 - error)),
    Quantity("test loss", "", "test_loss"),
    Quantity("train loss", "", "train_loss"),
)
"""Rows of Fig. 7 of the paper."""


class _Cell(NamedTuple):
    group: str
    distortion: str
    name: str


def learning_curves(runs: pd.DataFrame, epochs: pd.DataFrame) -> list[Panel]:
    """Mean and sample standard deviation over seeds by epoch, of each group and distortion.

    A seed whose value is not a number, or that has no such epoch, does not count there; an epoch that no seed has is
    left out of the curve. If a run has an epoch twice, the later row counts.

    Args:
        runs: the frame of `named`; its order is the order of the panels and of their curves.
        epochs: the frame of `load_epochs` with COLUMNS; runs that are not in `runs` play no part.
    """
    cell_of_run = runs.groupby(list(_Cell._fields), sort=False).ngroup().to_numpy()
    names = [_Cell(*map(str, values)) for values in runs[list(_Cell._fields)].drop_duplicates().to_numpy()]
    run = pd.Index(runs["run_id"]).get_indexer(pd.Index(epochs["run_id"]))
    epoch = pd.to_numeric(epochs["epoch"], errors="coerce").to_numpy(float)
    used = np.flatnonzero((run >= 0) & np.isfinite(epoch))
    axis, position = np.unique(epoch[used].astype(np.int64), return_inverse=True)
    if not used.size:
        return []
    # Of rows of the same run and epoch the last: np.unique keeps the first of the reversed.
    _, first = np.unique((run[used] * axis.size + position)[::-1], return_index=True)
    kept = np.sort(used.size - 1 - first)
    rows, bins = used[kept], cell_of_run[run[used[kept]]] * axis.size + position[kept]
    shape = (len(names), axis.size)
    in_outer_phase = epochs["outer_phase"].eq(True).fillna(False).to_numpy(bool)[rows]
    outer = np.bincount(bins[in_outer_phase], minlength=shape[0] * shape[1]).reshape(shape) > 0
    starts = [int(axis[row.argmax()]) if row.any() else None for row in outer]
    statistics = {}
    for quantity in QUANTITIES:
        values = quantity.transform(pd.to_numeric(epochs[quantity.column], errors="coerce").to_numpy(float)[rows])
        statistics[quantity] = _over_seeds(values, bins, shape)
    panels = []
    for place in dict.fromkeys((cell.group, cell.distortion) for cell in names):
        members = [i for i, cell in enumerate(names) if (cell.group, cell.distortion) == place]
        for quantity, (count, mean, std) in statistics.items():
            curves = [
                Curve(names[i].name, axis[known], mean[i, known], std[i, known], int(count[i].max()), starts[i])
                for i in members
                if (known := count[i] > 0).any()
            ]
            if curves:
                name = key("curves", *place, quantity.name)
                panels.append(Panel(name, ", ".join(place), quantity.name, quantity.unit, tuple(curves)))
    return panels


def _over_seeds(
    values: Floats, bins: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Count, mean and standard deviation of the finite values of each bin. Shape: [n], [n] -> three of `shape`."""
    finite = np.isfinite(values)
    values, bins, size = values[finite], bins[finite], shape[0] * shape[1]
    count = np.bincount(bins, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(bins, values, size) / count
        # In two passes: a difference of large sums would lose the digits of a small deviation.
        squares = np.bincount(bins, (values - mean[bins]) ** 2, size)
        std = np.where(count > 1, np.sqrt(squares / (count - 1)), np.nan)
    return count.reshape(shape), mean.reshape(shape), std.reshape(shape)
