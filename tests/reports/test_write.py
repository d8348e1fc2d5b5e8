from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from autodo.errors import ConfigError, StoreError
from autodo.io.storage import Location
from reports.analysis.comparison import named
from reports.analysis.metrics import METRICS
from reports.formats.terminal import TerminalTable
from reports.readers.load import load_results
from reports.tables.errors import error_tables
from reports.write import check_metric, parse_formats, write_report
from tests.reports.conftest import make

Add = Callable[..., Path]


@pytest.fixture
def two_methods(add: Add) -> None:
    for method, error in {"baseline": 0.2, "autodo-aws": 0.1}.items():
        for seed in range(2):
            add(make(method, seed=seed), **dict.fromkeys(METRICS, error), **_OTHER)


_OTHER: dict[str, Any] = {"device": "cpu", "git_sha": "abc", "versions": [], "seconds": 60.0}


def test_every_format_is_written_and_the_page_comes_first(root: Path, two_methods: None) -> None:
    files = write_report(root)
    assert [file.name for file in files] == ["report.html", "report.md", "report.tex", "tables.csv"]
    assert all(file.exists() for file in files)
    markdown = (root / "report/report.md").read_text()
    assert "4 runs done: 1 dataset, 1 distortion, 2 methods and 2 seeds; 4 minutes of training." in markdown
    assert "chooses the epoch on the test set" in markdown
    for picture in (line.split("](")[1].split(")")[0] for line in markdown.splitlines() if line.startswith("![")):
        assert (root / "report" / picture).exists()
    rows = pd.read_csv(root / "report/tables.csv")
    errors = rows[rows["section"] == "errors"]
    assert dict(zip(errors["row"], errors["mean"], strict=True)) == {"baseline": 20.0, "autodo-aws": 10.0}
    assert set(errors["group"]) == {"digits (small-cnn, 40 epochs)"}
    assert errors["distortion"].isna().all()
    assert set(rows.loc[rows["section"] == "cost", "distortion"]) == {"1-0.0"}
    fragments = {file.stem for file in (root / "report/tables").iterdir()}
    assert set(rows["table"]) <= fragments


def test_only_requested_formats_are_written(root: Path, two_methods: None, tmp_path: Path) -> None:
    (file,) = write_report(root, tmp_path / "out", formats=("csv",), select="method=baseline")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"tables.csv"}
    assert set(pd.read_csv(file.local)["row"]) == {"baseline"}
    assert not (root / "report").exists()
    with pytest.raises(ConfigError, match="unknown method 'autodo'"):
        write_report(root, tmp_path / "other", select="method=autodo")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("text", "formats"),
    [("html", ("html",)), ("csv, md", ("csv", "md")), ("md,md,", ("md",))],
)
def test_formats_by_name(text: str, formats: tuple[str, ...]) -> None:
    assert parse_formats(text) == formats


@pytest.mark.parametrize(("text", "told"), [("pdf", "unknown format 'pdf'"), (" ,", "names no format")])
def test_unknown_formats_are_an_error(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_formats(text)


def test_unknown_metrics_are_an_error() -> None:
    check_metric("error_last")
    with pytest.raises(ConfigError, match="did you mean 'error_last'"):
        check_metric("eror_last")


def test_the_report_of_an_object_store_is_written_to_it_or_elsewhere(
    root: Path, two_methods: None, upload: Callable[[], Location], tmp_path: Path
) -> None:
    there = upload()
    page, markdown = write_report(there.uri, formats=("html", "md"))
    assert str(page) == f"{there}/report/report.html"
    (copy,) = write_report(there.uri, tmp_path / "elsewhere", formats=("md",))
    assert copy.read_text() == markdown.read_text()
    assert str(there) in page.read_text()


def test_files_left_out_are_named_in_the_report(root: Path, two_methods: None) -> None:
    (root / "results" / "notes.txt").touch()
    page, markdown = write_report(root, root / "elsewhere", formats=("html", "md"))
    assert "notes.txt: left out" in page.read_text()
    assert "**Warnings**" in markdown.read_text()


def test_a_report_that_cannot_be_written_is_an_error_of_one_line(root: Path, two_methods: None) -> None:
    (root / "report").touch()
    with pytest.raises(StoreError, match=r"cannot be written"):
        write_report(root, formats=("md",))


@pytest.mark.parametrize("runs", [0, 1])
def test_a_store_with_hardly_any_run_has_a_report(root: Path, add: Add, runs: int) -> None:
    for seed in range(runs):
        add(make(seed=seed), **_OTHER)
    page, *_ = write_report(root)
    text = page.read_text()
    assert ("No run is done yet." if runs == 0 else "1 run done") in text
    assert ("No two methods can be compared yet." in text) == (runs == 1)


def test_the_summary_counts_expected_and_missing_runs(root: Path, add: Add) -> None:
    runs = [make(method, seed=seed) for method in ("baseline", "autodo-aws") for seed in range(2)]
    for run in runs[:3]:
        add(run, **_OTHER)
    (root / "grids").mkdir()
    (root / "grids/mine.yaml").write_text("name: mine\n# </script><b>&\n")
    expected = [{**run.identity, "config": run.model_dump_json()} for run in runs]
    (page,) = write_report(root, expected=expected, formats=("html",))
    text = page.read_text()
    assert "1 of 4 expected runs has no result: autodo-aws at 1-0.0 (1 of 2)." in text
    assert "</script><b>" not in text
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in text


def test_a_long_name_leaves_room_for_numbers(root: Path, add: Add, capsys) -> None:
    for overrides in (
        {},
        {"outer.solver": "neumann", "outer.step": 0.1, "outer.lr": 0.5, "points.label_smoothing": 0.2},
    ):
        add(make("autodo-exact-ws", overrides=overrides), error_best_val=0.1234)
    (table,) = error_tables(named(load_results(root).frame))
    Console(width=60).print(TerminalTable(table))
    assert capsys.readouterr().out.count(" 12.34 ") == 2
