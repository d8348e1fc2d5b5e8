from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from autodo.errors import StoreError
from autodo.storage import Location
from reports.load import load_results
from reports.page import write_report
from reports.tables import error_tables
from reports.terminal import table_terminal
from tests.reports.conftest import make

Add = Callable[..., Path]
ERRORS = ("error_best_val", "error_last", "error_best_test", "minority_error")


@pytest.fixture
def two_methods(add: Add) -> None:
    for method, error in {"baseline": 0.2, "autodo-aws": 0.1}.items():
        for seed in range(2):
            add(make(method, seed=seed), **dict.fromkeys(ERRORS, error), device="cpu", git_sha="abc", versions=[])


def test_the_report_has_every_error_and_warns_of_the_optimistic_one(root: Path, two_methods: None) -> None:
    (path,) = write_report(root)
    assert str(path) == str(root / "report" / "report.md")
    text = path.read_text()
    assert text.count("### digits") == len(ERRORS)
    assert "chooses the epoch on the test set" in text
    assert "side by side" not in text


def test_the_report_of_a_store_of_objects_lies_in_it_or_elsewhere(
    root: Path, two_methods: None, upload: Callable[[], Location], tmp_path: Path
) -> None:
    there = upload()
    (path,) = write_report(there.uri)
    assert str(path) == f"{there}/report/report.md"
    (copy,) = write_report(there.uri, tmp_path / "elsewhere")
    assert copy.read_text() == path.read_text()
    assert "# Results" in path.read_text()


def test_files_left_out_are_named_in_the_report(root: Path, two_methods: None) -> None:
    (root / "results" / "notes.txt").touch()
    (path,) = write_report(root, root / "elsewhere")
    assert "**Warnings**" in path.read_text()
    assert "notes.txt: left out" in path.read_text()


def test_a_report_that_cannot_be_written_is_one_line(root: Path, two_methods: None) -> None:
    (root / "report").touch()
    with pytest.raises(StoreError, match=r"report\.md: cannot be written"):
        write_report(root)


def test_a_long_name_does_not_cost_the_numbers_their_place(root: Path, add: Add, capsys) -> None:
    for overrides in (
        {},
        {"outer.solver": "neumann", "outer.step": 0.1, "outer.lr": 0.5, "points.label_smoothing": 0.2},
    ):
        add(make("autodo-exact-ws", overrides=overrides), error_best_val=0.1234)
    (table,) = error_tables(load_results(root).frame)
    Console(width=60).print(table_terminal(table))
    assert capsys.readouterr().out.count(" 12.34 ") == 2
