"""The page in a real browser, opened from disk."""

import base64
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from reports.document import Column, Table
from reports.html import to_html
from tests.reports.html import reports
from tests.reports.html.conftest import Open, installed
from tests.reports.html.reports import METHODS, SCRIPT


def find(chrome: Chrome, selector: str) -> WebElement:
    return chrome.find_element(By.CSS_SELECTOR, selector)


def rows(chrome: Chrome, key: str) -> list[str]:
    """Names of the rows that are to be seen, from top to bottom."""
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
    """Names by mean, those without one last in the order of the table."""
    known = [row for row in table.rows if row.cells[column].mean is not None]
    holes = [row.name for row in table.rows if row.cells[column].mean is None]
    known.sort(key=lambda row: row.cells[column].mean or 0, reverse=reverse)
    return [row.name for row in known] + holes


def errors(chrome: Chrome) -> list[Any]:
    return chrome.get_log("browser")


def wait(chrome: Chrome, condition: Callable[[Chrome], Any]) -> Any:
    return WebDriverWait(chrome, 20).until(condition)


def charts(chrome: Chrome) -> list[WebElement]:
    """Of the group that is open, once all of them are drawn."""
    find(chrome, ".panels")
    chrome.execute_script("document.querySelector('.panels').scrollIntoView({behavior: 'instant'})")
    drawn = "return [...document.querySelectorAll('.chart')].every((c) => c.uplot && c.uplot.status === 1)"
    wait(chrome, lambda c: c.execute_script(drawn))
    return chrome.find_elements(By.CSS_SELECTOR, ".chart")


def shown(chrome: Chrome, chart: WebElement) -> list[str]:
    """Labels of the curves that a chart shows; a curve's band must go with its line."""
    series = chrome.execute_script("return arguments[0].uplot.series.map((s) => [s.label, s.show])", chart)[1:]
    for i in range(0, len(series), 3):
        assert series[i][1] == series[i + 1][1] == series[i + 2][1]
    return [label for label, show in series[::3] if show]


def pixels(chrome: Chrome, chart: WebElement, colour: str) -> int:
    """How many pixels of a chart have a colour."""
    count = """
        const canvas = arguments[0].querySelector("canvas");
        // A copy, because Chromium warns of a canvas that is read.
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
        let found = 0;
        for (let i = 0; i < data.length; i += 4) {
          if (arguments[1].every((part, j) => Math.abs(data[i + j] - part) < 3) && data[i + 3] > 250) found++;
        }
        return found;
    """
    return chrome.execute_script(count, chart, [int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def test_a_missing_browser_skips_unless_it_is_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("AUTODO_REQUIRE_CHROMIUM", raising=False)
    with pytest.raises(pytest.skip.Exception):
        installed()
    monkeypatch.setenv("AUTODO_REQUIRE_CHROMIUM", "1")
    with pytest.raises(pytest.fail.Exception, match="is missing"):
        installed()


def test_the_page_opens_without_error_request_or_alert(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page)
    charts(chrome)
    assert errors(chrome) == []
    with pytest.raises(NoAlertPresentException):
        _ = chrome.switch_to.alert
    messages = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url for url in sent if not url.startswith("data:")} == {rich_page.as_uri()}
    assert SCRIPT in find(chrome, ".summary").text
    assert SCRIPT in find(chrome, "#suspects").text
    assert chrome.title == reports.rich().title


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


def test_keys_sort_a_column_by_name_and_by_what_is_better(rich_page: Path, open_page: Open) -> None:
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


def test_a_filter_leaves_the_rows_that_have_every_word(rich_page: Path, open_page: Open) -> None:
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


def test_a_method_is_switched_off_in_every_chart_of_its_group(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page)
    three = charts(chrome)
    assert len(three) == len(reports.QUANTITIES)
    before = shown(chrome, three[0])
    assert len(before) == 8
    name = "autodo-a"
    box = find(chrome, f".methods input[value='{METHODS.index(name)}']")
    colour = chrome.execute_script(
        "return JSON.parse(document.querySelector('.curves script').textContent).methods[arguments[0]].colour",
        METHODS.index(name),
    )
    drawn = [pixels(chrome, chart, colour) for chart in three]
    box.send_keys(Keys.SPACE)
    assert not box.is_selected()
    for chart, count in zip(three, drawn, strict=True):
        assert shown(chrome, chart) == [other for other in before if other != name]
        assert pixels(chrome, chart, colour) < count / 2
    find(chrome, "[data-shown=none]").click()
    assert [shown(chrome, chart) for chart in three] == [[]] * 3
    find(chrome, "[data-shown=all]").click()
    assert [shown(chrome, chart) for chart in three] == [list(METHODS)] * 3
    Select(find(chrome, ".controls select")).select_by_index(2)
    assert [shown(chrome, chart) for chart in charts(chrome)] == [list(METHODS)] * 3
    assert errors(chrome) == []


def test_pointer_and_arrow_keys_read_the_values(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page)
    chart = charts(chrome)[0]
    panel = reports.panels()[0]

    def read() -> list[str]:
        return [element.text for element in chrome.find_elements(By.CSS_SELECTOR, ".readout") if element.text]

    ActionChains(chrome).move_to_element(chart).perform()
    (text,) = read()
    assert text.startswith("epoch ")
    ActionChains(chrome).move_to_element(find(chrome, ".methods")).perform()
    assert read() == []
    chart.send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    (text,) = read()
    first = panel.curves[0]
    assert text.startswith("epoch 3")
    assert f"baseline {first.mean[2]:.2f} ± {first.std[2]:.2f}" in text.replace("\n", " ")
    assert f"autodo-a {panel.curves[1].mean[2]:.2f} (n = 1)" in text.replace("\n", " ")
    chart.send_keys(Keys.END)
    assert read()[0].startswith("epoch 200")
    chart.send_keys(Keys.ESCAPE)
    assert read() == []


def test_charts_out_of_view_wait(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page, 390)
    frames = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50)))"
    chrome.execute_async_script(frames)
    assert chrome.find_elements(By.CSS_SELECTOR, ".panel"), "their places are kept"
    assert chrome.find_elements(By.CSS_SELECTOR, "canvas") == []
    assert charts_in_view(chrome)


