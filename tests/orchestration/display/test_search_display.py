import io

import pytest
from rich.console import Console

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from orchestration.display.live import INTERVAL_SECONDS
from orchestration.display.search_display import SearchDisplay
from orchestration.display.text import search_label


@pytest.fixture
def searches():
    distortion = DistortionConfig.parse("10-0.1")
    runs = [
        build_run("digits", method, distortion=distortion, seed=3) for method in ("dada-searched", "faster-autoaugment")
    ]
    return {run.search_id: run for run in runs}


def test_a_search_is_named_for_people(searches):
    assert [search_label(run) for run in searches.values()] == [
        "dada on digits 10-0.1 seed 3",
        "faster-autoaugment on digits 10-0.1 seed 3",
    ]


def test_lines_where_there_is_no_terminal(searches):
    now = 0.0
    out = io.StringIO()
    dada, faster = searches
    with SearchDisplay(searches, Console(file=out, width=200), clock=lambda: now) as display:
        display.update(dada, "at work", "epoch 1")
        display.refresh()
        assert out.getvalue() == "", "nothing ended, and it is early"
        now = INTERVAL_SECONDS
        display.refresh()
        display.refresh()
        assert out.getvalue() == "searching: dada on digits 10-0.1 seed 3: epoch 1\n"
        display.update(dada, "found", "in the end")
        display.update(dada, "found", "in the end")
        display.update(faster, "in another launch", "")
        display.update(faster, "failed", "too few images")
    assert out.getvalue().splitlines()[1:] == [
        "search found: dada on digits 10-0.1 seed 3: in the end",
        "search in another launch: faster-autoaugment on digits 10-0.1 seed 3",
        "search failed: faster-autoaugment on digits 10-0.1 seed 3: too few images",
    ]


def test_what_a_terminal_shows(searches):
    out = io.StringIO()
    console = Console(file=out, width=100, height=20, force_terminal=True)
    dada, faster = searches
    with SearchDisplay(searches, console, clock=lambda: 0.0) as display:
        display.update(dada, "at work", "epoch [1] of 3")
        display.update(faster, "found", "")
        shown = io.StringIO()
        Console(file=shown, width=100).print(display.render())
    lines = [line.split() for line in shown.getvalue().splitlines()]
    assert lines[0] == ["1", "of", "2", "searches", "done", "0", "s", "so", "far"]
    assert lines[1] == ["dada", "on", "digits", "10-0.1", "seed", "3", "epoch", "[1]", "of", "3"]
    assert len(lines) == 2
