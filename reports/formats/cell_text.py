"""Texts of cells, heads and captions that all formats share; a format adds marks and escapes."""

from collections.abc import Iterator

from reports.document import Cell, Column, Row, Table

HOLE = "–"
_MINUS = "−"  # as wide as a digit
PAPER = "paper (ours minus it)"
"""Name of the row with the paper's figures, below the row of a method."""


def cell_text(cell: Cell, column: Column, common_n: int | None) -> str:
    """Mean and deviation, with n if it differs: `4.31 ± 0.20`, `4.31 (1/2)`, `– (0/2)`, `4.31 ± 0.20 (3)`.

    Args:
        common_n: `Table.common_n`.
    """
    seeds = seeds_text(cell, common_n)
    return f"{mean_text(cell, column)} ({seeds})" if seeds else mean_text(cell, column)


def mean_text(cell: Cell, column: Column) -> str:
    """Mean with deviation or interval: `4.31 ± 0.20`, `−1.20 [−1.91, −0.42]`, `4.31` of one seed, `–` of none."""
    if cell.mean is None:
        return HOLE
    text = number(cell.mean, column)
    if cell.interval is not None:
        low, high = cell.interval
        return f"{text} [{number(low, column)}, {number(high, column)}]"
    return text if cell.std is None else f"{text} ± {number(cell.std, column)}"


def seeds_text(cell: Cell, common_n: int | None) -> str:
    """Number of seeds: `1/2` if some are missing, `3` if it is not the common n, otherwise empty."""
    if cell.mean is None and not cell.expected:
        return ""
    if not cell.complete:
        return f"{cell.n}/{cell.expected}"
    return "" if cell.n == common_n else str(cell.n)


def paper_text(cell: Cell, column: Column) -> str:
    """The paper's figure as printed, and ours minus it: `3.6 ± 0.10 (+0.71)`; empty if there is none."""
    if cell.paper is None:
        return ""
    text = f"{cell.paper.mean:g}".replace("-", _MINUS)
    text = text if "." in text else f"{text}.0"
    if cell.paper.std is not None:
        text += f" ± {number(cell.paper.std, column)}"
    if cell.difference is None:
        return text
    return f"{text} ({f'{cell.difference:+z.{column.digits}f}'.replace('-', _MINUS)})"


def text_rows(table: Table) -> Iterator[tuple[Row, list[str], list[str]]]:
    """Each row with the texts of its cells, and those of the paper's figures if it has any."""
    for row in table.rows:
        pairs = list(zip(row.cells, table.columns, strict=True))
        papers = [paper_text(cell, column) for cell, column in pairs] if has_paper(row) else []
        yield row, [cell_text(cell, column, table.common_n) for cell, column in pairs], papers


def number(value: float, column: Column) -> str:
    """A figure with the column's digits, or `<0.001` below its smallest; with a true minus, and never -0."""
    if column.smallest is not None and value < column.smallest:
        return f"<{number(column.smallest, column)}"
    grouped = "," if column.digits == 0 else ""
    return f"{value:z{grouped}.{column.digits}f}".replace("-", _MINUS)


def has_paper(row: Row) -> bool:
    """Whether any cell of the row has a figure of the paper."""
    return any(cell.paper is not None for cell in row.cells)


def head(table: Table, column: Column) -> str:
    """The column's name, with its unit unless all columns share one."""
    return f"{column.name} ({column.unit})" if column.unit and _common_unit(table) is None else column.name


def caption(table: Table) -> str:
    """The caption with unit and number of seeds; a phrase without full stop."""
    unit = _common_unit(table)
    text = f"{table.caption}, in {unit}" if unit else table.caption
    if not any(cell.n for row in table.rows for cell in row.cells):
        return text
    if table.common_n is None:
        return f"{text}; n in brackets"
    others = any(cell.n != table.common_n for row in table.rows for cell in row.cells if cell.n or cell.expected)
    return f"{text}; n = {table.common_n}{' unless shown' if others else ''}"


def legend(table: Table, best: str, tied: str) -> str:
    """Explanation of the marks in a table; empty if it has none.

    Args:
        best, tied: the marks of a format, such as `*` or `bold`.
    """
    marked = [
        (column, row.cells[i])
        for row in table.rows
        for i, column in enumerate(table.columns)
        if row.cells[i].best or row.cells[i].tied
    ]
    ends = {column.better for column, cell in marked if cell.best}
    if not ends:
        return ""
    end = {"lower": "lowest", "higher": "highest"}.get(ends.pop() or "", "best") if len(ends) == 1 else "best"
    lacking = any(cell.expected and not cell.complete for row in table.rows for cell in row.cells)
    aside = ", incomplete cells aside" if lacking else ""
    text = f"{best}: {end} of the column{aside}"
    return f"{text}; {tied}: tied with it" if any(cell.tied for _, cell in marked) else text


def sentence(phrase: str) -> str:
    """A phrase as a sentence: with a capital letter and, if it has no end mark, a full stop."""
    text = f"{phrase[:1].upper()}{phrase[1:]}"
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _common_unit(table: Table) -> str | None:
    units = {column.unit for column in table.columns}
    return units.pop() if len(units) == 1 else None
