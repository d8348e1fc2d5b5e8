"""From a report to its page: templates, style, script and pictures in one text."""

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
"""Draws a figure: its media type, such as `image/svg+xml`, and the file's content."""

_PNG = b"\x89PNG\r\n\x1a\n"


def to_html(report: Report, picture: Picture) -> str:
    """The report as one HTML page in which everything lies that it shows; whatever comes from a store is escaped.

    Its content security policy allows no request, and no style or script but its own.

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
    """A content security policy under which only these texts are style and script."""
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
    """None also for what is no PNG: a placeholder says more than a broken picture."""
    return _data_uri("image/png", image) if image is not None and image.startswith(_PNG) else None


def _score(value: float) -> str:
    """With six digits, since the worst of many are all near 1."""
    return f"{value:.6g}"


def _shared_notes(tables: Iterable[Table]) -> list[str]:
    """Notes that stand under more than one of the tables, in the order in which they come."""
    under = Counter(note for table in tables for note in dict.fromkeys(table.notes))
    return [note for note, count in under.items() if count > 1]


def _minus(figures: str) -> str:
    """With a true minus sign, as wide as the digits."""
    return figures.replace("-", "−")


def _together(text: str) -> str:
    """With no line break inside a figure such as `7.31 ± 0.21 %` or `n = 4`."""
    for sign in (" ± ", " = ", " %"):
        text = text.replace(sign, sign.replace(" ", "\u00a0"))
    return text


def _breakable(text: str) -> Markup:
    """A name or a path, escaped, that may go on in another line where its parts end."""
    return Markup("<wbr>").join(re.split(r"(?<=[._/=])(?=\w)", text))


def _check_keys(report: Report) -> None:
    keys = [
        part.key
        for section in report.sections
        for parts in (section.tables, section.panels, section.figures, section.galleries)
        for part in parts
    ]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    assert not twice, f"keys are the page's anchors, but these stand twice: {twice}"
