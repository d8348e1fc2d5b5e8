"""Helpers for tests of the page in a browser."""

from collections.abc import Callable
from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait


def find(chrome: Chrome, selector: str) -> WebElement:
    return chrome.find_element(By.CSS_SELECTOR, selector)


def errors(chrome: Chrome) -> list[Any]:
    return chrome.get_log("browser")


def wait(chrome: Chrome, condition: Callable[[Chrome], Any]) -> Any:
    return WebDriverWait(chrome, 20).until(condition)


def charts(chrome: Chrome) -> list[WebElement]:
    """Charts of the open group, once all are drawn."""
    find(chrome, ".panels")
    chrome.execute_script("document.querySelector('.panels').scrollIntoView({behavior: 'instant'})")
    drawn = "return [...document.querySelectorAll('.chart')].every((c) => c.uplot && c.uplot.status === 1)"
    wait(chrome, lambda c: c.execute_script(drawn))
    return chrome.find_elements(By.CSS_SELECTOR, ".chart")


def charts_in_view(chrome: Chrome) -> list[WebElement]:
    chrome.execute_script("document.querySelector('.panel').scrollIntoView({behavior: 'instant'})")
    return wait(chrome, lambda c: c.find_elements(By.CSS_SELECTOR, ".chart canvas"))


def shown(chrome: Chrome, chart: WebElement) -> list[str]:
    """Labels of the curves that a chart shows; the band of a curve is shown only with its line."""
    series = chrome.execute_script("return arguments[0].uplot.series.map((s) => [s.label, s.show])", chart)[1:]
    for i in range(0, len(series), 3):
        assert series[i][1] == series[i + 1][1] == series[i + 2][1]
    return [label for label, show in series[::3] if show]


def pixels(chrome: Chrome, chart: WebElement, colour: str) -> int:
    """Number of pixels of a chart with a colour."""
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
