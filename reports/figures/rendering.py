"""Render figures as SVG and PNG files, with the same bytes for the same figure."""

import dataclasses
import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from PIL import Image

from autodo.io.storage import Location, StrPath, as_location
from reports.document import Figure
from reports.figures import canvas

PAGE_BYTES = 180_000
"""Target size of a picture in the page: the paper's grids have about twenty, and base64 adds a third."""

# Resolution and number of colours; under 110 dpi text is hard to read in print.
_PAGE_FORMS = ((canvas.DPI, 256), (150, 256), (130, 256), (110, 256), (110, 128), (110, 64))


@dataclasses.dataclass(frozen=True)
class RenderedFigure:
    """A figure as SVG and PNG."""

    svg: bytes
    png: bytes

    @property
    def smallest(self) -> tuple[str, bytes]:
        """Media type and content for a page: SVG, or PNG where that is smaller.

        Use it in the `src` of an <img>, where no script runs and no link is followed.
        """
        return min(("image/svg+xml", self.svg), ("image/png", self.png), key=lambda pair: len(pair[1]))

    @property
    def for_page(self) -> tuple[str, bytes]:
        """`smallest`, or if that exceeds PAGE_BYTES the sharpest PNG of few colours that does not, or the smallest."""
        found = self.smallest
        for dpi, colours in _PAGE_FORMS:
            if len(found[1]) <= PAGE_BYTES:
                break
            found = "image/png", _palette_png(self.png, dpi, colours)
        return found


def render(figure: Figure) -> RenderedFigure:
    """Draw a figure once for both formats. Text in SVG becomes outlines, so that it looks the same everywhere."""
    sheet = figure.draw()
    # Without a salt, ids in SVG are random; without metadata=None, files contain the time and the version.
    with canvas.house_style(**{"svg.hashsalt": figure.key, "svg.fonttype": "path"}):
        # Lay out once.
        if (layout := sheet.get_layout_engine()) is not None:
            layout.execute(sheet)
            sheet.set_layout_engine("none")
        # savefig would draw everything twice. SVG last, because it changes the resolution.
        svg, png = io.BytesIO(), io.BytesIO()
        FigureCanvasAgg(sheet).print_png(png, metadata={"Software": None})
        FigureCanvasSVG(sheet).print_svg(svg, metadata={"Date": None, "Creator": None})
        return RenderedFigure(svg.getvalue(), png.getvalue())


def _palette_png(png: bytes, dpi: int, colours: int) -> bytes:
    """Convert a PNG of canvas.DPI to another resolution and number of colours."""
    with Image.open(io.BytesIO(png)) as file:
        picture = file.convert("RGB")  # the sheet is opaque
    if dpi != canvas.DPI:
        size = (round(picture.width * dpi / canvas.DPI), round(picture.height * dpi / canvas.DPI))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    # An octree is smaller but merges pale shades; dithering makes the file larger.
    reduced = picture.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    content = io.BytesIO()
    reduced.save(content, "PNG", optimize=True, dpi=(dpi, dpi))
    return content.getvalue()


def save(figure: Figure, folder: StrPath | Location, files: RenderedFigure | None = None) -> list[Location]:
    """Write KEY.svg and KEY.png into a folder; `files` if the figure is rendered already."""
    folder, files = as_location(folder), files or render(figure)
    places = [folder / f"{figure.key}.svg", folder / f"{figure.key}.png"]
    for place, content in zip(places, (files.svg, files.png), strict=True):
        place.write_bytes(content)
    return places
