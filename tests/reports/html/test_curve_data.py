"""Curves that are shown first, and their colours."""

import re

import pytest

from reports.document import Cell, Column, Report, Row, Section, Table
from reports.figures.palette import COLOURS, NEUTRAL, Style
from reports.html import curve_data
from reports.html.page import _asset
from tests.reports.html import reports
from tests.reports.html.contrast import contrast_ratio


def test_contrast_is_that_of_published_checkers() -> None:
    for one, other, ratio in (
        ("#ffffff", "#000000", 21.0),
        ("#777777", "#ffffff", 4.478),
        ("#ff0000", "#ffffff", 3.998),
    ):
        assert contrast_ratio(one, other) == contrast_ratio(other, one) == pytest.approx(ratio, abs=1e-3)


def test_all_colours_are_visible_on_a_dark_page() -> None:
    dark = re.findall("--card: (#[0-9a-f]{6});", _asset("page.css").split("prefers-color-scheme: dark")[1])[0]
    for style in map(Style, (*COLOURS, NEUTRAL)):
        assert contrast_ratio(style.on_dark, dark) >= 4
        assert style.on_dark == style.colour.lower() or contrast_ratio(style.colour, dark) < 4


def report(count: int, best: str) -> tuple[Section, Report]:
    names = tuple(f"method-{i:02d}" for i in range(count))
    section = Section("curves", "curves", panels=reports.panels(1, names, 5))
    rows = tuple(Row(name, (Cell(1.0, None, 1, best=name == best),)) for name in names)
    table = Table("t", "t", "t", "method", (Column("x"),), rows)
    return section, Report("r", (), (Section("tables", "t", tables=(table,)), section))


def test_few_curves_are_all_shown() -> None:
    section, whole = report(8, best="method-03")
    assert curve_data.shown_first(section, whole) == {f"method-{i:02d}" for i in range(8)}


def test_of_many_curves_the_first_and_the_best_are_shown() -> None:
    section, whole = report(20, best="method-17")
    shown = curve_data.shown_first(section, whole)
    assert shown == {"method-17", *(f"method-{i:02d}" for i in range(7))}
