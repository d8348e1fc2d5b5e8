"""Tables are sorted, filtered and scrolled in a real browser."""

from pathlib import Path

from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from reports.document import Column, Table
from reports.html import to_html
from tests.reports.html import reports
from tests.reports.html.browser import errors, find
from tests.reports.html.conftest import Open
from tests.reports.html.reports import METHODS, SCRIPT


def rows(chrome: Chrome, key: str) -> list[str]:
    """Names of the visible rows, from top to bottom."""
    seen = """
        return [...document.querySelectorAll(arguments[0])]
          .filter((e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().height > 0)
          .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
          .map((e) => e.textContent);
    """
    return chrome.execute_script(seen, f"#{key} tbody th")


def head(chrome: Chrome, key: str, column: int) -> WebElement:
    return find(chrome, f"#{key} thead th:nth-child({column + 1})")


def expected_order(table: Table, column: int, reverse: bool = False) -> list[str]:
    """Names by mean; those without one come last, in the order of the table."""
    known = [row for row in table.rows if row.cells[column].mean is not None]
    holes = [row.name for row in table.rows if row.cells[column].mean is None]
    known.sort(key=lambda row: row.cells[column].mean or 0, reverse=reverse)
    return [row.name for row in known] + holes


def test_a_click_sorts_a_column_and_holes_are_last(rich_page: Path, open_page: Open) -> None:
    chrome, table = open_page(rich_page), reports.errors()
    stated = rows(chrome, "errors")
    assert stated == list(METHODS)
    button = head(chrome, "errors", 2).find_element(By.TAG_NAME, "button")
    for direction, reverse in (("ascending", False), ("descending", True)):
        button.click()
        assert head(chrome, "errors", 2).get_attribute("aria-sort") == direction
        assert rows(chrome, "errors") == expected_order(table, 1, reverse)
        assert rows(chrome, "errors")[-1] == "autodo-aw"
    button.click()
    assert head(chrome, "errors", 2).get_attribute("aria-sort") == "none"
    assert rows(chrome, "errors") == stated
    assert rows(chrome, "errors-cifar10") == stated
    assert errors(chrome) == []


def test_columns_are_sorted_by_keyboard(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page)
    find(chrome, "#cost .scroll").send_keys(Keys.TAB)
    focused = chrome.switch_to.active_element
    assert focused.text.startswith("method")
    focused.send_keys(Keys.SPACE)
    assert rows(chrome, "cost") == sorted(METHODS[:5])
    focused.send_keys(Keys.SPACE)
    assert rows(chrome, "cost") == sorted(METHODS[:5], reverse=True)
    focused.send_keys(Keys.TAB, Keys.NULL)
    chrome.switch_to.active_element.send_keys(Keys.TAB)
    throughput = chrome.switch_to.active_element
    assert throughput.text.startswith("throughput")
    throughput.send_keys(Keys.ENTER)
    assert head(chrome, "cost", 2).get_attribute("aria-sort") == "descending", "more images/s are better"
    assert head(chrome, "cost", 0).get_attribute("aria-sort") == "none"
    assert rows(chrome, "cost") == expected_order(reports.cost(), 1, reverse=True)


def test_a_filter_keeps_rows_with_all_words(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page)
    box, status = find(chrome, "#errors input"), find(chrome, "#errors [role=status]")
    box.send_keys("AutoDO aws")
    assert rows(chrome, "errors") == ["autodo-aws", "autodo-exact-aws"]
    assert status.text == "2 of 10 rows"
    assert len(rows(chrome, "errors-cifar10")) == len(METHODS)
    head(chrome, "errors", 0).find_element(By.TAG_NAME, "button").click()
    assert rows(chrome, "errors") == ["autodo-aws", "autodo-exact-aws"]
    box.clear()
    box.send_keys("nothing has this name")
    assert rows(chrome, "errors") == []
    assert status.text == "0 of 10 rows"
    box.clear()
    box.send_keys(SCRIPT)
    assert rows(chrome, "errors") == [SCRIPT]


def test_only_long_tables_have_a_filter(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page)
    filters = chrome.execute_script(
        "return [...document.querySelectorAll('.table')].map((t) => [t.querySelector('tbody').rows.length,"
        " t.querySelector('.filter').checkVisibility()])"
    )
    assert {shown for count, shown in filters if count == len(METHODS)} == {True}
    assert {shown for count, shown in filters if count <= 8} == {False}


def test_two_columns_fit_into_the_smallest_window(open_page: Open, tmp_path: Path) -> None:
    columns = tuple(Column(name, "%", 2, better="lower") for name in ("1-0.0", "100-0.1"))
    cells = (reports.Cell(8.28, 0.76, 2, 2, best=True), reports.Cell(30.08, 7.88, 2, 2, best=True))
    table = Table("t", "t", "t", "method / IR-NR", columns, (reports.Row("baseline", cells),))
    path = tmp_path / "small.html"
    path.write_text(to_html(reports.Report("r", (), (reports.Section("s", "s", tables=(table,)),)), reports.picture))
    chrome = open_page(path, 320)
    sizes = "const s = document.querySelector('.scroll'); return [s.scrollWidth, s.clientWidth]"
    assert len(set(chrome.execute_script(sizes))) == 1


def test_seven_columns_fit_into_a_wide_window(open_page: Open, tmp_path: Path) -> None:
    names = ("run", "inner, an epoch", "outer, an epoch", "outer phase", "outer share", "speed", "peak memory")
    units = ("h", "s", "s", "h", "%", "images/s", "GiB")
    columns = tuple(Column(name, unit, 3) for name, unit in zip(names, units, strict=True))
    cell = reports.Cell(0.014, 0.010, 2, 3)
    table = Table("t", "t", "t", "method", columns, tuple(reports.Row(name, (cell,) * 7) for name in METHODS[:6]))
    path = tmp_path / "wide.html"
    path.write_text(to_html(reports.Report("r", (), (reports.Section("s", "s", tables=(table,)),)), reports.picture))
    chrome = open_page(path)
    sizes = "const s = document.querySelector('.scroll'); return [s.scrollWidth, s.clientWidth]"
    assert len(set(chrome.execute_script(sizes))) == 1
    heights = "return [...document.querySelectorAll('.figures')].map((f) => f.getClientRects().length)"
    assert set(chrome.execute_script(heights)) == {1}, "a figure is never broken"


def test_columns_sort_by_number_not_by_text(open_page: Open, tmp_path: Path) -> None:
    cells = [reports.Cell(mean, None, 1) for mean in (9.5, -3.0, 1e-7, 100.25, float("nan"))]
    rows_ = tuple(reports.Row(f"row-{i}", (cell,)) for i, cell in enumerate(cells))
    table = Table("t", "t", "t", "row", (Column("x"),), rows_)
    path = tmp_path / "numbers.html"
    path.write_text(to_html(reports.Report("r", (), (reports.Section("s", "s", tables=(table,)),)), reports.picture))
    chrome = open_page(path)
    find(chrome, "thead th:nth-child(2) button").click()
    assert rows(chrome, "t") == ["row-1", "row-2", "row-0", "row-3", "row-4"]


def test_on_a_phone_a_table_scrolls_and_its_names_stay(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page, 390)
    where = "return document.querySelector('#errors tbody th').getBoundingClientRect().left"
    before = chrome.execute_script(where)
    scrolled = """
        const scroll = document.querySelector("#errors .scroll");
        scroll.scrollLeft = 150;
        return scroll.scrollLeft;
    """
    assert chrome.execute_script(scrolled) == 150
    assert chrome.execute_script(where) == before
