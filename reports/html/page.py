"""Render a report as a page: templates, styles, scripts and pictures in one file."""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports.document import Figure, Report, Table
from reports.figures.palette import styles
from reports.formats import cell_text
from reports.html import curve_data

Picture = Callable[[Figure], tuple[str, bytes]]
"""Function from a figure to its media type, such as `image/svg+xml`, and the content of the file."""

_PNG = b"\x89PNG\r\n\x1a\n"


def to_html(report: Report, picture: Picture) -> str:
    """The report as one self-contained HTML page; all text from a store is escaped.

    Its content security policy allows no requests, and only its own styles and scripts.

    Args:
        picture: draws the figures.
    """
    _check_keys(report)
    panels = [panel for section in report.sections for panel in section.panels]
    tables = any(section.tables for section in report.sections)
    galleries = any(section.galleries for section in report.sections)
    css = [_asset("page.css")]
    scripts = [_asset("page.js")]
    scripts += [_asset("tables.js")] if tables else []
    scripts += [_asset("gallery.js")] if galleries else []
    if panels:
        licence = _asset("LICENSE", "vendor").strip()
        css.insert(0, _asset("uPlot.min.css", "vendor"))
        scripts += [f"/*\n{licence}\n*/\n{_asset('uPlot.iife.min.js', 'vendor')}", _asset("curves.js")]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            styles=styles([*report.methods, *curve_data.names(panels)]),
            policy=_policy(css, scripts),
            css=[Markup(text) for text in css],
            scripts=[Markup(text) for text in scripts],
            picture=lambda figure: _data_uri(*picture(figure)),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.globals.update(text_of=cell_text, curves=curve_data, shared_notes=_shared_notes)
    environment.filters.update(
        sentence=cell_text.sentence, together=_together, breakable=_breakable, minus=_minus, png=_png_uri, score=_score
    )
    environment.tests["in_paper"] = cell_text.has_paper
    return environment


def _asset(name: str, folder: str = "assets") -> str:
    return files("reports.html").joinpath(folder, name).read_text(encoding="utf-8")


def _policy(css: Iterable[str], scripts: Iterable[str]) -> str:
    """A content security policy that allows only these styles and scripts."""
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src {' '.join(map(_hash, css))}",
            f"script-src {' '.join(map(_hash, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _png_uri(image: bytes | None) -> str | None:
    """A PNG as URI; None for other content, so that the page shows a placeholder."""
    return _data_uri("image/png", image) if image is not None and image.startswith(_PNG) else None


def _score(value: float) -> str:
    """A score with six digits, because the highest are all near 1."""
    return f"{value:.6g}"


def _shared_notes(tables: Iterable[Table]) -> list[str]:
    """Notes of more than one of the tables, in order."""
    under = Counter(note for table in tables for note in dict.fromkeys(table.notes))
    return [note for note, count in under.items() if count > 1]


def _minus(figures: str) -> str:
    """Text with true minus signs, as wide as digits."""
    return figures.replace("-", "−")


def _together(text: str) -> str:
    """Text without line breaks inside figures such as `7.31 ± 0.21 %` or `n = 4`."""
    for sign in (" ± ", " = ", " %"):
        text = text.replace(sign, sign.replace(" ", "\u00a0"))
    return text


def _breakable(text: str) -> Markup:
    """An escaped name or path with optional line breaks after its parts."""
    return Markup("<wbr>").join(re.split(r"(?<=[._/=])(?=\w)", text))


def _check_keys(report: Report) -> None:
    keys = [
        part.key
        for section in report.sections
        for parts in (section.tables, section.panels, section.figures, section.galleries)
        for part in parts
    ]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    assert not twice, f"keys are the page's anchors, but these occur twice: {twice}"
