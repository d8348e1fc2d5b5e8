from collections.abc import Callable
from pathlib import Path

import pytest

from autodo.config.run import RunConfig
from orchestration.planning.plan import expected_rows
from reports.analysis.comparison import named
from reports.document import Cell, Table
from reports.figures.choices import choose
from reports.formats.cell_text import cell_text
from reports.readers.load import load_results
from reports.tables.errors import error_tables
from tests.reports.conftest import make

Add = Callable[..., Path]


def table(root: Path, expected: list[RunConfig] | None = None, metric: str = "error_best_val") -> Table:
    (only,) = error_tables(named(load_results(root).frame, expected_rows(expected or [])), metric)
    return only


def texts(table: Table) -> dict[str, list[str]]:
    return {
        row.name: [
            cell_text(cell, column, table.common_n) for cell, column in zip(row.cells, table.columns, strict=True)
        ]
        for row in table.rows
    }


def test_a_cell_is_the_mean_over_seeds_in_percent(root: Path, add: Add) -> None:
    for seed, error in enumerate((0.10, 0.20)):
        add(make(seed=seed), error_best_val=error, minority_error=2 * error, minority_classes=[1, 2])
    (row,) = table(root).rows
    (cell,) = row.cells
    assert row.name == "baseline"
    assert (cell.mean, cell.std, cell.n) == (pytest.approx(15.0), pytest.approx(50**0.5), 2)
    assert table(root).common_n == 2
    assert table(root, metric="minority_error").rows[0].cells[0].mean == pytest.approx(30.0)


def test_captions_say_of_which_epoch_and_head_the_errors_are(root: Path, add: Add) -> None:
    best, solved, last = make(), make("solved-head"), make("ldam-drw", overrides={"training.selection": "last"})
    state = "test error after the last epoch"
    names = {}
    for run in (best, solved, last):
        add(run, error_best_val=0.2, error_last=0.3)
        names[run.run_id] = table(root).caption.removesuffix(", mean ± std over seeds")
    assert names == {
        best.run_id: "test error at the epoch of lowest val error",
        solved.run_id: "test error at the epoch of lowest val error, or after the last epoch with a solved head "
        "(solved-head)",
        last.run_id: "test error at the epoch of lowest val error, or after the last epoch (ldam-drw), "
        "or after the last epoch with a solved head (solved-head)",
    }
    assert table(root, metric="error_last").caption.startswith(f"{state} with the trained head,")


def test_the_lowest_of_a_column_is_best_and_baselines_come_first(root: Path, add: Add) -> None:
    for method, errors in {"autodo-aws": (0.1, 0.3), "baseline": (0.2, 0.2)}.items():
        for distortion, error in zip(("10-0.1", "1-0.0"), errors, strict=True):
            add(make(method, distortion), error_best_val=error)
    result = table(root)
    assert [column.name for column in result.columns] == ["1-0.0", "10-0.1"]
    assert [(row.name, [cell.best for cell in row.cells]) for row in result.rows] == [
        ("baseline", [True, False]),
        ("autodo-aws", [False, True]),
    ]


@pytest.mark.parametrize(("error", "marked"), [(0.1, False), (0.25, True)])
def test_an_incomplete_cell_is_never_best_and_nothing_is_while_it_is_ahead(
    root: Path, add: Add, error: float, marked: bool
) -> None:
    expected = [make(method, seed=seed) for method in ("baseline", "autodo-aw", "autodo-aws") for seed in (0, 1)]
    for run, value in zip(expected, (0.2, 0.2, 0.3, 0.3, error), strict=False):
        add(run, error_best_val=value)
    shown = table(root, expected)
    assert {row.name: row.cells[0].best for row in shown.rows} == {
        "baseline": marked,
        "autodo-aw": False,
        "autodo-aws": False,
    }
    assert any("Nothing is marked in 1-0.0" in note for note in shown.notes) != marked


def test_nothing_is_best_where_all_are_equal(root: Path, add: Add) -> None:
    errors = {"baseline": (0.1, 0.2, 0.6), "autodo-aw": (0.6, 0.2, 0.1), "autodo-aws": (0.0,)}
    expected = [make(method, seed=seed) for method in errors for seed in range(3)]
    for method, of_method in errors.items():
        for seed, error in enumerate(of_method):
            add(make(method, seed=seed), error_best_val=error)
    assert not any(row.cells[0].best for row in table(root, expected).rows)


