"""Minority and worst class of a cell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.analysis.classes import majority_first, minority, minority_notes, worst_class
from reports.analysis.comparison import named
from reports.figures.accuracy import accuracy_figures
from reports.figures.choices import choose
from reports.figures.palette import styles
from reports.readers.load import load_results
from reports.tables.classes import class_tables
from reports.tables.errors import error_tables
from tests.reports.conftest import make

Add = Callable[..., Path]
NAMES = ["cat", "dog", "emu", "fox"]


def of(minority_classes: list[int], **values: Any) -> dict[str, Any]:
    return {
        "minority_classes": minority_classes,
        "class_names": NAMES,
        "per_class_accuracy": [0.5, 0.9, 0.6, 0.8],
        "minority_error": 0.45,
        "majority_error": 0.15,
        "error_best_val": 0.3,
    } | values


def frame(root: Path) -> pd.DataFrame:
    return named(load_results(root).frame)


def test_a_minority_that_is_not_the_upper_half(root: Path, add: Add) -> None:
    for seed in range(2):
        add(make(seed=seed), **of([0, 2]))
        add(make("autodo-aws", seed=seed), **of([0, 2], minority_error=0.25))
    runs = frame(root)
    assert minority(runs) == (0, 2)
    assert majority_first(runs, 4) == ([1, 3, 0, 2], 2)
    (table,) = class_tables(runs)
    assert table.notes[0].startswith("Minority: cat, emu: the classes that the synthetic imbalance reduced or, ")
    cells = {row.name: dict(zip([c.name for c in table.columns], row.cells, strict=True)) for row in table.rows}
    assert cells["baseline"]["minority"].mean == pytest.approx(55)
    assert (cells["baseline"]["minority"].best, cells["autodo-aws"]["minority"].best) == (False, True)
    (figure,) = accuracy_figures(choose(runs), styles(runs["name"]))
    assert "Minority: cat, emu." in figure.caption
    (ax,) = figure.draw().axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["dog", "fox", "cat", "emu"]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [1.5]
    (table,) = error_tables(runs, "minority_error")
    assert any(note.startswith("Minority: cat, emu: ") for note in table.notes)


def test_without_a_minority_its_columns_are_left_out(root: Path, add: Add) -> None:
    add(make(), **of([], minority_error=None, majority_error=None))
    runs = frame(root)
    (table,) = class_tables(runs)
    assert [column.name for column in table.columns] == ["all classes", "worst class", "std over classes"]
    assert any(note.startswith("There is no minority: ") for note in table.notes)
    assert error_tables(runs, "minority_error") == []


def test_the_minority_of_a_long_tail_has_a_rule_of_its_own(root: Path, add: Add) -> None:
    for distortion in ("2-0.0", "exp2-0.0"):
        add(make(distortion=distortion), **of([2, 3]))
    runs = frame(root)
    step, tail = (minority_notes(runs[runs["imbalance"] == kind])[0] for kind in ("step", "exponential"))
    assert "the classes that the synthetic imbalance reduced or" in step
    assert tail.endswith(": the classes with fewer train images than the mean.")


def test_runs_with_another_minority_are_left_out_with_a_note(root: Path, add: Add) -> None:
    for seed, classes in enumerate(([2, 3], [2, 3], [3])):
        add(make(distortion="2-0.0", seed=seed), **of(classes))
    runs = frame(root)
    assert runs["minority_error"].isna().tolist() == [False, False, True]
    assert minority_notes(runs)[-1] == (
        "Minority and majority of 1 run are left out: other classes are the minority there."
    )


def test_a_minority_of_unknown_classes_is_unknown(root: Path, add: Add) -> None:
    path = add(make(), **of([0, 4]))
    results = load_results(root)
    assert results.frame[["minority_classes", "minority_error", "majority_error"]].isna().all(axis=None)
    (warning,) = results.warnings
    assert warning.startswith(f"{path}: its minority is not of its classes")


def test_the_worst_class_has_the_lowest_mean_over_the_seeds_that_have_it() -> None:
    accuracies = np.array([[10.0, 50.0, np.nan], [90.0, 60.0, 52.0], [80.0, 40.0, np.nan]])
    assert worst_class(accuracies) == 1
    assert worst_class(np.full((2, 3), np.nan)) is None
    assert worst_class(np.empty((0, 3))) is None
