"""Curves are drawn, switched and read in a real browser."""

import json
from pathlib import Path

import numpy as np
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from reports.html import to_html
from tests.reports.html import reports
from tests.reports.html.browser import charts, charts_in_view, errors, find, pixels, shown
from tests.reports.html.conftest import Open
from tests.reports.html.reports import METHODS, SCRIPT


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


def test_a_chart_has_brighter_lines_in_the_dark(rich_page: Path, open_page: Open) -> None:
    for dark, key in ((False, "colour"), (True, "dark")):
        chrome = open_page(rich_page, dark=dark)
        chart = charts(chrome)[0]
        methods = json.loads(find(chrome, ".curves script").get_attribute("textContent") or "")["methods"]
        blue = methods[METHODS.index(SCRIPT)]
        assert blue["colour"] != blue["dark"]
        assert pixels(chrome, chart, blue[key]) > 50


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