def charts_in_view(chrome: Chrome) -> list[WebElement]:
    chrome.execute_script("document.querySelector('.panel').scrollIntoView({behavior: 'instant'})")
    return wait(chrome, lambda c: c.find_elements(By.CSS_SELECTOR, ".chart canvas"))


@pytest.mark.parametrize("width", [320, 390, 768, 1400])
def test_nothing_sticks_out(rich_page: Path, open_page: Open, width: int) -> None:
    chrome = open_page(rich_page, width)
    charts_in_view(chrome)
    assert chrome.execute_script("return innerWidth") == width
    # As wide as the window without its scroll bar.
    sizes = "const page = document.scrollingElement; return [page.scrollWidth, page.clientWidth]"
    assert len(set(chrome.execute_script(sizes))) == 1
    chrome.execute_script("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert len(set(chrome.execute_script(sizes))) == 1


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


def test_text_can_be_read_in_light_and_dark(rich_page: Path, open_page: Open) -> None:
    """WCAG 2.1 AA, 1.4.3: 4.5 for text, on what lies behind it."""
    from reports.html.curves import contrast_ratio

    pairs = """
        const solid = (element) => {
          for (let e = element; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if (!/rgba\\(.*, 0\\)/.test(colour)) return colour;
          }
        };
        const found = new Map();
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        for (let node = walker.nextNode(); node; node = walker.nextNode()) {
          const e = node.parentElement;
          if (!node.data.trim() || e.closest("script, style, noscript, svg") || !e.checkVisibility()) continue;
          const pair = [getComputedStyle(e).color, solid(e)];
          found.set(pair.join(), [...pair, node.data.trim().slice(0, 30)]);
        }
        return [...found.values()];
    """

    def colour(text: str) -> str:
        parts = [int(part) for part in text[text.index("(") + 1 : -1].split(",")]
        assert len(parts) == 3, f"{text} is not opaque"
        return "#" + "".join(f"{part:02x}" for part in parts)

    pages = {}
    for dark in (False, True):
        found = open_page(rich_page, dark=dark).execute_script(pairs)
        assert len(found) >= 5
        pages[dark] = {behind for _, behind, _ in found}
        for text, behind, words in found:
            assert contrast_ratio(colour(text), colour(behind)) >= 4.5, (words, text, behind, dark)
    assert not pages[False] & pages[True], "dark mode has other backgrounds"


def test_a_chart_has_brighter_lines_in_the_dark(rich_page: Path, open_page: Open) -> None:
    for dark, key in ((False, "colour"), (True, "dark")):
        chrome = open_page(rich_page, dark=dark)
        chart = charts(chrome)[0]
        methods = json.loads(find(chrome, ".curves script").get_attribute("textContent") or "")["methods"]
        blue = methods[METHODS.index(SCRIPT)]
        assert blue["colour"] != blue["dark"]
        assert pixels(chrome, chart, blue[key]) > 50


def test_without_scripts_all_but_the_curves_is_there(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page, scripts=False)
    text = find(chrome, "body").text
    for words in (*METHODS, "Save the list", "interactive curves need JavaScript", "20 runs", "IMG_00001.png"):
        assert (words in text) == (words != "Save the list"), words
    assert not find(chrome, ".curves").is_displayed()
    assert not find(chrome, "#errors .filter").is_displayed()
    assert not find(chrome, "#errors thead button").is_enabled()
    images = chrome.find_elements(By.CSS_SELECTOR, ".picture img, .suspects img")
    assert len(images) > 20
    assert all(image.size["height"] > 50 for image in images if image.is_displayed())
    find(chrome, ".provenance summary").click()
    assert find(chrome, ".provenance pre").is_displayed()


def test_paper_has_every_fold_and_chart_on_white(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page, dark=True)
    pdf = chrome.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    assert base64.b64decode(pdf["data"]).startswith(b"%PDF")
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert chrome.execute_script("return getComputedStyle(document.documentElement).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    chrome.execute_script("dispatchEvent(new Event('beforeprint'))")
    wait(chrome, lambda c: len(c.find_elements(By.CSS_SELECTOR, ".chart canvas")) == len(reports.QUANTITIES))
    assert all(fold.get_attribute("open") for fold in chrome.find_elements(By.TAG_NAME, "details"))
    chart = charts(chrome)[0]
    assert pixels(chrome, chart, "#0072b2") > 50, "the colours for white paper"
    for gone in (".contents", ".filter", ".save", ".several", ".hint", ".skip"):
        assert not find(chrome, gone).is_displayed(), gone
    chrome.execute_script("dispatchEvent(new Event('afterprint'))")
    assert not any(fold.get_attribute("open") for fold in chrome.find_elements(By.TAG_NAME, "details"))
    assert errors(chrome) == []


def test_the_list_of_suspects_is_saved_as_it_is(rich_page: Path, open_page: Open, downloads: Path) -> None:
    chrome = open_page(rich_page)
    find(chrome, "#suspects .save button").click()
    path = downloads / "suspects.csv"
    wait(chrome, lambda _: path.exists() and path.stat().st_size)
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    given = reports.gallery().suspects
    assert [int(row["index"]) for row in found] == [s.index for s in given]
    assert [row["source"] for row in found] == [s.source or "" for s in given]
    assert [(row["given"], row["proposed"]) for row in found] == [(s.given, s.proposed) for s in given]
    for name in ("score", "weight", "loss"):
        values = [float(row[name]) if row[name] else None for row in found]
        assert values == [getattr(s, name) for s in given]
    assert [row["wrong"] for row in found] == [{True: "true", False: "false", None: ""}[s.wrong] for s in given]


def test_the_focus_is_seen_and_the_contents_can_be_skipped(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page)
    find(chrome, "body").send_keys(Keys.TAB)
    skip = chrome.switch_to.active_element
    assert skip.text == "Skip to the results"
    assert skip.rect["y"] >= 0
    assert skip.value_of_css_property("outline-style") == "solid"
    skip.send_keys(Keys.ENTER)
    assert chrome.switch_to.active_element.get_attribute("id") == "page-main"


def test_a_link_into_a_fold_opens_it(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page)
    assert not find(chrome, "#split-7 table").is_displayed()
    chrome.execute_script("location.hash = 'split-7'")
    wait(chrome, lambda c: find(c, "#split-7 table").is_displayed())
    top = "return document.querySelector('#split-7').getBoundingClientRect().top"
    wait(chrome, lambda c: 0 <= c.execute_script(top) < 100)


def test_a_grid_of_the_size_of_the_papers_opens(open_page: Open, tmp_path: Path) -> None:
    path = tmp_path / "grid.html"
    path.write_text(to_html(reports.paper_grid(), reports.picture), encoding="utf-8")
    chrome = open_page(path)
    select = Select(find(chrome, ".controls select"))
    assert len(select.options) == 12
    select.select_by_index(11)
    assert len(charts(chrome)) == 3
    assert errors(chrome) == []


def test_columns_sort_by_number_not_by_text(open_page: Open, tmp_path: Path) -> None:
    cells = [reports.Cell(mean, None, 1) for mean in (9.5, -3.0, 1e-7, 100.25, float("nan"))]
    rows_ = tuple(reports.Row(f"row-{i}", (cell,)) for i, cell in enumerate(cells))
    table = Table("t", "t", "t", "row", (Column("x"),), rows_)
    path = tmp_path / "numbers.html"
    path.write_text(to_html(reports.Report("r", (), (reports.Section("s", "s", tables=(table,)),)), reports.picture))
    chrome = open_page(path)
    find(chrome, "thead th:nth-child(2) button").click()
    assert rows(chrome, "t") == ["row-1", "row-2", "row-0", "row-3", "row-4"]


def test_curves_of_one_epoch_are_points_and_a_panel_may_be_empty(open_page: Open, tmp_path: Path) -> None:
    one = np.array([1])
    curve = reports.Curve("baseline", one, np.array([50.0]), np.array([np.nan]), 1)
    unknown = reports.Curve("autodo-a", one, np.array([np.nan]), np.array([np.nan]), 1)
    panels = (
        reports.Panel("one", "group", "test accuracy", "%", (curve, unknown)),
        reports.Panel("none", "group", "test loss", "", ()),
    )
    path = tmp_path / "short.html"
    section = reports.Section("s", "s", panels=panels)
    path.write_text(to_html(reports.Report("r", (), (section,)), reports.picture))
    chrome = open_page(path)
    first, second = charts(chrome)
    assert shown(chrome, first) == ["baseline", "autodo-a"]
    assert shown(chrome, second) == []
    assert pixels(chrome, first, "#808080") > 15
    first.send_keys(Keys.END)
    assert "50.00" in find(chrome, "#one .readout").text
    second.send_keys(Keys.END)
    assert errors(chrome) == []
