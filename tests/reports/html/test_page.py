"""Content of the page, and what its policy allows."""

import base64
import dataclasses
import fnmatch
import hashlib
import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from reports.document import Cell, Panel, Report, Row, Section, Table
from reports.figures import rendering
from reports.html import to_html
from tests.reports.html import reports
from tests.reports.html.reports import HOSTILE, METHODS, SCRIPT
from tests.reports.html.tree import Element, parse

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def page(rich_page: Path) -> Element:
    return parse(rich_page.read_text(encoding="utf-8"))


def no_picture(figure: object) -> tuple[str, bytes]:
    raise AssertionError("there is no figure to draw")


def render(*sections: Section, **parts: tuple) -> Element:
    return parse(to_html(Report("title", ("summary",), sections, **parts), no_picture))


def test_the_policy_allows_only_the_styles_and_scripts_of_the_page(page: Element) -> None:
    policy = page.one(**{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    rules = dict(rule.split(" ", 1) for rule in (policy or "").split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for rule, tag in (("style-src", "style"), ("script-src", "script")):
        texts = [e.text for e in page.all(tag) if e.attributes.get("type") != "application/json"]
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert rules[rule].split() == [f"'sha256-{value}'" for value in hashes]


def test_the_page_refers_to_nothing_outside(page: Element) -> None:
    for element in page:
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"{name} would be a script"
            assert name != "style", "the policy would not let it through"
            if name in ("src", "srcset", "data", "action", "poster"):
                assert (value or "").startswith("data:"), (element.tag, name, value)
            if name == "href":
                assert (value or "").startswith(("#", "data:,")), (element.tag, name, value)
    for style in page.all("style"):
        assert not re.search(r"@import|url\(", style.text)


def test_text_of_a_store_is_escaped(page: Element) -> None:
    known = {"a", "aside", "b", "body", "button", "code", "dd", "details", "div", "dl", "dt", "fieldset"}
    known |= {"figcaption", "figure", "h1", "h2", "h3", "head", "header", "html", "i", "img", "input", "label"}
    known |= {"legend", "li", "line", "link", "main", "meta", "nav", "noscript", "ol", "option", "p", "pre", "script"}
    known |= {"section", "select", "span", "style", "summary", "svg", "table", "tbody", "td", "th", "thead", "title"}
    known |= {"tr", "u", "ul", "wbr"}
    assert {element.tag for element in page} - {""} <= known
    assert all(script.text.strip() != "alert(1)" for script in page.all("script"))
    text = page.text
    for hostile in HOSTILE:
        assert hostile in text
    assert any(e.text.startswith(f"STORE/results/{HOSTILE[1]}") for e in page.all("li"))
    assert any(e.attributes["alt"] == f"Accuracy of each class; the last is called {SCRIPT}" for e in page.all("img"))


def test_headings_are_in_order_and_anchors_are_unique(page: Element) -> None:
    assert page.all("html")[0].attributes["lang"] == "en"
    levels = [int(e.tag[1]) for e in page if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [e.attributes["id"] for e in page if "id" in e.attributes]
    assert len(set(ids)) == len(ids)
    for element in page:
        for name in ("aria-labelledby", "aria-describedby"):
            assert element.attributes.get(name, ids[0]) in ids
        if (element.attributes.get("href") or "").startswith("#"):
            assert (element.attributes["href"] or "")[1:] in ids


def test_every_section_is_in_the_contents(page: Element) -> None:
    (contents,) = page.all("nav")
    titles = [section.title for section in reports.rich().sections]
    links = [e.text for e in contents.all("a")]
    assert [text for text in links if text in titles] == titles
    assert links[-1] == "How it was made"


def test_cells_show_mean_std_seeds_and_the_papers_figure() -> None:
    rows = {
        "full": ("6.57 ± 0.21", Cell(6.574, 0.206, 4, 4)),
        "best": ("★best: 3.10 ± 0.20", Cell(3.1, 0.2, 4, 4, best=True)),
        "tied": ("3.20 ± 0.20 (tied with the best)", Cell(3.2, 0.2, 4, 4, tied=True)),
        "half": ("(2/4) 5.00 ± 1.00", Cell(5.0, 1.0, 2, 4)),
        "one": ("(1/4) 5.00", Cell(5.0, None, 1, 4)),
        "hole": ("(0/4) –", Cell(None, None, 0, 4)),
        "unknown": ("–", Cell(None)),
        "zero": ("0.00 ± 0.00", Cell(-0.0004, 0.0, 4, 4)),
        "minus": ("−1.50", Cell(-1.5, None, 4, 4)),
        "interval": ("−1.20 [−1.91, 0.42]", Cell(-1.2, 0.5, 4, 4, interval=(-1.91, 0.42))),
        "better": ("4.31 ± 0.20paper: 4.5 ± 0.10 (−0.19)", Cell(4.31, 0.2, 4, 4, paper=reports.Reference(4.5, 0.1))),
        "worse": ("4.31 ± 0.20paper: 4.0 (+0.31)", Cell(4.31, 0.2, 4, 4, paper=reports.Reference(4.0))),
        "theirs": ("(0/4) –paper: 4.31", Cell(None, None, 0, 4, paper=reports.Reference(4.31))),
    }
    page, texts = one_column({name: cell for name, (_, cell) in rows.items()})
    assert texts == {name: text for name, (text, _) in rows.items()}
    assert page.all("p", "caption")[0].text == (
        "Errors, in\u00a0%; n\u00a0=\u00a04 unless shown; in small print: paper (ours minus it)."
    )


def test_without_a_common_number_of_seeds_each_cell_shows_its_own() -> None:
    page, texts = one_column({"four": Cell(5.0, 1.0, 4, 4), "six": Cell(5.0, 1.0, 6, 4)})
    assert texts == {"four": "(4) 5.00 ± 1.00", "six": "(6) 5.00 ± 1.00"}
    assert page.all("p", "caption")[0].text == "Errors, in\u00a0%; n in brackets."


def one_column(cells: dict[str, Cell]) -> tuple[Element, dict[str, str]]:
    """Texts of these cells, one below the other on a page."""
    rows = tuple(Row(name, (cell,)) for name, cell in cells.items())
    table = Table("t", "t", "errors", "method", (reports.Column("x", "%"),), rows)
    page = render(Section("s", "s", tables=(table,)))
    return page, {row.all("th")[0].text: row.all("td")[0].text.strip() for row in page.all("tbody")[0].all("tr")}


def test_marks_are_explained_in_tables_that_have_them(page: Element) -> None:
    (notes,) = page.one(id="errors").all("div", "notes")
    for word in ("★: lowest", "underlined", "incomplete cells aside"):
        assert word in notes.text
    assert page.one(id="cost").all("div", "notes") == []


def test_a_shared_note_is_shown_once_and_referred_to_by_number() -> None:
    notes = {"a": ("of all", "of a & b"), "b": ("of all", "of a & b"), "c": ("of c", "of all"), "d": ()}
    tables = tuple(dataclasses.replace(reports.cost(key), notes=own) for key, own in notes.items())
    page = render(Section("s", "s", tables=tables))
    (shared,) = page.all("ol", "notes")
    assert [note.text for note in shared.all("li")] == ["of all", "of a & b"]
    told = {
        key: " ".join(" ".join(part.text.split()) for part in page.one(id=key).all("div", "notes")) for key in notes
    }
    assert told == {
        "a": "Notes 1, 2 under the tables.",
        "b": "Notes 1, 2 under the tables.",
        "c": "of c Note 1 under the tables.",
        "d": "",
    }
    assert [link.attributes["href"] for link in page.one(id="a").all("a")] == ["#section-s-note-1", "#section-s-note-2"]
    assert [note.attributes["id"] for note in shared.all("li")] == ["section-s-note-1", "section-s-note-2"]


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ((0.9999871, 0.9999702), ["0.999987", "0.99997"]),
        ((1234567.0, -0.5), ["1.23457e+06", "-0.5"]),
        ((1.0, 1.0), []),
        ((0.99999991, 0.99999992), []),
    ],
)
def test_a_score_has_six_digits_and_is_left_out_if_all_share_it(scores: tuple, shown: list[str]) -> None:
    gallery = reports.gallery()
    given = zip(gallery.suspects, scores, strict=False)
    suspects = tuple(dataclasses.replace(suspect, score=score) for suspect, score in given)
    page = render(Section("s", "s", galleries=(dataclasses.replace(gallery, suspects=suspects),)))
    found = [div.all("dd")[0].text for div in page.all("div") if [dt.text for dt in div.all("dt")] == ["score"]]
    assert found == shown
    assert [card.attributes["data-score"] for card in page.all("li", "suspect")] == [str(score) for score in scores]


def test_marks_do_not_need_colour(page: Element) -> None:
    for cell in page.one(id="errors").all("td"):
        assert bool(cell.all("b")) == ("★" in cell.text) == ("best:" in cell.text)
        assert bool(cell.all("u")) == ("tied with the best" in cell.text)


def test_heads_are_buttons_and_name_units_that_differ(page: Element) -> None:
    heads = page.one(id="cost").all("thead")[0].all("th")
    assert [head.text.strip() for head in heads] == ["method", "per run (h)", "throughput (images/s)", "runs"]
    assert all(head.all("button") and head.attributes["aria-sort"] == "none" for head in heads)


def test_curves_have_few_digits(page: Element) -> None:
    (script,) = page.one(id="section-learning-curves").all("script")
    found = json.loads(script.text)
    assert [method["name"] for method in found["methods"]] == list(METHODS)
    given = reports.panels()
    panels = [panel for group in found["groups"] for panel in group["panels"]]
    assert [panel["key"] for panel in panels] == [panel.key for panel in given]
    for panel, expected in zip(panels, given, strict=True):
        for curve, truth in zip(panel["curves"], expected.curves, strict=True):
            assert found["methods"][curve["method"]]["name"] == truth.name
            assert curve["outer"] == truth.outer_start
            np.testing.assert_allclose(curve["mean"], truth.mean, rtol=5e-5)
            np.testing.assert_allclose(np.array(curve["std"], float), truth.std, rtol=5e-3)


def test_curves_over_different_epochs_are_aligned() -> None:
    def curve(name: str, *epochs: int) -> reports.Curve:
        numbers = np.array(epochs)
        return reports.Curve(name, numbers, 10.0 * numbers, np.full(len(epochs), np.nan), 1)

    panel = Panel("p", "group", "loss", "", (curve("a", 1, 2, 4), curve("b", 2, 3)))
    page = render(Section("s", "s", panels=(panel,)))
    (data,) = json.loads(page.one(id="section-s-curves").all("script")[0].text)["groups"][0]["panels"]
    assert data["epochs"] == [1, 2, 3, 4]
    assert [c["mean"] for c in data["curves"]] == [[10, 20, None, 40], [None, 20, 30, None]]
    assert [c["std"] for c in data["curves"]] == [[None] * 4, [None] * 4]


def test_suspects_show_known_values_and_a_placeholder_for_a_missing_image(page: Element) -> None:
    suspects = page.one(id="suspects").all("li", "suspect")
    given = reports.gallery().suspects
    assert len(suspects) == len(given)
    assert [bool(e.all("img")) for e in suspects] == [s.image not in (None, b"no PNG") for s in given]
    for element, suspect in zip(suspects, given, strict=True):
        assert f"labelled {suspect.given}" in element.text
        assert suspect.proposed in element.all("b")[0].text
        assert (suspect.source or f"image {suspect.index}") in element.text
        assert ("known to be wrong" in element.text, "known to be right" in element.text) == (
            suspect.wrong is True,
            suspect.wrong is False,
        )
        for image in element.all("img"):
            assert base64.b64decode((image.attributes["src"] or "").split(",")[1]) == suspect.image
    assert "weight" not in suspects[2].text


def test_of_many_tables_the_first_are_shown_and_the_others_folded(page: Element) -> None:
    section = page.one(id="section-splits")
    (fold,) = section.all("details")
    assert fold.all("summary")[0].text == "7 more tables"
    assert [len(part.all("table")) for part in (section, fold)] == [9, 7]
    assert page.one(id="section-test-error").all("details") == []


def test_only_many_warnings_are_folded(page: Element) -> None:
    (warnings,) = page.all("aside")
    assert warnings.all("h2")[0].text == "12 warnings"
    assert len(warnings.all("li")) == 12
    assert len(warnings.all("details")[0].all("li")) == 9
    few = render(warnings=("one is cut short",))
    assert few.all("aside")[0].all("h2")[0].text == "1 warning"
    assert few.all("aside")[0].all("details") == []


def test_an_empty_report_has_only_the_scripts_it_needs() -> None:
    page = render()
    assert page.all("h1")[0].text == "title"
    assert "uPlot" not in page.text
    assert page.all("aside") == []
    everything = parse(to_html(reports.paper_grid(), no_picture)).text
    assert "uPlot" in everything
    assert "Permission is hereby granted" in everything, "the licence of uPlot asks to stand in every copy"


def test_the_paper_grid_fits_into_five_megabytes() -> None:
    report = reports.paper_grid()
    curves = [curve for section in report.sections for panel in section.panels for curve in panel.curves]
    assert len(curves) == 3 * 4 * 8 * len(reports.QUANTITIES)
    assert all(curve.mean.size == 200 for curve in curves)
    assert len(to_html(report, no_picture).encode()) < 5_000_000


@pytest.mark.slow
def test_the_paper_grid_fits_into_five_megabytes_with_pictures_of_its_embeddings() -> None:
    grid = reports.paper_grid()
    figures = tuple(reports.clusters(f"clusters-{classes}-{i}", classes) for i, classes in enumerate((10, 10, 100)))
    report = dataclasses.replace(grid, sections=(*grid.sections, Section("embeddings", "Embeddings", figures=figures)))
    drawn = {figure.key: rendering.render(figure) for figure in figures}
    assert sum(len(files.smallest[1]) for files in drawn.values()) > 3_000_000, "else this tests nothing"
    page = to_html(report, lambda figure: drawn[figure.key].for_page)
    pictures = [base64.b64decode((image.attributes["src"] or "").split(",")[1]) for image in parse(page).all("img")]
    assert len(pictures) == 3
    assert max(map(len, pictures)) <= rendering.PAGE_BYTES
    assert len(page.encode()) < len(to_html(grid, no_picture).encode()) + 3 * 1.34 * rendering.PAGE_BYTES + 10_000
    assert len(page.encode()) < 5_000_000


def test_duplicate_anchors_are_refused() -> None:
    table = reports.cost()
    with pytest.raises(AssertionError, match=r"occur twice: \['cost'\]"):
        render(Section("s", "s", tables=(table, table)))


def test_an_installed_package_has_every_file_of_the_page() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["reports.html"]
    folder = ROOT / "reports" / "html"
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert len(names) > 10
    assert [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []
