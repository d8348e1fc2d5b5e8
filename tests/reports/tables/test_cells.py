"""Cells of tables, computed by hand from small frames of runs."""

import math
from collections.abc import Iterator

import pandas as pd
import pytest

from reports.analysis.comparison import TEST_AS_VAL
from reports.document import Cell, Column, Reference
from reports.tables import cells

LOWER, HIGHER = Column("a", better="lower"), Column("a", better="higher")


def runs(*rows: tuple[str, str, str, int, float]) -> pd.DataFrame:
    """Name, group, distortion, seed and error of each."""
    return pd.DataFrame(list(rows), columns=["name", "group", "distortion", "seed", "error"]).assign(variant="")


def marks(
    column: Column, *, complete: bool = True, not_compared: tuple[str, ...] = (), **errors: list[float]
) -> dict[str, tuple[bool, bool]]:
    """Whether each row is best, and whether it is tied, in a table of one column of errors by seed."""
    samples = {(name, column.name): dict(enumerate(values)) for name, values in errors.items()}
    made = cells.rows(list(errors), [column], samples, known=complete, not_compared=not_compared)
    return {row.name: (row.cells[0].best, row.cells[0].tied) for row in made}


def test_values_are_by_seed_and_several_of_a_seed_are_averaged() -> None:
    frame = runs(
        ("b", "g", "x", 3, 1.0), ("a", "g", "x", 0, 2.0), ("a", "g", "x", 0, 4.0), ("a", "g", "y", 1, math.nan)
    )
    found = cells.grid(frame, "distortion", "error")
    assert list(found) == [("b", "x"), ("a", "x"), ("a", "y")], "in the order of the runs"
    assert found.pop(("a", "y")).keys() == {1}
    assert found == {("b", "x"): {3: 1.0}, ("a", "x"): {0: 3.0}}


def test_names_begin_with_baselines_and_distortions_are_in_order() -> None:
    rows = [(name, "g", distortion, 0, 0.0) for distortion in ("1-0.0", "10-0.1") for name in ("z", "baseline b", "a")]
    frame = runs(*rows, ("baseline a", "g", "1-0.0", 0, 0.0))
    assert cells.names(frame) == ["baseline a", "baseline b", "a", "z"]
    assert cells.distortions(frame) == ["1-0.0", "10-0.1"]


def test_variants_of_a_method_are_in_the_order_of_the_runs() -> None:
    variants = ["", "E2", "E10", "E2"]
    frame = runs(*((name, "g", "1", 0, 0.0) for name in ("baseline", "m E2", "m E10", "k E2"))).assign(variant=variants)
    assert cells.names(frame) == ["baseline", "k E2", "m E2", "m E10"]


def test_groups_are_sorted_and_distortions_within_them_are_not() -> None:
    frame = runs(("a", "h", "2", 0, 0.0), ("a", "g", "9", 1, 0.0), ("a", "g", "1", 2, 0.0), ("b", "g", "9", 3, 0.0))

    def seeds(parts: Iterator[tuple[str, pd.DataFrame]]) -> list[tuple[str, list[int]]]:
        return [(name, part["seed"].tolist()) for name, part in parts]

    assert seeds(cells.by_group(frame)) == [("g", [1, 2, 3]), ("h", [0])]
    by_cell = [(group, place, part["seed"].tolist()) for group, place, part in cells.by_cell(frame)]
    assert by_cell == [("g", "9", [1, 3]), ("g", "1", [2]), ("h", "2", [0])]


def test_missing_runs_are_known_if_any_run_was_expected() -> None:
    assert cells.has_expected(pd.DataFrame({"is_expected": [False, True]}))
    assert not cells.has_expected(pd.DataFrame({"is_expected": [False, False]}))


def test_a_cell_counts_present_and_expected_seeds() -> None:
    sample = {0: 1.0, 1: 4.0, 7: math.nan}
    assert cells.cell(sample, known=True) == Cell(2.5, pytest.approx(math.sqrt(4.5)), 2, expected=3)
    paper = Reference(3.0)
    assert cells.cell(sample, known=False, paper=paper) == Cell(2.5, pytest.approx(math.sqrt(4.5)), 2, paper=paper)
    assert cells.cell({}, known=True) == Cell(None, None, 0, expected=0)


