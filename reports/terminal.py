"""Tables and reports for a terminal: best and tied are marked by signs, since a pipe shows no style."""

import dataclasses
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from reports.cell_text import PAPER, caption, cell_text, has_paper, head, legend, paper_text
from reports.document import Cell, Report, Table

_BEST, _TIED = "*", "~"


def table_terminal(table: Table) -> Group:
    """A table under its title, with caption and notes below; the best of a column is bold and starred."""
    rich = RichTable()
    rich.add_column(Text(clean(table.heading)), min_width=10)  # better a long name is broken than the numbers cut
    for column in table.columns:
        rich.add_column(Text(clean(head(table, column))), justify="right", no_wrap=True)
    for row in table.rows:
        pairs = list(zip(row.cells, table.columns, strict=True))
        # Text, not str: a name with [variant] is not markup.
        rich.add_row(Text(clean(row.name)), *(_marked(cell_text(c, column, table.common_n), c) for c, column in pairs))
        if has_paper(row):
            figures = (Text(paper_text(cell, column), style="dim") for cell, column in pairs)
            rich.add_row(Text(f"  {PAPER}", style="dim"), *figures)
    # Not the table's own title and caption, which a narrow table breaks into narrow lines.
    marks = legend(table, _BEST, _TIED)
    below = [Text(clean(f"{caption(table)}{'; ' if marks else ''}{marks}"), style="dim")]
    below += [Text(clean(f"note: {note}"), style="dim") for note in table.notes]
    return Group(Text(clean(table.title), style="bold"), rich, *below)


def headlines(report: Report) -> Group:
    """What a report says first: its summary, its warnings and the tables of its first section."""
    return Group(*_parts(dataclasses.replace(report, sections=report.sections[:1])))


def clean(text: str) -> str:
    """Without control characters, by which a name could write elsewhere on the screen, and on one line."""
    return "".join(character if character.isprintable() else " " for character in text)


def _parts(report: Report) -> Iterator[RenderableType]:
    yield Text(clean(report.title), style="bold underline")
    for sentence in report.summary:
        yield Text(clean(sentence))
    for warning in report.warnings:
        yield Text(clean(f"warning: {warning}"), style="yellow")
    for section in report.sections:
        if not section.paragraphs and not section.tables:
            continue
        yield Padding(Text(clean(section.title), style="bold underline"), (1, 0, 0, 0))
        for paragraph in section.paragraphs:
            yield Text(clean(paragraph))
        for table in section.tables:
            yield Padding(table_terminal(table), (1, 0, 0, 0))


def _marked(text: str, cell: Cell) -> Text:
    if cell.best:
        return Text(f"{_BEST} {text}", style="bold")
    return Text(f"{_TIED} {text}" if cell.tied else text)