def test_columns_are_named_as_grids_spell_them(root: Path, add: Add) -> None:
    names = ("1-0.0", "10-0.00001", "33.3333333-0.1", "1000000-0.1")
    for name in names:
        add(make(distortion=name), error_best_val=0.1)
    assert tuple(column.name for column in table(root).columns) == names


def test_holes_show_the_expected_number_of_seeds(root: Path, add: Add) -> None:
    expected = [make(m, d, s) for m in ("baseline", "autodo-aws") for d in ("1-0.0", "10-0.1") for s in (0, 1)]
    add(expected[0], error_best_val=0.1)
    add(expected[2], error_best_val=0.2)
    add(expected[3], error_best_val=0.2)
    result = table(root, expected)
    assert texts(result) == {"baseline": ["10.00 (1/2)", "20.00 ± 0.00"], "autodo-aws": ["– (0/2)", "– (0/2)"]}


def test_without_expected_runs_a_hole_has_no_number(root: Path, add: Add) -> None:
    add(make("baseline", "1-0.0"), error_best_val=0.1)
    add(make("autodo-aws", "10-0.1"), error_best_val=0.1)
    result = table(root)
    assert texts(result) == {"baseline": ["10.00", "–"], "autodo-aws": ["–", "10.00"]}


def test_results_outside_the_grid_count_too(root: Path, add: Add) -> None:
    for seed in range(3):
        add(make(seed=seed), error_best_val=0.1)
    assert table(root, [make(seed=0)]).rows[0].cells[0] == Cell(10.0, 0.0, n=3, expected=3)


def test_splits_and_variants_are_rows_of_their_own(root: Path, add: Add) -> None:
    add(make("autodo-exact-ws"), error_best_val=0.1)
    add(make("autodo-exact-ws", split="union"), error_best_val=0.1)
    assert [row.name for row in table(root).rows] == ["autodo-exact-ws", "autodo-exact-ws (union)"]
    add(make("autodo-exact-ws", overrides={"outer.lr": 0.5}), error_best_val=0.1)
    add(make("baseline"), error_best_val=0.1)
    assert [row.name for row in table(root).rows] == [
        "baseline",
        "autodo-exact-ws (union), outer.lr=0.05",
        "autodo-exact-ws, outer.lr=0.05",
        "autodo-exact-ws, outer.lr=0.5",
    ]


def test_settings_of_a_method_are_not_part_of_the_recipe(root: Path, add: Add) -> None:
    methods = ("baseline", "randaugment", "ldam-drw", "finetune-head-on-val", "train+val", "autodo-aws")
    for method in methods:
        add(make(method), error_best_val=0.1)
    found = table(root)
    assert found.title == "digits (small-cnn, 40 epochs)"
    assert {row.name for row in found.rows} == set(methods)
    add(make("randaugment", overrides={"policy.draws": 1}), error_best_val=0.1)
    assert {row.name for row in table(root).rows} >= {"randaugment, policy.draws=1", "randaugment, policy.draws=3"}


def test_variants_are_named_by_all_settings_that_differ(root: Path, add: Add) -> None:
    for overrides in (
        {},
        {"points.learn": ["weight"], "method.loss": "cross-entropy"},
        {"outer.solver": "neumann", "outer.step": 0.1},
    ):
        add(make("autodo-exact-ws", overrides=overrides))
    assert [row.name for row in table(root).rows] == [
        f"autodo-exact-ws, {values}"
        for values in (
            "method.loss=cross-entropy, points.learn=[weight], outer.solver=conjugate-gradient, outer.step=null",
            "method.loss=symmetric-kl, points.learn=[weight, soft-label], outer.solver=conjugate-gradient, "
            "outer.step=null",
            "method.loss=symmetric-kl, points.learn=[weight, soft-label], outer.solver=neumann, outer.step=0.1",
        )
    ]


def test_recipes_are_separate_tables_with_different_titles(root: Path, add: Add) -> None:
    add(make(), error_best_val=0.1)
    add(make(overrides={"training.epochs": 5, "training.lr": 0.5}), error_best_val=0.5)
    add(make(overrides={"dataset.subsample": 100}), error_best_val=0.9)
    tables = error_tables(named(load_results(root).frame))
    assert {(t.title, round(t.rows[0].cells[0].mean or 0)) for t in tables} == {
        ("digits (small-cnn, 40 epochs, training.lr=0.05)", 10),
        ("digits (small-cnn, 5 epochs, training.lr=0.5)", 50),
        ("digits (small-cnn, 40 epochs, 100 images, training.lr=0.05)", 90),
    }


