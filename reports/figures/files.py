"""Figures as files: the same figure gives the same bytes."""

import io
from typing import Literal

from autodo.storage import Location
from reports.document import Figure
from reports.figures import canvas

_PRINT_DPI = 200
_PAGE_DPI = 150  # of pictures within SVG, too


def save(figure: Figure, folder: Location) -> list[Location]:
    """Writes the figure as SVG and PNG into a folder, and returns the files."""
    files = [folder / f"{figure.key}.svg", folder / f"{figure.key}.png"]
    for file, content in zip(files, (svg(figure), png(figure)), strict=True):
        file.write_bytes(content)
    return files


def svg(figure: Figure) -> bytes:
    """The figure as SVG; letters are outlines, so that it looks the same everywhere."""
    return _bytes(figure, "svg", _PAGE_DPI)


def png(figure: Figure, dpi: int = _PRINT_DPI) -> bytes:
    """The figure as PNG."""
    return _bytes(figure, "png", dpi)


def smallest(figure: Figure) -> tuple[str, bytes]:
    """Media type and content for a page: SVG, or PNG where that is smaller.

    It belongs into the `src` of an <img>, within which no script runs and no link is followed.
    """
    contents = (("image/svg+xml", svg(figure)), ("image/png", png(figure, _PAGE_DPI)))
    return min(contents, key=lambda pair: len(pair[1]))


def _bytes(figure: Figure, kind: Literal["svg", "png"], dpi: int) -> bytes:
    buffer = io.BytesIO()
    # Ids within SVG are random without a salt, and both formats note the time or the program's version.
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with canvas.look(**{"svg.hashsalt": figure.key, "svg.fonttype": "path"}):
        figure.draw().savefig(buffer, format=kind, dpi=dpi, metadata=metadata, facecolor="white")
    return buffer.getvalue()
