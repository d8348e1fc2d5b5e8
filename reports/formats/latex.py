"""Tables and reports as LaTeX with booktabs, for pdflatex: best in bold, tied underlined."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from reports.document import Cell, Report, Section, Table
from reports.formats.cell_text import PAPER, caption, head, legend, sentence, text_rows

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after \\ an optional argument
    "*": "{*}",  # after \\ a star
    "±": r"$\pm$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "−": "$-$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "°": r"\textdegree{}",
    "µ": r"\textmu{}",
    "…": r"\dots{}",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0323": "d",
    "\u0327": "c",
    "\u0328": "k",
}

PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{textcomp}
\usepackage{array}
\usepackage{booktabs}
\usepackage{graphicx}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\sloppy
"""
"""Preamble of a document with the tables: array, booktabs, graphicx, textcomp and T1 fonts."""

_LONG = 45  # characters of a name that takes about 0.4 of a line
_FLOATS = 10  # LaTeX fails if too many tables wait for a place

# Shrinks a table that is wider or higher than the page.
_FIT = r"""\ifdim\wd0>\linewidth\setbox0\hbox{\resizebox{\linewidth}{!}{\box0}}\fi
\ifdim\dimexpr\ht0+\dp0\relax>0.8\textheight\setbox0\hbox{\resizebox{!}{0.8\textheight}{\box0}}\fi
\box0"""


def table_latex(table: Table) -> str:
    """A table as a float with caption, label `tab:KEY` and notes, for a document with the packages of PREAMBLE."""
    marks = legend(table, "bold", "underlined")
    words = " ".join(part for part in (f"{table.title}:", sentence(caption(table)), sentence(marks)) if part)
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{escape(words)}}}",
        rf"\label{{tab:{table.key}}}",
        r"\medskip",
        rf"\setbox0\hbox{{\begin{{tabular}}{{{_names(table)}{'r' * len(table.columns)}}}",
        r"\toprule",
        _row([escape(table.heading), *(escape(head(table, column)) for column in table.columns)]),
        r"\midrule",
        *_rows(table),
        r"\bottomrule",
        r"\end{tabular}}",
        _FIT,
        *(rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {escape(note)}}}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def report_latex(report: Report, figures: Mapping[str, str] | None = None) -> str:
    """The whole report as a document that compiles, without curves and galleries.

    Args:
        figures: ASCII paths of PDF or PNG files by key of the figure, relative to the document; a figure without one is
            left out.
    """
    parts = [PREAMBLE, r"\begin{document}", rf"\begin{{center}}\Large {escape(report.title)}\end{{center}}", ""]
    parts += [f"{escape(text)}\n" for text in report.summary]
    if report.warnings:
        parts.append(_list("Warnings", report.warnings))
    parts += [part for section in report.sections for part in _section(section, figures or {})]
    if report.provenance:
        parts.append(_list("Provenance", [f"{what}: {value}" for what, value in report.provenance]))
    return "\n".join([*parts, r"\end{document}"]) + "\n"


def escape(text: str) -> str:
    """Escape text for pdflatex; characters that its fonts lack become U+XXXX."""
    words = unicodedata.normalize("NFC", re.sub(r"\s+", " ", text)).split(" ")
    escaped = " ".join("".join(_characters(word)) for word in words)
    return re.sub(r"([-,])(?=\1)", r"\1{}", escaped)  # -- would become a dash, ,, a quotation mark


def _characters(word: str) -> Iterator[str]:
    for i, character in enumerate(word):
        if len(word) > _LONG and i and not word[i - 1].isalnum():
            yield r"\allowbreak{}"  # paths have no spaces for line breaks
        if character in _SPECIAL:
            yield _SPECIAL[character]
        elif "!" <= character <= "~":
            yield character
        else:
            base, *marks = list(unicodedata.normalize("NFD", character))
            if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
                yield rf"\{_ACCENTS[marks[0]]}{{{base}}}"
            else:
                yield rf"\texttt{{U+{ord(character):04X}}}\allowbreak{{}}"


def _section(section: Section, figures: Mapping[str, str]) -> Iterator[str]:
    pictures = [figure for figure in section.figures if figure.key in figures]
    on_the_page = section.panels or section.figures or section.galleries
    if not section.tables and not pictures and (on_the_page or not section.paragraphs):
        return  # its paragraphs describe parts that are left out
    yield rf"\section*{{{escape(section.title)}}}"
    for paragraph in section.paragraphs:
        yield f"{escape(paragraph)}\n"
    for i, table in enumerate(section.tables):
        yield table_latex(table)
        if i % _FLOATS == _FLOATS - 1:
            yield r"\clearpage"
    for figure in pictures:
        yield (
            "\n".join(
                [
                    r"\begin{figure}[htbp]",
                    r"\centering",
                    rf"\includegraphics[width=\linewidth,height=0.8\textheight,keepaspectratio]{{{figures[figure.key]}}}",
                    rf"\caption{{{escape(figure.caption)}}}",
                    rf"\label{{fig:{figure.key}}}",
                    r"\end{figure}",
                ]
            )
            + "\n"
        )
    yield r"\clearpage"


def _names(table: Table) -> str:
    """Format of the first column: long names are broken into lines, so that they do not shrink the table."""
    longest = max([len(row.name) for row in table.rows], default=0)
    return "l" if longest <= _LONG else r">{\raggedright\arraybackslash}p{0.4\linewidth}"


def _rows(table: Table) -> Iterator[str]:
    for row, texts, papers in text_rows(table):
        yield _row(
            [escape(row.name), *(_marked(escape(text), cell) for text, cell in zip(texts, row.cells, strict=True))]
        )
        if papers:
            stated = [rf"\footnotesize {escape(text)}" if text else "" for text in papers]
            yield _row([rf"\quad\footnotesize {escape(PAPER)}", *stated])


def _marked(text: str, cell: Cell) -> str:
    if cell.best:
        return rf"\textbf{{{text}}}"
    return rf"\underline{{{text}}}" if cell.tied else text


def _row(texts: Iterable[str]) -> str:
    return " & ".join(texts) + r" \\"


def _list(title: str, texts: Iterable[str]) -> str:
    items = [rf"\item {escape(text)}" for text in texts]
    return "\n".join([rf"\section*{{{title}}}", r"\begin{itemize}", *items, r"\end{itemize}"]) + "\n"
