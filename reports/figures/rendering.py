"""Figures as files: the same figure gives the same bytes."""

import dataclasses
import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from PIL import Image

from autodo.io.storage import Location, StrPath, as_location
from reports.document import Figure
from reports.figures import canvas

PAGE_BYTES = 180_000
"""What a picture of a page should not exceed: the paper's grids make some twenty, and base64 adds a third."""

# Resolution and colours; under 110 dpi letters are hard to read in print.
_PAGE_FORMS = ((canvas.DPI, 256), (150, 256), (130, 256), (110, 256), (110, 128), (110, 64))


@dataclasses.dataclass(frozen=True)
class RenderedFigure:
    """A figure's content in both formats."""

    svg: bytes
    png: bytes

    @property
    def smallest(self) -> tuple[str, bytes]:
        """Media type and content for a page: SVG, or PNG where that is smaller.

        It belongs into the `src` of an <img>, within which no script runs and no link is followed.
        """
        return min(("image/svg+xml", self.svg), ("image/png", self.png), key=lambda pair: len(pair[1]))

    @property
    def for_page(self) -> tuple[str, bytes]:
        """As `smallest`; where that exceeds PAGE_BYTES, a PNG of few colours, as sharp as fits into them.

        What fits in none of these forms has the smallest.
        """
        found = self.smallest
        for dpi, colours in _PAGE_FORMS:
            if len(found[1]) <= PAGE_BYTES:
                break
            found = "image/png", _palette_png(self.png, dpi, colours)
        return found


def render(figure: Figure) -> RenderedFigure:
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
        return RenderedFigure(svg.getvalue(), png.getvalue())


def _palette_png(png: bytes, dpi: int, colours: int) -> bytes:
    """A PNG of canvas.DPI at another resolution and in so many colours."""
    with Image.open(io.BytesIO(png)) as file:
        picture = file.convert("RGB")  # there is nothing to see through: the sheet is white
    if dpi != canvas.DPI:
        size = (round(picture.width * dpi / canvas.DPI), round(picture.height * dpi / canvas.DPI))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    # An octree would be smaller, but gives pale shades one colour; dots of dithering would make the file larger.
    reduced = picture.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    content = io.BytesIO()
    reduced.save(content, "PNG", optimize=True, dpi=(dpi, dpi))
    return content.getvalue()


def save(figure: Figure, folder: StrPath | Location, files: RenderedFigure | None = None) -> list[Location]:
    """Writes KEY.svg and KEY.png into a folder and returns them; `files` if the figure is drawn already."""
    folder, files = as_location(folder), files or render(figure)
    places = [folder / f"{figure.key}.svg", folder / f"{figure.key}.png"]
    for place, content in zip(places, (files.svg, files.png), strict=True):
        place.write_bytes(content)
    return places
