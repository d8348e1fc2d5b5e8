"""Tables as text: for a terminal and as Markdown."""

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from reports.tables import Cell, Table

HOLE = "–"


def cell_text(cell: Cell, common_n: int | None) -> str:
    """`4.31 ± 0.20`, with n where it is not the common one: `4.31 (1/2)`, `– (0/2)`, `4.31 ± 0.20 (3)`."""
    if cell.mean is None:
        return HOLE if not cell.expected else f"{HOLE} (0/{cell.expected})"
    text = f"{cell.mean:.2f}" if cell.std is None else f"{cell.mean:.2f} ± {cell.std:.2f}"
    if not cell.complete:
        return f"{text} ({cell.n}/{cell.expected})"
    return text if cell.n == common_n else f"{text} ({cell.n})"


def caption(table: Table) -> str:
    """What the numbers are, and over how many seeds."""
    if table.common_n is None:
        return f"{table.caption}; n in brackets"
    return f"{table.caption}; n = {table.common_n}{' unless shown' if _holes(table) else ''}"


def _holes(table: Table) -> bool:
    return any(not cell.complete for _, cells in table.rows for cell in cells)


def to_rich(table: Table) -> Group:
    """For a terminal; the best of a column is bold and starred, since a pipe shows no bold."""
    starred = any(cell.best for _, cells in table.rows for cell in cells)
    star = f"; * lowest of the column{', incomplete cells aside' if _holes(table) else ''}" if starred else ""
    rich = RichTable()
    rich.add_column("IR-NR", min_width=10)  # a name can be long; better it is broken than the numbers cut
    for column in table.columns:
        rich.add_column(column, justify="right", no_wrap=True)
    for name, cells in table.rows:
        # Text, not str: a name with [variant] is not markup.
        texts = [
            Text(f"{'* ' if cell.best else ''}{cell_text(cell, table.common_n)}", style="bold" if cell.best else "")
            for cell in cells
        ]
        rich.add_row(Text(name), *texts)
    # Not the table's own title and caption, which a narrow table breaks into narrow lines.
    return Group(Text(table.title, style="bold"), rich, Text(f"{caption(table)}{star}", style="dim"))


def to_markdown(table: Table) -> str:
    """A Markdown table with its title as a heading; the best of a column is bold."""

    def bold(cell: Cell) -> str:
        text = cell_text(cell, table.common_n)
        return f"**{text}**" if cell.best else text

    lines = [
        f"### {table.title}",
        "",
        f"{caption(table)[0].upper()}{caption(table)[1:]}.",
        "",
        "| IR-NR | " + " | ".join(table.columns) + " |",
        "|---|" + "---:|" * len(table.columns),
        *(
            f"| {name.replace('|', '&#124;')} | " + " | ".join(bold(cell) for cell in cells) + " |"
            for name, cells in table.rows
        ),
    ]
    return "\n".join(lines) + "\n"
