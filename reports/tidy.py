"""Tables as tidy CSV (RFC 4180): one row per table, row and column."""

import csv
import io
from collections.abc import Iterable, Iterator

from reports.document import Cell, Report, Table

COLUMNS = (
    *("section", "table", "row", "column", "unit", "mean", "std", "n", "expected", "best", "tied"),
    *("paper_mean", "paper_std", "low", "high"),
)
"""`low` and `high` are the ends of a confidence interval. Numbers have all their digits; empty is unknown."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def report_csv(report: Report) -> str:
    """Every table of a report."""
    return _csv(line for section in report.sections for table in section.tables for line in _lines(section.key, table))


def table_csv(table: Table, section: str = "") -> str:
    """One table, with a head.

    Args:
        section: the key of the section that it stands in.
    """
    return _csv(_lines(section, table))


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe goes before what begins like one."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _csv(lines: Iterable[tuple[str, ...]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows(lines)
    return file.getvalue()


def _lines(section: str, table: Table) -> Iterator[tuple[str, ...]]:
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            words = (section, table.key, row.name, column.name, column.unit)
            yield (*(harmless(word) for word in words), *_figures(cell))


def _figures(cell: Cell) -> Iterator[str]:
    paper = cell.paper
    low, high = cell.interval or (None, None)
    yield from (_text(cell.mean), _text(cell.std), str(cell.n), _text(cell.expected))
    yield from (str(cell.best).lower(), str(cell.tied).lower())
    yield from (_text(paper.mean), _text(paper.std)) if paper else ("", "")
    yield from (_text(low), _text(high))


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)
