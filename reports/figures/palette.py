"""Colours and dashes of methods, the same in all figures of a report, and colours of classes.

Colours: Okabe and Ito, Color Universal Design (2008), without black and yellow, which are invisible on a dark and on
a white page.
"""

import colorsys
import dataclasses
from collections.abc import Iterable

NEUTRAL = "#808080"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_ON_DARK = {"#0072B2": "#1f83bb"}  # lighter, for a contrast of 4 on the background of dark pages
DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5, 1.5),
    (1.2, 1.2),
    (6, 1.5, 1.2, 1.5),
    (10, 3),
    (5, 1.5, 1.2, 1.5, 1.2, 1.5),
    (2.5, 2.5),
)

# Colours of ten classes; Petroff, Accessible color sequences for data visualization (2021), arXiv:2107.02270, table 1.
_TEN_CLASSES = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)


@dataclasses.dataclass(frozen=True)
class Style:
    """The style of one method.

    Args:
        colour: `#rrggbb`.
        pattern: an index of DASHES, markers or hatches, which distinguish methods of one colour.
    """

    colour: str
    pattern: int = 0

    @property
    def on_dark(self) -> str:
        """The colour on a dark page."""
        return _ON_DARK.get(self.colour, self.colour).lower()

    @property
    def dash(self) -> tuple[float, ...]:
        """Lengths of dashes and gaps, in line widths; empty if solid."""
        return DASHES[self.pattern]

    @property
    def linestyle(self) -> tuple[float, tuple[float, ...]] | None:
        """The dash for Matplotlib; None if solid."""
        return (0, self.dash) if self.dash else None

    def dasharray(self, width: float) -> str:
        """The dash as SVG's stroke-dasharray, for a line of this width."""
        return " ".join(f"{length * width:g}" for length in self.dash) or "none"


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name: colours first, then dashes; baselines are neutral.

    Args:
        names: all methods in the report, first those that should differ by colour; duplicates are ignored. Up to 42
            besides the baselines get different styles.
    """
    distinct = list(dict.fromkeys(names))
    baselines = [name for name in distinct if is_baseline(name)]
    others = [name for name in distinct if not is_baseline(name)]
    found = {name: Style(NEUTRAL, i % len(DASHES)) for i, name in enumerate(baselines)}
    for i, name in enumerate(others):
        found[name] = Style(COLOURS[i % len(COLOURS)], i // len(COLOURS) % len(DASHES))
    return found


def is_baseline(name: str) -> bool:
    """Whether a method is a baseline."""
    return name.startswith("baseline")


def class_colours(count: int) -> list[str]:
    """`#rrggbb` of each class; of more than ten, only neighbours differ clearly, and a figure needs labels too."""
    if count <= len(_TEN_CLASSES):
        return list(_TEN_CLASSES[:count])
    colours = []
    for i in range(count):
        # Steps of the golden angle give close numbers distant hues; the lightness separates close hues.
        red, green, blue = colorsys.hls_to_rgb(i * 0.618034 % 1, (0.36, 0.52, 0.66)[i % 3], 0.65)
        colours.append(f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}")
    return colours
