"""Which curves are shown first, and in which colours."""

import pytest

from reports.document import Cell, Column, Report, Row, Section, Table
from reports.figures.palette import COLOURS, NEUTRAL
from reports.html import curve_data
from tests.reports.html import reports


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [("#ffffff", "#000000", 21.0), ("#777777", "#ffffff", 4.478), ("#ff0000", "#ffffff", 3.998)],
)
def test_contrast_is_that_of_wcag(one: str, other: str, ratio: float) -> None:
    """Values that published contrast checkers give."""
    assert curve_data.contrast_ratio(one, other) == pytest.approx(ratio, abs=1e-3)
    assert curve_data.contrast_ratio(other, one) == pytest.approx(ratio, abs=1e-3)


@pytest.mark.parametrize("colour", [*COLOURS, NEUTRAL, "#000000", curve_data.DARK])
def test_every_colour_is_seen_on_a_dark_page(colour: str) -> None:
    lit = curve_data.on_dark(colour)
    assert curve_data.contrast_ratio(lit, curve_data.DARK) >= 4
    if curve_data.contrast_ratio(colour, curve_data.DARK) >= 4:
        assert lit == colour.lower(), "a colour that is seen stays as it is"


def test_the_dark_background_is_that_of_the_style() -> None:
    from reports.html.page import _asset

    dark = _asset("page.css").split("prefers-color-scheme: dark")[1]
    assert f"--card: {curve_data.DARK};" in dark


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
