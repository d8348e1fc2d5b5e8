"""The page as a whole in a real browser, opened from disk."""

import base64
import csv
import json
from pathlib import Path

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from reports.html import to_html
from tests.reports.html import reports
from tests.reports.html.browser import charts, charts_in_view, errors, find, pixels, wait
from tests.reports.html.conftest import Open, installed
from tests.reports.html.reports import METHODS, SCRIPT


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


@pytest.mark.parametrize("width", [320, 390, 768, 1400])
def test_nothing_is_wider_than_the_window(rich_page: Path, open_page: Open, width: int) -> None:
    chrome = open_page(rich_page, width)
    charts_in_view(chrome)
    assert chrome.execute_script("return innerWidth") == width
    # The width of the window without its scroll bar.
    sizes = "const page = document.scrollingElement; return [page.scrollWidth, page.clientWidth]"
    assert len(set(chrome.execute_script(sizes))) == 1
    chrome.execute_script("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert len(set(chrome.execute_script(sizes))) == 1


def test_the_card_of_a_picture_is_no_wider_than_it_needs(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page)
    widths = """
        return [...document.querySelectorAll(".picture .card")].map((card) =>
          [card.getBoundingClientRect().width, card.querySelector("img").getBoundingClientRect().width]);
    """
    for card, picture in chrome.execute_script(widths):
        assert picture <= 46 * 16
        assert card - picture == pytest.approx(26, abs=1), "padding and border"


def test_text_can_be_read_in_light_and_dark(rich_page: Path, open_page: Open) -> None:
    """WCAG 2.1 AA, 1.4.3: a contrast of 4.5 for text on its background."""
    from tests.reports.html.contrast import contrast_ratio

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


def test_the_list_of_suspects_is_saved_unchanged(rich_page: Path, open_page: Open, downloads: Path) -> None:
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


def test_the_focus_is_visible_and_the_contents_can_be_skipped(rich_page: Path, open_page: Open) -> None:
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


def test_links_lead_to_shared_notes(rich_page: Path, open_page: Open) -> None:
    chrome = open_page(rich_page, 390)
    find(chrome, "#errors .notes a").click()
    note = find(chrome, "#section-test-error-note-1")
    assert note.text == reports.errors().notes[0]
    top = "return arguments[0].getBoundingClientRect().top"
    wait(chrome, lambda c: 0 <= c.execute_script(top, note) < 900)


def test_a_grid_of_the_size_of_the_papers_opens(open_page: Open, tmp_path: Path) -> None:
    path = tmp_path / "grid.html"
    path.write_text(to_html(reports.paper_grid(), reports.picture), encoding="utf-8")
    chrome = open_page(path)
    select = Select(find(chrome, ".controls select"))
    assert len(select.options) == 12
    select.select_by_index(11)
    assert len(charts(chrome)) == 3
    assert errors(chrome) == []
