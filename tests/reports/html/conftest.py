"""A headless browser that opens pages from disk."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from reports.html import to_html
from tests.reports.html.reports import picture, rich

Open = Callable[..., Chrome]


def installed() -> tuple[str, str]:
    """Paths of Debian's browser and its driver; skips without them, unless AUTODO_REQUIRE_CHROMIUM is set."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        if os.environ.get("AUTODO_REQUIRE_CHROMIUM"):
            pytest.fail("chromium or chromedriver is missing: apt-get install chromium chromium-driver")
        pytest.skip("needs chromium and chromedriver")
    return browser, driver


@pytest.fixture(scope="session")
def rich_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(to_html(rich(), picture), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[Chrome]:
    browser, driver = installed()
    options = ChromeOptions()
    options.binary_location = browser
    profile = tmp_path_factory.mktemp("profile")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(flag)
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument("--window-size=1500,1100")  # mouse events outside the window are lost
    options.add_argument(f"--user-data-dir={profile}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With both paths, selenium downloads nothing.
    chrome = Chrome(options, Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def open_page(chrome: Chrome) -> Iterator[Open]:
    """Open a file in a window of a width, dark or light, with or without scripts."""

    def opened(path: Path, width: int = 1400, *, dark: bool = False, scripts: bool = True) -> Chrome:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}  # clicks miss scrolling elements
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [scheme, still]})
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        for kind in ("browser", "performance"):
            chrome.get_log(kind)  # clears the log
        chrome.get(path.as_uri())
        return chrome

    yield opened
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