def test_titles_have_fingerprints_only_where_recipes_differ_in_nothing_else(root: Path, add: Add) -> None:
    plain = make()
    add(plain)
    for name, code in (
        ("torchvision:resnet18", None),
        ("module:Net", "a"),
        ("module:Other", "b"),
        ("module:Other", "c"),
    ):
        model = plain.model.model_copy(update={"name": name, "code": code})
        add(plain.model_copy(update={"model": model}))
    assert sorted(table.title for table in error_tables(named(load_results(root).frame))) == [
        "digits (module:Net, 40 epochs)",
        "digits (module:Other, 40 epochs, model.code=b)",
        "digits (module:Other, 40 epochs, model.code=c)",
        "digits (small-cnn, 40 epochs)",
        "digits (torchvision:resnet18, 40 epochs)",
    ]


def test_runs_of_test_as_val_are_never_the_best(root: Path, add: Add) -> None:
    for seed in range(2):
        add(make("baseline", seed=seed), error_best_val=0.3 + seed / 100)
        add(make("autodo-aws", seed=seed), error_best_val=0.2 + seed / 100)
        add(make("autodo-aws", seed=seed, split="test-as-val"), error_best_val=0.1 + seed / 100)
    shown = table(root)
    assert {row.name: row.cells[0].best for row in shown.rows} == {
        "baseline": False,
        "autodo-aws": True,
        "autodo-aws (test-as-val)": False,
    }
    assert not any(row.cells[0].tied for row in shown.rows)
    assert any("are not compared" in note for note in shown.notes)


def test_kinds_of_imbalance_are_never_pooled_and_are_named(root: Path, add: Add) -> None:
    def make_of(minority: str, seed: int, distortion: str = "10-0.1") -> RunConfig:
        return make(distortion=distortion, seed=seed, overrides={"distortion.minority": minority})

    for seed in (0, 1):
        add(make_of("class", seed), error_best_val=0.4)
        add(make_of("class", seed, "1-0.0"), error_best_val=0.1)
    one_kind = table(root)
    assert [column.name for column in one_kind.columns] == ["1-0.0", "10-0.1"]
    assert any("by distortion.minority = class (each minority class keeps 1/IR" in note for note in one_kind.notes)

    for seed in (0, 1):
        add(make_of("total", seed), error_best_val=0.2)
    both = table(root)
    assert [column.name for column in both.columns] == ["1-0.0", "10-0.1 (class)", "10-0.1 (total)"]
    assert [(cell.mean, cell.n) for cell in both.rows[0].cells] == [
        (pytest.approx(mean), 2) for mean in (10.0, 40.0, 20.0)
    ]
    frame = named(load_results(root).frame)
    assert [choice.runs["distortion"].unique().tolist() for choice in choose(frame)] == [["10-0.1 (total)"]]


def test_kinds_of_noise_and_long_tails_are_columns_of_their_own(root: Path, add: Add) -> None:
    errors = {
        "1-0.1": 0.1,
        "10-0.1": 0.2,
        "10-instance0.1": 0.3,
        "10-pair0.1": 0.4,
        "exp10-0.1": 0.5,
        "exp10-pair0.1": 0.6,
    }
    for distortion, error in errors.items():
        for seed in (0, 1):
            add(make(distortion=distortion, seed=seed), error_best_val=error)
    found = table(root)
    assert [column.name for column in found.columns] == list(errors)
    assert [(cell.mean, cell.n) for cell in found.rows[0].cells] == [
        (pytest.approx(100 * e), 2) for e in errors.values()
    ]
    assert not any("distortion.minority" in note for note in found.notes), "a long tail has no such setting"
    assert not load_results(root).warnings


def test_variants_of_older_defaults_are_named_by_their_settings(root: Path, add: Add) -> None:
    add(make("autodo-aws", protocol=1), error_best_val=0.2)
    add(make("autodo-aws"), error_best_val=0.1)
    assert {row.name for row in table(root).rows} == {
        "autodo-aws, outer.schedule=shared, outer.neumann_scale=step",
        "autodo-aws, outer.schedule=restart, outer.neumann_scale=sum",
    }
