"""Figures as files: the same figure gives the same bytes."""

import dataclasses
import io
from typing import Any, Literal

from matplotlib.figure import Figure as Sheet

from autodo.storage import Location
from reports.document import Figure
from reports.figures import canvas

_DPI = 200  # of PNG, and of pictures within SVG; twice that of a page, for sharp screens and for print


@dataclasses.dataclass(frozen=True)
class Files:
    """A figure's content in both formats."""

    svg: bytes
    png: bytes

    @property
    def smallest(self) -> tuple[str, bytes]:
        """Media type and content for a page: SVG, or PNG where that is smaller.

        It belongs into the `src` of an <img>, within which no script runs and no link is followed.
        """
        return min(("image/svg+xml", self.svg), ("image/png", self.png), key=lambda pair: len(pair[1]))


def render(figure: Figure) -> Files:
    """Draws a figure, once for both formats. Letters of SVG are outlines, so that it looks the same everywhere."""
    sheet = figure.draw()
    # What is laid out once stays as it is.
    sheet.draw_without_rendering()
    sheet.set_layout_engine("none")
    # Ids within SVG are random without a salt, and both formats note the time or the program's version.
    with canvas.look(**{"svg.hashsalt": figure.key, "svg.fonttype": "path"}):
        return Files(_bytes(sheet, "svg", {"Date": None, "Creator": None}), _bytes(sheet, "png", {"Software": None}))


def save(figure: Figure, folder: Location, files: Files | None = None) -> list[Location]:
    """Writes KEY.svg and KEY.png into a folder and returns them; `files` if the figure is drawn already."""
    files = files or render(figure)
    places = [folder / f"{figure.key}.svg", folder / f"{figure.key}.png"]
    for place, content in zip(places, (files.svg, files.png), strict=True):
        place.write_bytes(content)
    return places


def _bytes(sheet: Sheet, kind: Literal["svg", "png"], metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    sheet.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata, facecolor="white")
    return buffer.getvalue()
