import csv
import dataclasses
import difflib
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from reports.document import Cell, Column, Reference, Report, Row, Section, Suspect, Table
from reports.formats import latex, markdown, tidy
from reports.formats.cell_text import caption, cell_text, legend, paper_text
from tests.reports.example import DIFFERENCES, ERRORS, FORMATS, GALLERY, HOSTILE, REPORT, SNAPSHOTS, terminal_text

PERCENT = Column("1-0.0", "%", better="lower")


@pytest.mark.parametrize("name", FORMATS)
def test_formats_match_their_snapshots(name: str) -> None:
    made, kept = FORMATS[name](REPORT), (SNAPSHOTS / name).read_bytes().decode()
    difference = "\n".join(difflib.unified_diff(kept.splitlines(), made.splitlines(), "kept", "made", lineterm=""))
    assert made == kept, f"python -m tests.reports.example writes it again\n{difference}"


@pytest.mark.parametrize(
    ("cell", "common_n", "text"),
    [
        (Cell(4.306, 0.204, 2, 2), 2, "4.31 ± 0.20"),
        (Cell(4.306, 0.204, 3, 3), 2, "4.31 ± 0.20 (3)"),
        (Cell(4.306, 0.204, 2, 4), 4, "4.31 ± 0.20 (2/4)"),
        (Cell(4.306, None, 1), 1, "4.31"),
        (Cell(None, None, 0, 2), 2, "– (0/2)"),
        (Cell(None), 2, "–"),
        (Cell(-1.2, 0.3, 4, interval=(-1.91, -0.421)), 4, "−1.20 [−1.91, −0.42]"),
        (Cell(-0.001, None, 4), 4, "0.00"),
        (Cell(-0.01, 0.0, 4), 4, "−0.01 ± 0.00"),
    ],
)
def test_text_of_a_cell(cell: Cell, common_n: int | None, text: str) -> None:
    assert cell_text(cell, PERCENT, common_n) == text


def test_figures_below_the_smallest_are_shown_as_less_than_it() -> None:
    p = Column("p", digits=3, smallest=0.001)
    texts = {0.0: "<0.001", 1e-9: "<0.001", 0.0009996: "<0.001", 0.001: "0.001", 0.0123: "0.012", 1.0: "1.000"}
    assert {value: cell_text(Cell(value, n=4), p, 4) for value in texts} == texts
    table = Table("k", "t", "c", "m", (p,), (Row("a", (Cell(0.0, n=4),)),))
    assert "| a | &lt;0.001 |" in markdown.table_markdown(table)
    assert r"a & \textless{}0.001 \\" in latex.table_latex(table)


def test_the_papers_figures_are_shown_as_printed() -> None:
    assert paper_text(Cell(4.0, paper=Reference(6.0, 0.1)), PERCENT) == "6.0 ± 0.10 (−2.00)"
    assert paper_text(Cell(1.0, paper=Reference(-0.1)), PERCENT) == "−0.1 (+1.10)"
    assert paper_text(Cell(5.999, paper=Reference(6.0)), PERCENT) == "6.0 (+0.00)"
    assert paper_text(Cell(2.5, paper=Reference(2.48)), PERCENT) == "2.48 (+0.02)"
    assert paper_text(Cell(None, paper=Reference(43.1)), PERCENT) == "43.1"
    assert paper_text(Cell(4.0), PERCENT) == ""


def test_units_n_and_marks_are_explained_once() -> None:
    assert caption(ERRORS).endswith("over seeds, in %; n in brackets")
    assert caption(DIFFERENCES).endswith("over seeds; n = 4")
    assert legend(ERRORS, "*", "~") == "*: lowest of the column, incomplete cells aside; ~: tied with it"
    assert legend(DIFFERENCES, "bold", "underlined") == "bold: highest of the column"
    unmarked = Table("k", "t", "c", "m", (PERCENT,), (Row("a", (Cell(1.0, None, 1),)),))
    assert legend(unmarked, "*", "~") == ""


