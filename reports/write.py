"""Write a store's report as files: page, Markdown, LaTeX and CSV, with the figures beside them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from autodo.config.validation import check_name
from autodo.errors import ConfigError
from autodo.io.storage import Location, StrPath, as_location
from reports.analysis.metrics import METRICS
from reports.build import HEADLINE, build_report
from reports.document import Report
from reports.figures.rendering import RenderedFigure, render, save
from reports.formats.latex import report_latex, table_latex
from reports.formats.markdown import report_markdown
from reports.formats.tidy import report_csv
from reports.html import to_html
from reports.readers.load import Results

FORMATS = ("html", "md", "latex", "csv")


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats in a list such as `html,md`.

    Raises:
        ConfigError: if one is unknown, or the list is empty.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--format {text!r}: names no format; known: {', '.join(FORMATS)}")
    for name in names:
        check_name(name, FORMATS, "format")
    return tuple(dict.fromkeys(names))


def check_metric(name: str) -> None:
    """Raise ConfigError with the known metrics unless `name` is one."""
    check_name(name, tuple(METRICS), "metric")


def write_report(
    store_root: StrPath | Location,
    out: StrPath | Location | None = None,
    expected: Iterable[Mapping[str, Any]] = (),
    *,
    formats: Collection[str] = FORMATS,
    metric: str = HEADLINE,
    select: str | None = None,
    results: Results | None = None,
    warnings: Sequence[str] = (),
) -> list[Location]:
    """Build the report of a store and write it.

    Args:
        store_root: path or URI of the store.
        out: path or URI of the report's folder; STORE/report if None.
        expected, metric, select, results, warnings: as for `build_report`.
        formats: of FORMATS.
    Returns:
        the files that a user opens, the page first; figures and tables are in folders beside them.
    Raises:
        StoreError: if the store cannot be read, or the report cannot be written. ConfigError: if `select` fits no run.
    """
    folder = as_location(store_root) / "report" if out is None else as_location(out)
    report = build_report(store_root, expected, metric=metric, select=select, results=results, warnings=warnings)
    return write_files(report, folder, formats)


def write_files(report: Report, folder: StrPath | Location, formats: Collection[str] = FORMATS) -> list[Location]:
    """Write a report in each of the formats; arguments and returns as for `write_report`."""
    folder = as_location(folder)
    drawn: dict[str, RenderedFigure] = {}
    if {"html", "md", "latex"} & set(formats):
        for figure in (figure for section in report.sections for figure in section.figures):
            drawn[figure.key] = render(figure)
            save(figure, folder / "figures", drawn[figure.key])
    pictures = {key: f"figures/{key}.png" for key in drawn}
    texts = {}
    if "html" in formats:
        texts["report.html"] = to_html(report, lambda figure: drawn[figure.key].for_page)
    if "md" in formats:
        texts["report.md"] = report_markdown(report, pictures)
    if "latex" in formats:
        texts["report.tex"] = report_latex(report, pictures)
        for table in (table for section in report.sections for table in section.tables):
            (folder / "tables" / f"{table.key}.tex").write_text(table_latex(table))
    if "csv" in formats:
        texts["tables.csv"] = report_csv(report)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]
