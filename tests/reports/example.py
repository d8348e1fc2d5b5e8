"""A report with all parts that a format must show, and the snapshots of its formats.

`python -m tests.reports.example` writes the snapshots again: read the difference before you commit it.
"""

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from reports.document import Cell, Column, Figure, Gallery, Reference, Report, Row, Section, Suspect, Table
from reports.formats.latex import report_latex
from reports.formats.markdown import report_markdown
from reports.formats.terminal import report_terminal
from reports.formats.tidy import report_csv

SNAPSHOTS = Path(__file__).parent / "snapshots"
HOSTILE = r"""=cmd|'/C calc'!A1 <script>alert(1)</script> **b** \input{x} $x_1^2$ 100% #1 & "q" `c` ~ [a](b) @me --"""

ERRORS = Table(
    key="errors-svhn",
    title="svhn (wrn-28-10, 200 epochs)",
    caption="test error at the epoch of lowest val error, mean ± std over seeds",
    heading="method / IR-NR",
    columns=(Column("1-0.0", "%", better="lower"), Column("100-0.1", "%", better="lower")),
    rows=(
        Row("baseline", (Cell(3.612, 0.104, 2, 2, paper=Reference(3.6, 0.1)), Cell(19.5, None, 1, 2))),
        Row(
            "autodo-aws, points.learn=[weight]",
            (
                Cell(2.514, 0.051, 2, 2, best=True, paper=Reference(2.5, 0.04)),
                Cell(6.29, 0.5, 2, 2, best=True, paper=Reference(6.3, 0.57)),
            ),
        ),
        Row(HOSTILE, (Cell(2.6, 0.3, 2, 2, tied=True), Cell(None, None, 0, 2))),
        Row("Ünïcödé naïve 猫 ±", (Cell(4.0, 0.2, 3, 3), Cell(None))),
    ),
    notes=("Tied with the best: p ≥ 0.05.", f"Results of different devices: {HOSTILE} (1 run)."),
    group="svhn (wrn-28-10, 200 epochs)",
)
DIFFERENCES = Table(
    key="differences-svhn",
    title="svhn (wrn-28-10, 200 epochs)",
    caption="error minus that of the baseline, mean over seeds",
    heading="method",
    columns=(Column("difference", "%", better="lower"), Column("speed", "images/s", digits=0, better="higher")),
    rows=(
        Row("autodo-aws", (Cell(-1.098, 0.2, 4, 4, interval=(-1.3, -0.914)), Cell(12345.6, 78.9, 4, 4, best=True))),
        Row("randaugment", (Cell(-0.001, 0.01, 4, 4, interval=(-0.004, 0.003)), Cell(987.6, 1.2, 4, 4))),
        Row("randaugment: loss", (Cell(0.2, 0.1, 4, 4, interval=(0.1, 0.3)), Cell(987.6, 1.2, 4, 4)), part="loss"),
    ),
    group="svhn (wrn-28-10, 200 epochs)",
    distortion="100-0.1",
)
GALLERY = Gallery(
    "suspects",
    "Suspicious images",
    "the most suspicious train points",
    (
        Suspect(7, "photos/<b>|cat_1*.png", "cat|dog", "<i>dog</i>", 0.987654, 0.01, 7.5, True),
        Suspect(12, None, "_a_", "b", 0.5, None, None),
    ),
)


def _undrawn() -> "object":
    raise AssertionError("text formats draw nothing")


REPORT = Report(
    title=f"Report of {HOSTILE}",
    summary=("8 runs are done, 2 are missing.", "- not a list, 1. nor this; # nor a heading"),
    sections=(
        Section("errors", "Test errors", ("A paragraph with a | and <b>.",), (ERRORS,)),
        Section("statistics", "Statistics", tables=(DIFFERENCES,)),
        Section(
            "figures",
            "Figures",
            figures=(
                Figure("ranks", "ranks of *all* methods", _undrawn),  # type: ignore[arg-type]
                Figure("left-out", "has no file", _undrawn),  # type: ignore[arg-type]
            ),
            galleries=(GALLERY,),
        ),
    ),
    warnings=("/store/results/a_b.parquet: left out: damaged <x>",),
    provenance=(("PyTorch", "2.11.0"), ("device", HOSTILE)),
    grids=(("quickstart", "name: quickstart\n# ```\nseeds: 2\n"),),
)


def terminal_text(report: Report, width: int = 110) -> str:
    """The output on a terminal without colours, without trailing spaces."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    console.print(report_terminal(report))
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


FORMATS: dict[str, Callable[[Report], str]] = {
    "report.md": lambda report: report_markdown(report, {"ranks": "figures/ranks.svg"}),
    "report.tex": report_latex,
    "report.csv": report_csv,
    "report.txt": terminal_text,
}
"""Renderers of REPORT by name of their snapshot."""


if __name__ == "__main__":
    for name, render in FORMATS.items():
        (SNAPSHOTS / name).write_bytes(render(REPORT).encode())
