"""Data of curves for the page's script, with no more digits than a screen can show."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.document import Curve, Floats, Panel, Report, Section, Table
from reports.figures.palette import Style

MOST_SHOWN = 8
"""Curves of a panel that are shown at first; more are hard to distinguish."""

_MEAN_DIGITS = 5  # significant; a chart is about 300 pixels high, and its read-out shows four
_STD_DIGITS = 3


def names(panels: Sequence[Panel]) -> list[str]:
    """Names of all curves, in order, without duplicates."""
    return list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))


def groups(panels: Sequence[Panel]) -> dict[str, list[Panel]]:
    """Panels by group, in order."""
    by_group: dict[str, list[Panel]] = {}
    for panel in panels:
        by_group.setdefault(panel.group, []).append(panel)
    return by_group


def shown_first(section: Section, report: Report) -> set[str]:
    """The curves to show at first: all if they are few, else the first and those that tables mark most often."""
    every = names(section.panels)
    if len(every) <= MOST_SHOWN:
        return set(every)
    marks = _marks([table for part in report.sections for table in part.tables])
    # The first is the baseline (see comparison.named).
    ranked = every[:1] + sorted(every[1:], key=lambda name: -marks[name])
    return set(ranked[:MOST_SHOWN])


def _marks(tables: Sequence[Table]) -> Counter[str]:
    """How often each row is marked as best or tied."""
    return Counter(row.name for table in tables for row in table.rows for cell in row.cells if cell.best or cell.tied)


def data(section: Section, styles: Mapping[str, Style]) -> dict[str, Any]:
    """Data for the script in JSON, without NaN; curves of a panel have the same epochs."""
    every = names(section.panels)
    return {
        "methods": [
            {
                "name": name,
                "colour": styles[name].colour,
                "dark": styles[name].on_dark,
                "dash": list(styles[name].dash),
            }
            for name in every
        ],
        "groups": [
            {"name": name, "panels": [_panel(panel, every) for panel in panels]}
            for name, panels in groups(section.panels).items()
        ],
    }


def _panel(panel: Panel, every: Sequence[str]) -> dict[str, Any]:
    epochs = np.unique(np.concatenate([curve.epoch for curve in panel.curves] or [np.empty(0, np.int64)]))
    return {
        "key": panel.key,
        "quantity": panel.quantity,
        "unit": panel.unit,
        "epochs": epochs.tolist(),
        "curves": [
            {
                "method": every.index(curve.name),
                "n": curve.n,
                "outer": curve.outer_start,
                "mean": _aligned(curve, curve.mean, epochs, _MEAN_DIGITS),
                "std": _aligned(curve, curve.std, epochs, _STD_DIGITS),
            }
            for curve in panel.curves
        ],
    }


def _aligned(curve: Curve, values: Floats, epochs: np.ndarray, digits: int) -> list[float | None]:
    """Values at `epochs`, None where a curve has none."""
    known = {int(e): float(v) for e, v in zip(curve.epoch, values, strict=True) if np.isfinite(v)}
    return [_short(known[epoch], digits) if epoch in known else None for epoch in epochs.tolist()]


def _short(value: float, digits: int) -> float:
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded
