"""Curves as data for the page's script: numbers as short as a screen can show them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.document import Curve, Floats, Panel, Report, Section, Table
from reports.figures.palette import Style

MOST_SHOWN = 8
"""More curves than these in a panel cannot be told apart: the others wait to be chosen."""

DARK = "#1b1e22"
"""Background of a chart in dark mode; `--card` in page.css."""

_MEAN_DIGITS = 5  # significant; a chart is some 300 pixels high, and its read-out shows four
_STD_DIGITS = 3


def names(panels: Sequence[Panel]) -> list[str]:
    """Of all curves, each once, in the order in which they come."""
    return list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))


def groups(panels: Sequence[Panel]) -> dict[str, list[Panel]]:
    """Panels by group, both in the order in which they come."""
    by_group: dict[str, list[Panel]] = {}
    for panel in panels:
        by_group.setdefault(panel.group, []).append(panel)
    return by_group


def shown_first(section: Section, report: Report) -> set[str]:
    """The curves to show before anybody chose: all if they are few, else the first and what tables find best."""
    every = names(section.panels)
    if len(every) <= MOST_SHOWN:
        return set(every)
    marks = _marks([table for part in report.sections for table in part.tables])
    # The first is the baseline, as comparison.named orders them.
    ranked = every[:1] + sorted(every[1:], key=lambda name: -marks[name])
    return set(ranked[:MOST_SHOWN])


def _marks(tables: Sequence[Table]) -> Counter[str]:
    """How often a row is the best of a column, or not told from it."""
    return Counter(row.name for table in tables for row in table.rows for cell in row.cells if cell.best or cell.tied)


def data(section: Section, styles: Mapping[str, Style]) -> dict[str, Any]:
    """What the script draws, as JSON can hold it: no NaN, curves of a panel over the same epochs."""
    every = names(section.panels)
    return {
        "methods": [
            {
                "name": name,
                "colour": styles[name].colour,
                "dark": on_dark(styles[name].colour),
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
    """Values at `epochs`, None where there is none."""
    known = {int(e): float(v) for e, v in zip(curve.epoch, values, strict=True) if np.isfinite(v)}
    return [_short(known[epoch], digits) if epoch in known else None for epoch in epochs.tolist()]


def _short(value: float, digits: int) -> float:
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded


def on_dark(colour: str, background: str = DARK, contrast: float = 4.0) -> str:
    """The colour, mixed with as little white as gives the contrast that a line needs on a dark background.

    Args:
        colour, background: `#rrggbb`.
        contrast: ratio of luminances; WCAG 2.1 asks 3 of graphics (1.4.11), thin lines want more.
    """
    rgb = _rgb(colour)
    for share in np.linspace(0, 1, 51):
        mixed = np.rint(rgb + share * (255 - rgb))
        if contrast_ratio(_hex(mixed), background) >= contrast:
            return _hex(mixed)
    return "#ffffff"


def contrast_ratio(one: str, other: str) -> float:
    """Of two colours `#rrggbb`, 1 to 21, as WCAG 2.1 defines it."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    share = _rgb(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _rgb(colour: str) -> Floats:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)


def _hex(rgb: Floats) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in rgb)
