"""Parts that all figures share: the sheet and its style, safe text from stores, legends."""

import functools
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D

from reports.figures.palette import Style

WIDTH = 7.2  # inches; width of the text of a printed page, and two panels are readable on a phone
DPI = 200  # of PNG, and of rasterized parts of SVG
GREY = "#6b6b6b"
LONGEST_NAME = 24

# Matplotlib ships this font, so that figures look the same on every machine.
_STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.hinting": "none",  # hinting makes text wider than the layout at some resolutions
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
}


def house_style(**more: Any) -> AbstractContextManager[None]:
    """Context with the style of all figures, independent of the user's Matplotlib settings."""
    return matplotlib.style.context(["default", {**_STYLE, **more}])


def styled(draw: Callable[[], Sheet]) -> Callable[[], Sheet]:
    """Decorate `draw` to use the style of all figures."""

    @functools.wraps(draw)
    def wrapped() -> Sheet:
        with house_style():
            return draw()

    return wrapped


def sheet(height: float, width: float = WIDTH) -> Sheet:
    """An empty white figure, in inches, that pyplot does not manage."""
    figure = Sheet(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(count: int, panel_height: float, columns: int = 2, extra_height: float = 0.0) -> tuple[Sheet, list[Axes]]:
    """A sheet with `count` axes, row by row."""
    columns = min(columns, max(count, 1))
    rows = max(1, math.ceil(count / columns))
    figure = sheet(panel_height * rows + extra_height, WIDTH if columns > 1 else WIDTH * 0.62)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


@functools.cache
def _glyphs() -> frozenset[int]:
    path = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans"))
    return frozenset(FT2Font(path).get_charmap())


def drawable(text: str) -> bool:
    """Whether the font has all characters of a text."""
    return all(ord(character) in _glyphs() for character in visible(text))


def plain(text: str, longest: int | None = None) -> str:
    """Text that Matplotlib draws literally: no formulas, no control characters, no missing glyphs.

    Args:
        longest: characters; longer text is cut in the middle, because names often differ at their ends.
    """
    shown = "".join(character if ord(character) in _glyphs() else "\ufffd" for character in visible(text))
    if longest is not None and len(shown) > longest:
        head = (longest - 1 + 1) // 2
        shown = f"{shown[:head]}…{shown[len(shown) - (longest - 1 - head) :]}"
    return shown.replace("$", r"\$")


def visible(text: str) -> str:
    """Text on one line, without invisible characters."""
    # Category C: control characters, and marks that change the direction of text.
    kept = (" " if character.isspace() else character for character in text)
    return "".join(c for c in kept if not unicodedata.category(c).startswith("C")).strip()


def class_labels(names: Sequence[str], longest: int = 12) -> list[str]:
    """Labels of classes in a figure: the shortened name, with its number if it is ambiguous or cannot be drawn."""
    cut = [plain(name, longest) if drawable(name) else "" for name in names]
    return [label if label and cut.count(label) == 1 else _numbered(i, label) for i, label in enumerate(cut)]


def _numbered(index: int, label: str) -> str:
    return f"{index}: {label}" if label else str(index)


def class_key(names: Sequence[str]) -> str:
    """A sentence with the names of classes that are drawn as numbers; empty if there are none."""
    numbered = [(i, name) for i, name in enumerate(names) if not drawable(name) or not visible(name)]
    if not numbered:
        return ""
    listed = ", ".join(f"{i} = {name or '(no name)'}" for i, name in numbered[:20])
    return f" Classes whose names cannot be drawn are shown as numbers: {listed}{', …' if len(numbered) > 20 else ''}."


def legend(figure: Sheet, entries: Sequence[tuple[Artist, str]], columns: int | None = None) -> None:
    """Add a legend below all axes."""
    if entries:
        handles, labels = zip(*entries, strict=True)
        # Matplotlib omits labels that begin with an underscore.
        shown = [f"\u200a{label}" if label.startswith("_") else label for label in labels]
        longest = max(len(label) for label in shown)
        fitting = columns or max(1, int(figure.get_figwidth() / (0.4 + 0.065 * longest)))
        columns = -(-len(shown) // -(-len(shown) // fitting))  # rows of equal length
        figure.legend(handles, shown, loc="outside lower center", ncols=columns, handlelength=2.8)


def line_entry(name: str, style: Style) -> tuple[Artist, str]:
    """Legend entry of a method's line."""
    return Line2D([], [], color=style.colour, linestyle=style.linestyle or "-", linewidth=1.6), plain(name, 60)
