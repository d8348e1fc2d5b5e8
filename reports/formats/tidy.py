"""Tables as tidy CSV (RFC 4180): one line for each cell."""

import csv
import io
from collections.abc import Iterator

from reports.document import Cell, Report, Table

COLUMNS = (
    *("section", "table", "group", "distortion", "caption", "row", "part", "column", "unit"),
    *("mean", "std", "low", "high", "n", "expected", "best", "tied", "paper_mean", "paper_std"),
)
"""`row` is a method, and `part` one of its several rows, such as a score.

`low` and `high` are the ends of a confidence interval. Numbers have all their digits; unknown values are empty.
"""

BEGINS_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""Beginnings of cells that spreadsheets take for formulas."""


def report_csv(report: Report) -> str:
    """All tables of a report."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for section in report.sections:
        for table in section.tables:
            writer.writerows(_lines(section.key, table))
    return file.getvalue()


def without_formula(text: str) -> str:
    """Text that no spreadsheet takes for a formula, if necessary with an apostrophe in front."""
    return f"'{text}" if text.lstrip(" ").startswith(BEGINS_FORMULA) else text


def _lines(section: str, table: Table) -> Iterator[tuple[str, ...]]:
    of_table = (section, table.key, table.group, table.distortion, table.caption)
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            words = (*of_table, row.whole, row.part, column.name, column.unit)
            yield (*(without_formula(word) for word in words), *_figures(cell))


def _figures(cell: Cell) -> Iterator[str]:
    paper = cell.paper
    low, high = cell.interval or (None, None)
    yield from (_text(cell.mean), _text(cell.std), _text(low), _text(high), str(cell.n), _text(cell.expected))
    yield from (str(cell.best).lower(), str(cell.tied).lower())
    yield from (_text(paper.mean), _text(paper.std)) if paper else ("", "")


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)
