from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from autodo.errors import StoreError
from autodo.io.storage import Location
from orchestration.testing.synthetic_store import write_store
from reports.analysis.comparison import named
from reports.readers import run_files
from reports.readers.load import load_epochs, load_results
from reports.tables.errors import error_tables
from tests.reports.conftest import make

Add = Callable[..., Path]


def test_every_result_is_a_row(root: Path, add: Add) -> None:
    runs = [make(seed=seed) for seed in range(3)]
    for run in runs:
        add(run, error_best_val=0.1 * (run.seed + 1))
    results = load_results(root)
    assert results.warnings == ()
    assert dict(zip(results.frame["seed"], results.frame["error_best_val"], strict=True)) == pytest.approx(
        {0: 0.1, 1: 0.2, 2: 0.3}
    )


def test_selecting_a_run_opens_no_other_file(root: Path, add: Add) -> None:
    runs = [make(seed=seed) for seed in range(3)]
    for run in runs:
        truncate(add(run)) if run.seed else add(run, error_best_val=0.1)
    (root / "results" / "notes.txt").write_text("hello")
    results = load_results(root, [runs[0].run_id, "not there"])
    assert results.frame["error_best_val"].tolist() == [0.1]
    assert results.warnings == ()


def test_an_empty_store_has_no_rows(root: Path) -> None:
    assert load_results(root).frame.empty


def test_a_store_without_results_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="results: cannot be read: No such file or directory"):
        load_results(tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_columns(path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(path)


def other_types(path: Path) -> None:
    pd.read_parquet(path).assign(error_best_val="low").to_parquet(path)


def other_run(path: Path) -> None:
    pd.read_parquet(path).assign(run_id="x").to_parquet(path)


def no_rows(path: Path) -> None:
    pd.read_parquet(path).iloc[:0].to_parquet(path)


@pytest.mark.parametrize("damage", [truncate, empty, other_columns, other_types, other_run, no_rows])
def test_a_damaged_file_is_named_and_left_out(root: Path, add: Add, damage: Callable[[Path], None]) -> None:
    add(make(seed=0), error_best_val=0.1)
    bad = add(make(seed=1), error_best_val=0.2)
    damage(bad)
    results = load_results(root)
    assert results.frame["seed"].tolist() == [0]
    (warning,) = results.warnings
    assert warning.startswith(f"{bad}: left out: ")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((name, value) for name in ("error_best_val", "error_last") for value in (None, float("nan"), float("inf"))),
        *(("error_best_test", value) for value in (float("nan"), float("inf"))),
    ],
)
def test_a_result_without_an_error_rate_is_named_and_left_out(
    root: Path, add: Add, column: str, value: float | None
) -> None:
    add(make(seed=0), error_best_val=0.1)
    bad = add(make(seed=1), **{column: value})
    results = load_results(root)
    assert results.frame["seed"].tolist() == [0]
    assert results.warnings == (f"{bad}: left out: its {column} is not a number; delete it and launch the grid again",)


def test_a_run_whose_test_images_were_evaluated_in_some_epochs_has_no_lowest_test_error(root: Path, add: Add) -> None:
    add(make(), error_best_test=None)
    results = load_results(root)
    assert results.warnings == ()
    (table,) = error_tables(named(results.frame), "error_best_test")
    assert {cell.mean for row in table.rows for cell in row.cells} == {None}


def test_a_test_set_may_lack_the_minority_classes(root: Path, add: Add) -> None:
    add(make(), minority_error=None)
    results = load_results(root)
    assert (len(results.frame), results.warnings) == (1, ())


def test_foreign_files_are_named_but_hidden_ones_are_not(root: Path, add: Add) -> None:
    path = add(make(), error_best_val=0.1)
    (root / "results" / "notes.txt").write_text("hello")
    (root / "results" / f".{path.name}.123").write_bytes(b"PAR1")
    results = load_results(root)
    assert len(results.frame) == 1
    assert results.warnings == (f"{root / 'results' / 'notes.txt'}: left out: not a .parquet file",)


def test_a_copy_of_a_result_counts_once(root: Path, add: Add) -> None:
    path = add(make(), error_best_val=0.1)
    path.with_stem(path.stem + " (1)").write_bytes(path.read_bytes())
    assert len(load_results(root).frame) == 1


def test_a_store_of_objects_reads_as_the_same_store_of_files(
    root: Path, add: Add, upload: Callable[[], Location]
) -> None:
    for seed in range(3):
        add(make(seed=seed), error_best_val=0.1 * (seed + 1))
    there = upload()
    here = load_results(root)
    assert load_results(there.uri).frame.equals(here.frame)
    truncate(add(make(seed=3)))
    (root / "results" / "notes.txt").write_text("hello")
    upload()
    found = load_results(there.uri)
    assert found.frame.equals(here.frame)
    assert [warning.partition(": left out: ")[0] for warning in found.warnings] == [
        f"{there}/results/notes.txt",
        f"{there}/results/{make(seed=3).run_id}.parquet",
    ]


@pytest.mark.parametrize("whole", [0, 2**20], ids=["a large file is read in parts", "a small one as a whole"])
def test_epochs_come_from_a_store_of_objects(
    root: Path, upload: Callable[[], Location], whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make(seed=seed, overrides={"training.epochs": 6}) for seed in range(3)]
    write_store(root, runs, ("epochs", "results"))
    there = upload()
    monkeypatch.setattr(run_files, "_WHOLE", whole)
    columns = ["run_id", "epoch", "test_error"]
    ids = [run.run_id for run in runs]
    far, warnings = load_epochs(there.uri, ids, columns)
    assert warnings == ()
    assert far.equals(load_epochs(root, ids, columns)[0])
    read = pd.concat(pd.read_parquet(root / "epochs" / f"{run_id}.parquet") for run_id in sorted(ids))
    assert far["test_error"].tolist() == read["test_error"].tolist()


def test_a_missing_object_store_is_an_error_of_one_line(bucket: str) -> None:
    with pytest.raises(StoreError, match=f"{bucket}/none/results: cannot be read: No such file or directory"):
        load_results(f"{bucket}/none")
