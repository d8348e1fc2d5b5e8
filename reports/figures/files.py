"""Figures as files: the same figure gives the same bytes."""

import dataclasses
import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG

from autodo.storage import Location
from reports.document import Figure
from reports.figures import canvas


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
    # Ids within SVG are random without a salt, and both formats note the time or the program's version.
    with canvas.look(**{"svg.hashsalt": figure.key, "svg.fonttype": "path"}):
        # What is laid out once stays as it is.
        if (layout := sheet.get_layout_engine()) is not None:
            layout.execute(sheet)
            sheet.set_layout_engine("none")
        # Straight to the canvas: savefig would draw everything twice. SVG last, because it changes the resolution.
        svg, png = io.BytesIO(), io.BytesIO()
        FigureCanvasAgg(sheet).print_png(png, metadata={"Software": None})
        FigureCanvasSVG(sheet).print_svg(svg, metadata={"Date": None, "Creator": None})
        return Files(svg.getvalue(), png.getvalue())


def save(figure: Figure, folder: Location, files: Files | None = None) -> list[Location]:
    """Writes KEY.svg and KEY.png into a folder and returns them; `files` if the figure is drawn already."""
    files = files or render(figure)
    places = [folder / f"{figure.key}.svg", folder / f"{figure.key}.png"]
    for place, content in zip(places, (files.svg, files.png), strict=True):
        place.write_bytes(content)
    return places