def test_the_best_is_at_the_better_end_and_rows_not_significantly_different_are_tied() -> None:
    far, near, other = [9.0, 9.1, 9.2], [1.3, 0.9, 1.2], [1.0, 1.1, 1.2]
    assert marks(LOWER, far=far, near=near, best=other) == {
        "far": (False, False),
        "near": (False, True),
        "best": (True, False),
    }
    assert marks(HIGHER, far=far, near=near) == {"far": (True, False), "near": (False, False)}
    assert marks(Column("a"), far=far, near=near) == {"far": (False, False), "near": (False, False)}
    same = marks(LOWER, one=[1.0, 2.0], other=[2.0, 1.0], worse=[9.0, 9.5])
    assert same == {"one": (True, False), "other": (True, False), "worse": (False, False)}


def test_marks_can_be_switched_off_for_a_table_or_for_rows() -> None:
    samples = {("a", "a"): {0: 1.0}, ("b", "a"): {0: 2.0}}
    (one, other) = cells.rows(["a", "b"], [LOWER], samples, known=True, marked=False)
    assert not any(row.cells[0].best for row in (one, other))
    assert marks(LOWER, not_compared=("a",), a=[1.0], b=[2.0], c=[3.0]) == {
        "a": (False, False),
        "b": (True, False),
        "c": (False, False),
    }


def test_rows_have_a_cell_for_each_column() -> None:
    samples = {("a", "x"): {0: 1.0}, ("b", "y"): {0: 2.0, 1: 3.0}}
    papers = {("b", "y"): Reference(5.0, 1.0)}
    (one, other) = cells.rows(["a", "b"], [Column("x"), Column("y")], samples, known=True, papers=papers)
    assert (one.name, other.name) == ("a", "b")
    assert [cell.mean for cell in one.cells] == [1.0, None]
    assert [(cell.mean, cell.n, cell.expected, cell.paper) for cell in other.cells] == [
        (None, 0, 0, None),
        (2.5, 2, 2, papers["b", "y"]),
    ]


@pytest.mark.parametrize(("column", "best", "ahead", "behind"), [(LOWER, "b", 1.9, 2.1), (HIGHER, "a", 1.1, 0.9)])
def test_nothing_is_best_while_an_incomplete_row_is_ahead_on_common_seeds(
    column: Column, best: str, ahead: float, behind: float
) -> None:
    for value in (ahead, behind):
        samples = {("a", "a"): {0: 9.0, 1: 1.0}, ("b", "a"): {0: 7.0, 1: 2.0}, ("short", "a"): {0: math.nan, 1: value}}
        made = cells.rows(["a", "b", "short"], [column], samples, known=True)
        found = [row.name for row in made if row.cells[0].best]
        note = "Nothing is marked in a: a method with missing seeds is ahead on the seeds that it has."
        assert found == ([] if value == ahead else [best])
        assert (note in cells.mark_notes(made, [column])) == (value == ahead)


def test_the_best_are_complete_and_equal_up_to_rounding() -> None:
    given = {
        "a": Cell(1.0, n=2, expected=2),
        "b": Cell(1.0 + 1e-12, n=2, expected=2),
        "c": Cell(3.0, n=2, expected=2),
        "short": Cell(0.0, n=1, expected=2),
        "none": Cell(None, n=0, expected=2),
    }
    assert cells.best_of(given, "lower") == ["a", "b"]
    assert cells.best_of(given, "higher") == ["c"]
    assert cells.best_of({"a": given["a"], "b": given["b"]}, "lower") == []
    assert cells.best_of({}, "lower") == []
    assert cells.best_of({"a": given["a"], "c": Cell(1.0 + 1e-6, n=2)}, "lower") == ["a"]


def test_notes_explain_marks_and_too_few_seeds() -> None:
    def notes(**errors: list[float]) -> list[str]:
        samples = {(name, "a"): dict(enumerate(values)) for name, values in errors.items()}
        return cells.mark_notes(cells.rows(list(errors), [LOWER], samples, known=True), [LOWER])

    assert notes(a=[1.0], b=[2.0]) == [cells.UNTESTED]
    assert notes(a=[1.0, 1.2, 1.1], b=[1.1, 1.1, 1.3]) == [cells.TIED]
    assert notes(a=[1.0, 1.2, 1.1], b=[9.1, 9.2, 9.0]) == []
    assert cells.mark_notes((), [LOWER]) == []


def test_rows_of_test_as_val_are_not_compared() -> None:
    frame = pd.DataFrame({"name": ["a", "b", "a"], "split": ["paper", TEST_AS_VAL, "union"]})
    assert cells.rows_of_test_as_val(frame) == (frozenset({"b"}), (cells.READ_TEST,))
    assert cells.rows_of_test_as_val(frame[frame["name"] == "a"]) == (frozenset(), ())
