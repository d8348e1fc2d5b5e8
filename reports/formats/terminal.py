"""Tables and reports for a terminal; best and tied are marked by signs, which a pipe keeps."""

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from autodo.text import printable
from reports.document import Cell, Report, Table
from reports.formats.cell_text import PAPER, caption, head, legend, text_rows

_BEST, _TIED = "*", "~"
_NAME = 16
"""Minimal width of the column of names."""
_BORDER = 1


class TerminalTable:
    """A table with title, caption and notes, for `rich`; the best of a column is bold and starred.

    A table wider than the terminal is shown in parts, each with the names of the rows, so that no figure is cut.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._heads = [printable(head(table, column)) for column in table.columns]
        self._lines = list(_lines(table))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table
        yield Text(printable(table.title), style="bold")
        for columns in self._parts(options.max_width):
            yield self._part(columns)
        # Not the title and caption of `RichTable`, which are as narrow as the table.
        marks = legend(table, _BEST, _TIED)
        yield Text(printable(f"{caption(table)}{'; ' if marks else ''}{marks}"), style="dim")
        for note in table.notes:
            yield Text(printable(f"note: {note}"), style="dim")

    def _part(self, columns: list[int]) -> RichTable:
        rich = RichTable()
        rich.add_column(Text(printable(self._table.heading)), overflow="fold")
        for i in columns:
            rich.add_column(Text(self._heads[i]), justify="right", width=self._width(i))
        for name, figures in self._lines:
            shown = [figures[i] for i in columns]
            if any(figure.plain for figure in shown):
                rich.add_row(name, *shown)
        return rich

    def _parts(self, width: int) -> list[list[int]]:
        """The columns of each part."""
        names = max([cell_len(name.plain) for name, _ in self._lines], default=0)
        # A long name is broken rather than the table.
        left = width - _BORDER - _around(min(names, max(_NAME, width // 3)))
        parts: list[list[int]] = [[]]
        room = left
        for i in range(len(self._heads)):
            if parts[-1] and _around(self._width(i)) > room:
                parts.append([])
                room = left
            parts[-1].append(i)
            room -= _around(self._width(i))
        return parts

    def _width(self, i: int) -> int:
        """Width of a column in which no figure and no word of the head is broken."""
        words = [cell_len(word) for word in self._heads[i].split()]
        return max([1, *words, *(cell_len(figures[i].plain) for _, figures in self._lines)])


def report_terminal(report: Report) -> Group:
    """The texts and tables of a report, without figures."""
    return Group(*_parts(report))


def _parts(report: Report) -> Iterator[RenderableType]:
    yield Text(printable(report.title), style="bold underline")
    for sentence in report.summary:
        yield Text(printable(sentence))
    for warning in report.warnings:
        yield Text(printable(f"warning: {warning}"), style="yellow")
    for section in report.sections:
        if not section.paragraphs and not section.tables:
            continue
        yield Padding(Text(printable(section.title), style="bold underline"), (1, 0, 0, 0))
        for paragraph in section.paragraphs:
            yield Text(printable(paragraph))
        for table in section.tables:
            yield Padding(TerminalTable(table), (1, 0, 0, 0))


def _lines(table: Table) -> Iterator[tuple[Text, list[Text]]]:
    """Names and figures, as Text: in a str, [variant] would be markup."""
    for row, texts, papers in text_rows(table):
        yield Text(printable(row.name)), [_marked(text, cell) for text, cell in zip(texts, row.cells, strict=True)]
        if papers:
            yield Text(f"  {PAPER}", style="dim"), [Text(text, style="dim") for text in papers]


def _around(width: int) -> int:
    """Width with a space on each side and a border."""
    return width + 3


def _marked(text: str, cell: Cell) -> Text:
    if cell.best:
        return Text(f"{_BEST} {text}", style="bold")
    return Text(f"{_TIED} {text}" if cell.tied else text)
