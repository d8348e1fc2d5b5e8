"""Tables and reports as GitHub Markdown: best in bold, tied underlined."""

import re
from collections.abc import Iterable, Mapping

from autodo.text import printable
from reports.document import Cell, Gallery, Report, Section, Table
from reports.formats.cell_text import PAPER, caption, head, legend, sentence, text_rows

# Entities for characters that tables, HTML and mentions interpret before backslashes.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "@": "&#64;"}
_SHOWN_AS = _ENTITIES | {character: f"\\{character}" for character in "\\`*[]~#$"}
_MARKING_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # within a word it is literal
_LINE_STARTS = re.compile(r"^(\s*)(?:([-+=])|(\d+)([.)]))")


def table_markdown(table: Table, level: int = 3) -> str:
    """A Markdown table with its title as a heading, its caption above it and its notes below.

    Args:
        level: of the heading, 1 to 6.
    """
    marks = legend(table, "bold", "underlined")
    lines = [
        f"{'#' * level} {escape(table.title)}",
        "",
        _line(" ".join(part for part in (sentence(caption(table)), sentence(marks)) if part)),
        "",
        _row([table.heading, *(head(table, column) for column in table.columns)], escaped=False),
        "|---|" + "---:|" * len(table.columns),
    ]
    for row, texts, papers in text_rows(table):
        figures = [_marked(escape(text), cell) for text, cell in zip(texts, row.cells, strict=True)]
        lines.append(_row([escape(row.name), *figures]))
        if papers:
            lines.append(
                _row([f"<sub>{PAPER}</sub>", *(f"<sub>{escape(text)}</sub>" if text else "" for text in papers)])
            )
    lines += ["", *(f"- {_line(note)}" for note in table.notes)] if table.notes else []
    return "\n".join(lines) + "\n"


def report_markdown(report: Report, figures: Mapping[str, str] | None = None) -> str:
    """The whole report, without curves.

    Args:
        figures: paths of pictures by key of the figure, relative to the report; a figure without one is left out.
    """
    parts = [f"# {escape(report.title)}\n", *(f"{_line(text)}\n" for text in report.summary)]
    if report.warnings:
        parts += ["**Warnings**\n", _list(report.warnings)]
    parts += [part for section in report.sections for part in _section(section, figures or {})]
    if report.provenance:
        parts += ["## Provenance\n", "| what | value |\n|---|---|"]
        parts[-1] += "".join(f"\n{_row([what, value], escaped=False)}" for what, value in report.provenance) + "\n"
    for name, text in report.grids:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
        parts.append(f"## Configuration: {escape(name)}\n\n{fence}yaml\n{text.rstrip()}\n{fence}\n")
    return "\n".join(parts)


def escape(text: str) -> str:
    """Escape text for Markdown, on one line."""
    text = printable(re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip())
    shown = "".join(_SHOWN_AS.get(character, character) for character in text)
    return _MARKING_UNDERSCORE.sub(r"\\_", shown)


def _section(section: Section, figures: Mapping[str, str]) -> Iterable[str]:
    yield f"## {escape(section.title)}\n"
    for paragraph in section.paragraphs:
        yield f"{_line(paragraph)}\n"
    for table in section.tables:
        yield table_markdown(table)
    for figure in section.figures:
        if figure.key in figures:
            yield f"![{escape(figure.caption)}](<{_path(figures[figure.key])}>)\n"
    for gallery in section.galleries:
        yield _gallery(gallery)


def _gallery(gallery: Gallery) -> str:
    files = any(suspect.source for suspect in gallery.suspects)  # most datasets have no file for each image
    lines = [
        f"### {escape(gallery.title)}",
        "",
        _line(sentence(gallery.caption)),
        "",
        _row(["index", *(["file"] if files else []), "given label", "proposed label", "score", "weight", "loss"]),
        f"|---:|{'---|' * files}---|---|---:|---:|---:|",
    ]
    for suspect in gallery.suspects:
        words = [str(suspect.index), *([suspect.source or ""] if files else []), suspect.given, suspect.proposed]
        # The highest scores often differ only in the last digits.
        numbers = [f"{suspect.score:.6g}", *("" if v is None else f"{v:.3g}" for v in (suspect.weight, suspect.loss))]
        lines.append(_row([*words, *(number.replace("-", "−") for number in numbers)], escaped=False))
    return "\n".join(lines) + "\n"


def _marked(text: str, cell: Cell) -> str:
    if cell.best:
        return f"**{text}**"
    return f"<ins>{text}</ins>" if cell.tied else text


def _row(texts: list[str], escaped: bool = True) -> str:
    return f"| {' | '.join(text if escaped else escape(text) for text in texts)} |"


def _list(texts: Iterable[str]) -> str:
    return "\n".join(f"- {_line(text)}" for text in texts) + "\n"


def _line(text: str) -> str:
    """A paragraph or list item that does not begin a list or heading."""
    return _LINE_STARTS.sub(lambda m: f"{m[1]}\\{m[2]}" if m[2] else f"{m[1]}{m[3]}\\{m[4]}", escape(text))


def _path(path: str) -> str:
    return path.replace("\\", "/").replace("<", "%3C").replace(">", "%3E").replace("\n", " ")
