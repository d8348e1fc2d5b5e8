"""Learning curves over seeds, from the epochs of all runs at once."""

import dataclasses
from collections.abc import Callable

import pandas as pd

from reports.document import Curve, Panel
from reports.keys import key

COLUMNS = ("run_id", "epoch", "test_error", "test_loss", "train_loss", "outer_phase")
"""Columns of epochs that curves are made of."""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """The quantity that a panel shows: `transform` of a column of epochs."""

    name: str
    unit: str
    column: str
    transform: Callable[["pd.Series[float]"], "pd.Series[float]"] = lambda values: values


QUANTITIES = (
    Quantity("test accuracy", "%", "test_error", lambda error: 100 * (1 - error)),
    Quantity("test loss", "", "test_loss"),
    Quantity("train loss", "", "train_loss"),
)
"""Rows of Fig. 7 of the paper."""


def learning_curves(runs: pd.DataFrame, epochs: pd.DataFrame) -> list[Panel]:
    """Mean and sample standard deviation over seeds by epoch, for each group and distortion.

    Values that are not finite are left out, and so are epochs without any value.

    Args:
        runs: the frame of `named`, whose order is the order of the panels and of their curves.
        epochs: the frame of `load_epochs` with COLUMNS; runs that are not in `runs` are ignored.
    """
    by_cell = runs.groupby(["group", "distortion", "name"], sort=False)
    cell_of_run = pd.Series(by_cell.ngroup().to_numpy(), index=runs["run_id"])
    values = pd.DataFrame(
        {quantity.name: quantity.transform(epochs[quantity.column].astype(float)) for quantity in QUANTITIES}
    )
    values = values.replace([float("inf"), float("-inf")], float("nan"))
    where = [epochs["run_id"].map(cell_of_run).astype(float).rename("cell"), epochs["epoch"].astype(float)]
    statistics = values.groupby(where).agg(["count", "mean", "std"])
    in_outer_phase = epochs["outer_phase"].eq(True).fillna(False).astype(bool)
    starts = where[1][in_outer_phase].groupby(where[0][in_outer_phase]).min()
    cells = list(runs[["group", "distortion", "name"]].drop_duplicates().itertuples(index=False, name=None))
    panels = []
    for place in dict.fromkeys((group, distortion) for group, distortion, _ in cells):
        members = [(i, name) for i, (*of, name) in enumerate(cells) if tuple(of) == place and i in statistics.index]
        for quantity in QUANTITIES:
            curves = []
            for i, name in members:
                of_cell = statistics[quantity.name].loc[[i]].droplevel("cell")
                known = of_cell[of_cell["count"] > 0]
                if len(known):
                    epoch, n = known.index.to_numpy().astype("int64"), int(known["count"].max())
                    start = int(starts[i]) if i in starts.index else None
                    curves.append(Curve(str(name), epoch, known["mean"].to_numpy(), known["std"].to_numpy(), n, start))
            if curves:
                name = key("curves", *place, quantity.name)
                panels.append(Panel(name, ", ".join(place), quantity.name, quantity.unit, tuple(curves)))
    return panels
