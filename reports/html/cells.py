"""What a table's cells say in the page, as text; the templates say how that looks."""

from reports.document import Cell, Column, Table

HOLE = "–"


def mean_text(cell: Cell, column: Column) -> str:
    """`4.31 ± 0.20`, `4.31` under two seeds, `–` without a result."""
    if cell.mean is None:
        return HOLE
    return number(cell.mean, column.digits) + ("" if cell.std is None else f" ± {number(cell.std, column.digits)}")


def seeds_text(cell: Cell, common_n: int | None) -> str:
    """`2/4` where seeds are missing, `n = 3` where it is not the common one, else nothing."""
    if not cell.complete:
        return "" if cell.expected is None else f"{cell.n}/{cell.expected}"
    return "" if cell.n == common_n else f"n = {cell.n}"


def paper_text(cell: Cell, column: Column) -> str:
    """`4.50 ± 0.10`, as the paper states it; nothing where it states none."""
    if cell.paper is None:
        return ""
    std = "" if cell.paper.std is None else f" ± {number(cell.paper.std, column.digits)}"
    return number(cell.paper.mean, column.digits) + std


def difference_text(cell: Cell, column: Column) -> str:
    """Ours minus the paper's with its sign, `−0.19`; nothing where one of the two is missing."""
    if cell.difference is None:
        return ""
    text = number(cell.difference, column.digits)
    return text if text.startswith("−") or not text.strip("0.") else f"+{text}"


def number(value: float, digits: int) -> str:
    """With a true minus sign, and none before a zero."""
    text = f"{value:.{digits}f}"
    if text.startswith("-"):
        return f"−{text[1:]}" if text.strip("-0.") else text[1:]
    return text


def caption(table: Table) -> str:
    """What the figures are, over how many seeds, and beside what."""
    words = [table.caption]
    if table.common_n is not None:
        words.append(f"n = {table.common_n}{' unless shown' if _varies(table) else ''}")
    if any(cell.paper is not None for row in table.rows for cell in row.cells):
        words.append("in small print the paper's value, and ours minus it")
    return "; ".join(words)


def legend(table: Table) -> list[str]:
    """What the signs mean that stand in this table, a phrase each; none for a sign that does not."""
    cells = [cell for row in table.rows for cell in row.cells]
    signs = {
        "★ best of its column" + (", incomplete cells aside" if table.holes else ""): any(c.best for c in cells),
        "underlined: a paired test does not tell it from the best": any(c.tied for c in cells),
        "2/4: two of four seeds have a result": any(not c.complete and c.expected for c in cells),
        f"{HOLE} no result": any(c.mean is None for c in cells),
    }
    return [sign for sign, stands in signs.items() if stands]


def _varies(table: Table) -> bool:
    return any(cell.n != table.common_n for row in table.rows for cell in row.cells)
