"""What the commands print of results."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from autodo.config.recipes import build_run
from orchestration.cli.report import show_result
from orchestration.store.store import Store
from tests.runs import outcome


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