class Cells(HTMLParser):
    """Texts of the cells of all tables, and the names of all tags."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.rstrip("\n")


def parsed(text: str) -> Cells:
    found = Cells()
    found.feed(MarkdownIt("commonmark").enable("table").enable("strikethrough").render(text))
    return found


def test_markdown_shows_names_literally_and_marks() -> None:
    found = parsed(markdown.table_markdown(ERRORS))
    assert [row[0] for row in found.rows if not row[0].startswith("paper")][1:] == [row.name for row in ERRORS.rows]
    assert found.rows[4][0] == "paper (ours minus it)"
    assert found.rows[3] == ["autodo-aws, points.learn=[weight]", "2.51 ± 0.05 (2)", "6.29 ± 0.50 (2)"]
    assert {len(row) for row in found.rows} == {3}
    allowed = {"table", "thead", "tbody", "tr", "th", "td", "h3", "p", "ul", "li", "strong", "ins", "sub"}
    assert found.tags <= allowed
    assert {"strong", "ins"} <= found.tags


def test_markdown_lists_suspects() -> None:
    report = Report("r", (), (Section("s", "s", galleries=(GALLERY,)),))
    head, first, second = parsed(markdown.report_markdown(report)).rows
    assert head == ["index", "file", "given label", "proposed label", "score", "weight", "loss"]
    assert first == ["7", "photos/<b>|cat_1*.png", "cat|dog", "<i>dog</i>", "0.987654", "0.01", "7.5"]
    assert second == ["12", "", "_a_", "b", "0.5", "", ""]
    close = tuple(Suspect(i, None, "a", "b", 0.9999 + i * 1e-6, None, -1e-9) for i in range(3))
    report = Report("r", (), (Section("s", "s", galleries=(dataclasses.replace(GALLERY, suspects=close),)),))
    head, *rows = parsed(markdown.report_markdown(report)).rows
    assert head == ["index", "given label", "proposed label", "score", "weight", "loss"]
    assert [row[3:] for row in rows] == [[f"{suspect.score:.6f}".rstrip("0"), "", "−1e−09"] for suspect in close]


@pytest.mark.parametrize(
    "text",
    [HOSTILE, "_a_ b_c_d __e__ _", "a\n# b", "- a", "1. a", "+ a", "> a", "    code", "---", "a\n===", "\\", "&lt;"],
)
def test_markdown_escapes_text_of_a_store(text: str) -> None:
    report = Report("t", (text,), (), warnings=(text,), provenance=((text, text),))
    found = parsed(markdown.report_markdown(report))
    assert found.tags == {"h1", "h2", "p", "ul", "li", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert found.rows[-1][0] == " ".join(text.split())


@pytest.mark.parametrize("mark", ["\u061c", "\u200e", "\u200f", "\u202e", "\u2066"])
def test_direction_marks_in_paths_are_escaped(mark: str) -> None:
    # Paths of images are not escaped before rendering.
    report = Report(f"a{mark}b", (), (), provenance=((mark, f"a{mark}b"),))
    text = markdown.report_markdown(report)
    assert mark not in text
    assert parsed(text).rows[-1] == [f"\\u{ord(mark):04x}", f"a\\u{ord(mark):04x}b"]
    assert latex.escape(f"a{mark}b") == rf"a\texttt{{U+{ord(mark):04X}}}\allowbreak{{}}b"


def test_csv_holds_every_cell_with_all_digits() -> None:
    rows = list(csv.DictReader(tidy.report_csv(REPORT).splitlines(keepends=True)))
    assert len(rows) == sum(len(t.rows) * len(t.columns) for section in REPORT.sections for t in section.tables)
    by_place = {(row["table"], row["row"], row["part"], row["column"]): row for row in rows}
    for table in (ERRORS, DIFFERENCES):
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                found = by_place[table.key, tidy.without_formula(row.whole), row.part, column.name]
                assert (found["group"], found["distortion"]) == (table.group, table.distortion)
                assert found["caption"] == table.caption
                assert (float(found["mean"]) if found["mean"] else None) == cell.mean
                assert (float(found["std"]) if found["std"] else None) == cell.std
                assert (int(found["n"]), found["unit"]) == (cell.n, column.unit)
                assert (found["best"], found["tied"]) == (str(cell.best).lower(), str(cell.tied).lower())
                assert (
                    (float(found["low"]), float(found["high"])) == cell.interval if cell.interval else not found["low"]
                )
                assert found["paper_mean"] == (repr(cell.paper.mean) if cell.paper else "")


def test_csv_is_of_rfc_4180() -> None:
    table = Table("k", "t", "c", "m", (PERCENT,), (Row('a "b", c\nd', (Cell(1.0, None, 1),)),))
    text = tidy.report_csv(Report("r", (), (Section("s", "S", tables=(table,)),)))
    assert text.split("\r\n")[1] == 's,k,,,c,"a ""b"", c\nd",,1-0.0,%,1.0,,,,1,,false,false,,'
    assert text.endswith("\r\n")
    assert [len(row) for row in csv.reader([text.split("\r\n")[0]])] == [len(tidy.COLUMNS)]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1"])
def test_no_spreadsheet_takes_a_name_for_a_formula(name: str) -> None:
    assert tidy.without_formula(name) == f"'{name}"
    assert tidy.without_formula(f"a{name}") == f"a{name}"


def test_a_terminal_shows_the_best_without_colours() -> None:
    text = terminal_text(REPORT)
    assert "* 2.51 ± 0.05 (2)" in text
    assert "~ 2.60 ± 0.30 (2)" in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_terminal_of_any_width_cuts_no_figure(width: int) -> None:
    text = terminal_text(REPORT, width)
    assert max(len(line) for line in text.splitlines() if line.startswith(("│", "┃"))) <= width
    for table in (ERRORS, DIFFERENCES):
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                assert f" {cell_text(cell, column, table.common_n)} │" in text
    assert "…" not in text


def test_a_terminal_shows_markup_and_control_characters_literally() -> None:
    table = Table("k", "[red]t[/red]", "c", "m", (PERCENT,), (Row("[bold]x\x1b[31m", (Cell(1.0, None, 1),)),))
    text = terminal_text(Report("r", (), (Section("s", "s", tables=(table,)),)))
    assert "[red]t[/red]" in text
    assert r"[bold]x\x1b[31m" in text


def unescaped(text: str) -> str:
    """LaTeX without commands and escaped characters."""
    return re.sub(r"\\(begin|end)\{\w+\*?\}|\\[a-zA-Z]+\*?|\\[^a-zA-Z]|\$\\?[a-z-]*\$", "", text)


def test_latex_is_balanced_plain_ascii_and_has_no_bare_special() -> None:
    for table in (ERRORS, DIFFERENCES):
        text = latex.table_latex(table)
        assert text.isascii()
        assert text.count(r"\begin{") == text.count(r"\end{")
        bare = unescaped(text)
        assert bare.count("{") == bare.count("}")
        assert not set(bare) & set("#$%_^~\"`'|\\")
        body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
        lines = [line for line in body.splitlines() if line]
        assert all(line.endswith(r" \\") for line in lines)
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(table.columns)}


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50% of a_b", r"50\% of a\_b"),
        ("\\", r"\textbackslash{}"),
        ("é ü ß ø", r"\'{e} \"{u} \ss{} \o{}"),
        ("猫", r"\texttt{U+732B}\allowbreak{}"),
        ("--a---b,,c", r"-{}-a-{}-{}-b,{},c"),
        ("a\n\nb", "a b"),
        ("\x00", r"\texttt{U+0000}\allowbreak{}"),
    ],
)
def test_latex_escapes_text(text: str, escaped: str) -> None:
    assert latex.escape(text) == escaped


def test_latex_omits_sections_without_tables_or_pictures() -> None:
    said = ("Below are images.",)
    sections = {
        "gallery": Section("a", "Gallery", said, galleries=(GALLERY,)),
        "picture": Section("b", "Picture", said, figures=REPORT.sections[2].figures),
        "words": Section("c", "Words", said),
        "table": Section("d", "Table", said, (ERRORS,), galleries=(GALLERY,)),
    }
    text = latex.report_latex(Report("r", (), tuple(sections.values())))
    assert re.findall(r"\\section\*\{(\w+)\}", text) == ["Words", "Table"]
    assert r"\section*{Picture}" in latex.report_latex(Report("r", (), (sections["picture"],)), {"ranks": "ranks.pdf"})


def test_all_formats_have_true_minus_signs() -> None:
    assert "−1.10 \\[−1.30, −0.91\\]" in markdown.table_markdown(DIFFERENCES)
    assert "(−0.01)" in markdown.table_markdown(ERRORS)
    assert "$-$1.10 {[}$-$1.30, $-$0.91]" in latex.table_latex(DIFFERENCES)
    assert "−1.10 [−1.30, −0.91]" in terminal_text(REPORT)
    assert "-1.098,0.2,-1.3,-0.914" in tidy.report_csv(REPORT)


@pytest.mark.skipif(
    shutil.which("pdflatex") is None and "AUTODO_REQUIRE_LATEX" not in os.environ, reason="needs pdflatex"
)
def test_latex_compiles(tmp_path: Path) -> None:
    every = " ".join("".join(map(chr, range(i, i + 8))) for i in range(32, 0x180, 8)) + " ≥≤−–—“”‘’… 猫\U0001f600"
    path = "/a_long-folder/of.results" * 20
    wide = Table(
        "wide", every, "c", "m", tuple(Column(f"column {i}") for i in range(20)),
        tuple(Row(f"{'long ' * (i % 30)}{i}", tuple(Cell(float(j), 1.0, 4) for j in range(20))) for i in range(90)),
        notes=(every,),
    )  # fmt: skip
    many = Section("many", "Many tables", (every,), tuple(ERRORS for _ in range(40)))
    report = Report(every, (every,), (*REPORT.sections, Section("wide", "Wide", tables=(wide,)), many), (every, path))
    (tmp_path / "report.tex").write_text(latex.report_latex(report))
    options = ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "-draftmode"]
    done = subprocess.run(
        ["pdflatex", *options, "report.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    log = (tmp_path / "report.log").read_text(errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in log
    assert re.findall(r"Overfull \\[hv]box.*", log) == []
