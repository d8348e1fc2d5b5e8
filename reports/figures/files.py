"""Figures as files: the same figure gives the same bytes."""

import io
from typing import NamedTuple

from reports.document import Figure
from reports.figures import canvas

_DPI = 200


class Drawing(NamedTuple):
    """A figure as SVG, whose letters are outlines so that it looks the same everywhere, and as PNG."""

    svg: bytes
    png: bytes

    @property
    def smallest(self) -> tuple[str, bytes]:
        """Media type and content for a page.

        It belongs into the `src` of an <img>, within which no script runs and no link is followed.
        """
        contents = (("image/svg+xml", self.svg), ("image/png", self.png))
        return min(contents, key=lambda pair: len(pair[1]))


def drawn(figure: Figure) -> Drawing:
    """The figure's files; it is drawn once for both."""
    # Ids within SVG are random without a salt, and both formats note the time or the program's version.
    with canvas.look(**{"svg.hashsalt": figure.key, "svg.fonttype": "path"}):
        sheet = figure.draw()
        svg, png = io.BytesIO(), io.BytesIO()
        sheet.savefig(svg, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": None}, facecolor="white")
        sheet.savefig(png, format="png", dpi=_DPI, metadata={"Software": None}, facecolor="white")
    return Drawing(svg.getvalue(), png.getvalue())
