"""`autodo report`, and the results that other commands print."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from autodo.config.recipes import build_run
from orchestration.cli.report import show_result
from orchestration.store.store import Store
from tests.orchestration.cli.conftest import SMALL, fill
from tests.runs import outcome


def test_report_shows_missing_runs_and_its_path(autodo, grid: str, tmp_path: Path) -> None:
    fill(Store("S"), grid, n=2)
    (tmp_path / "S" / "results" / "cut.parquet").write_bytes(b"PAR1")
    answer = autodo("report", "S")
    assert answer.code == 0
    assert "10.00 (1/2)" in answer.out
    assert "warning: S/results/cut.parquet: left out: damaged" in answer.out
    assert "report: S/report/report.md" in answer.out
    assert (tmp_path / "S/report/report.md").exists()


def test_a_grid_that_cannot_be_read_is_named_in_the_report(autodo, grid: str, tmp_path: Path) -> None:
    launched = autodo("train", "--dataset", "digits", "--method", "baseline", "--store", "S", *SMALL)
    assert launched.code == 0
    (tmp_path / "S/grids").mkdir(exist_ok=True)
    (tmp_path / "S/grids/mine.yaml").write_text("xx: [")
    answer = autodo("report", "S", "--format", "html", "--out", "R")
    assert answer.code == 0
    assert "its missing runs are unknown" in answer.out.replace("\n", " ")
    assert "its missing runs are unknown" in (tmp_path / "R/report.html").read_text()
    assert {path.name for path in (tmp_path / "R").iterdir()} >= {"report.html"}
    assert not (tmp_path / "R/report.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "pdf"), "unknown format 'pdf'"),
        (("--metric", "eror_last"), "unknown metric 'eror_last'; did you mean 'error_last'?"),
        (("--select", "method=autodo"), "--select 'method=autodo': unknown method 'autodo'"),
        (("--out", "file"), "file: cannot be written"),
        (("--paper-despite", "model.nam"), "unknown setting 'model.nam'; did you mean 'model.name'"),
    ],
)
def test_report_checks_its_options_before_it_writes(
    autodo, tmp_path: Path, arguments: tuple[str, str], message: str
) -> None:
    (tmp_path / "file").touch()
    autodo("train", "--dataset", "digits", "--method", "baseline", "--store", "S", *SMALL)
    answer = autodo("report", "S", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert not (tmp_path / "S/report/report.html").exists()


def printed(root: Path, names: list[str], minority: list[int]) -> str:
    run, store = build_run("digits", "baseline"), Store(root).create()
    errors = dict.fromkeys(("error_best_val", "error_last", "error_best_test", "minority_error"), 0.1)
    row = {"minority_classes": minority, "class_names": names, "per_class_accuracy": [0.9] * len(names)}
    store.save(outcome(run, **errors, **row, seconds=60.0, versions=[]), run.run_id)
    console = Console(file=StringIO(), width=200)
    show_result(console, run, store)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["[/b]", "[bold]", "[link=x]"])
def test_class_names_are_no_markup(tmp_path: Path, name: str) -> None:
    assert f"of the minority: {name}, cat " in printed(tmp_path, [name, "dog", "cat"], [0, 2])


def test_of_many_minority_classes_some_are_named(tmp_path: Path) -> None:
    text = printed(tmp_path, [f"c{i}" for i in range(100)], list(range(50)))
    assert "c10, c11 and 38 more " in text
