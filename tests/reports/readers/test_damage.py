"""Damaged stores: each file is named once, and none of its values gets into a mean."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autodo.results import records
from autodo.text import printable
from orchestration.testing.synthetic_store import write_store
from reports.analysis.comparison import named
from reports.readers.column_checks import with_control_characters
from reports.readers.load import Problem, load_epochs, load_results, reduce_runs, warning_lines
from tests.reports.conftest import make

Add = Callable[..., Path]


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outside")


def rewrite(path: Path, **columns: Any) -> None:
    """Replace values of a one-row file, or dtypes (given as arrays); None drops a column."""
    table = pq.read_table(path)
    for name, value in columns.items():
        place = table.schema.get_field_index(name)
        if value is None:
            table = table.remove_column(place)
        elif isinstance(value, pa.Array):
            table = table.set_column(place, name, value)
        else:
            field = table.schema.field(name)
            table = table.set_column(place, field, pa.array([value] * len(table), field.type))
    pq.write_table(table, path)


# --- results ---


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"error_best_val": 1.5}, "its error_best_val is 1.5, more than 1"),
        ({"error_last": -0.25}, "its error_last is -0.25, less than 0"),
        ({"error_best_test": pa.array(["0.2"])}, "damaged (error_best_test: it is string, not double)"),
        ({"error_last": None}, "not a file of results: it has no column 'error_last'"),
        ({"imbalance_ratio": 0.5}, "its imbalance_ratio is 0.5, less than 1"),
        ({"noise_ratio": float("nan")}, "its noise_ratio is not a number"),
        ({"seed": -1}, "its seed is -1, less than 0"),
        ({"seed": pa.array([0.5])}, "damaged (seed: Float value 0.500000 was truncated converting to int64)"),
        ({"method": pa.array([None], pa.string())}, "its method is unknown"),
        ({"dataset": ""}, "its dataset is unknown"),
        ({"config": "{"}, "its config is not that of a run"),
        ({"config": "[1, 2]"}, "its config is not that of a run"),
        ({"config": "null"}, "its config is not that of a run"),
        ({"config": "{}"}, "its config is not that of a run"),
        ({"config": "[" * 100_000}, "its config is not that of a run"),
        ({"config": '{"model": {"name": "x"}, "training": 3}'}, "its config is not that of a run"),
    ],
)
def test_an_impossible_result_is_left_out(root: Path, add: Add, values: dict[str, Any], reason: str) -> None:
    add(make(seed=0), error_best_val=0.1)
    bad = add(make(seed=1))
    rewrite(bad, **values)
    results = load_results(root)
    assert results.frame["seed"].tolist() == [0]
    (warning,) = results.warnings
    assert warning.removesuffix("; delete it and launch the grid again") == f"{bad}: left out: {reason}"
    assert named(results.frame)["error_best_val"].tolist() == [0.1]


@pytest.mark.parametrize(
    ("values", "column", "reason"),
    [
        ({"minority_error": 1.5}, "minority_error", "its minority_error is 1.5, more than 1: unknown"),
        ({"majority_error": float("nan")}, "majority_error", "its majority_error is not a number: unknown"),
        ({"seconds": float("inf")}, "seconds", "its seconds is not a number: unknown"),
        ({"best_val_epoch": 10**9}, "best_val_epoch", "its best_val_epoch is 1e+09, more than 1e+06: unknown"),
        ({"train_points": -1}, "train_points", "its train_points is -1, less than 0: unknown"),
        ({"per_class_accuracy": [0.5, 2.0]}, "per_class_accuracy", "its per_class_accuracy holds a number that is not"),
        ({"per_class_accuracy": [0.5]}, "per_class_accuracy", "it has 1 accuracies of 2 classes: unknown"),
        ({"device": pa.array([7])}, "device", "its device is not string and counts as unknown"),
        ({"finished_at": -(10**17)}, "finished_at", "its finished_at is in the year -1199: unknown"),
        ({"model": None}, "model", "it has no model, as files of another version: unknown"),
    ],
)
def test_an_impossible_optional_value_is_unknown(
    root: Path, add: Add, values: dict[str, Any], column: str, reason: str
) -> None:
    good = {"minority_error": 0.5, "majority_error": 0.5, "seconds": 1.0, "per_class_accuracy": [0.5, None]}
    good |= {"class_names": ["a", "b"], "device": "cpu", "train_points": 5, "best_val_epoch": 3}
    add(make(seed=0), error_best_val=0.1, **good)
    bad = add(make(seed=1), error_best_val=0.2, **good)
    rewrite(bad, **values)
    results = load_results(root)
    assert results.frame["error_best_val"].tolist() == [0.1, 0.2]
    assert results.frame[column].isna().tolist() == [False, True]
    assert results.frame.columns.tolist() == records.SCHEMAS["results"].names
    (warning,) = results.warnings
    assert warning.startswith(f"{bad}: {reason}")


def test_a_file_with_two_faults_has_one_warning(root: Path, add: Add) -> None:
    bad = add(make())
    rewrite(bad, minority_error=2.0, seconds=-1.0, model=None)
    (warning,) = load_results(root).warnings
    assert warning == (
        f"{bad}: it has no model, as files of another version: unknown; its minority_error is 2, more than 1: unknown; "
        "its seconds is -1, less than 0: unknown"
    )


def test_two_rows_in_a_file_are_no_result(root: Path, add: Add) -> None:
    bad = add(make())
    table = pq.read_table(bad)
    pq.write_table(pa.concat_tables([table, table]), bad)
    results = load_results(root)
    assert results.frame.empty
    assert results.warnings == (f"{bad}: left out: it holds 2 rows, not 1; delete it and launch the grid again",)


def test_two_files_that_claim_one_run_count_once(root: Path, add: Add) -> None:
    first = add(make(seed=0), error_best_val=0.1)
    renamed = first.with_stem("x" + first.stem)
    renamed.write_bytes(first.read_bytes())
    rewrite(renamed, run_id=renamed.stem, error_best_val=0.9)  # the copy contains its new name
    results = load_results(root)
    assert results.frame["error_best_val"].tolist() == [0.1]
    assert results.warnings == (
        f"{renamed}: left out: it claims to be the same run as {first.stem}; delete it and launch the grid again",
    )


def test_control_characters_are_escaped(root: Path, add: Add) -> None:
    path = add(make(), class_names=["a\nb", "\x1b[31mred", "\u202eright to left", "naïve 猫"])
    rewrite(path, device="gpu\x00")
    results = load_results(root)
    assert results.frame["class_names"][0].tolist() == ["a\\nb", "\\x1b[31mred", "\\u202eright to left", "naïve 猫"]
    assert results.frame["device"][0] == "gpu\\x00"
    (warning,) = results.warnings
    assert warning == (
        f"{path}: its class_names holds control characters, which are escaped; "
        "its device holds control characters, which are escaped"
    )


def test_text_that_is_not_utf8_is_damage(root: Path, add: Add) -> None:
    bad = add(make(), device="abcdefgh")
    content = bad.read_bytes()
    assert b"abcdefgh" in content
    bad.write_bytes(content.replace(b"abcdefgh", b"abc\xff\xfefgh"))
    (warning,) = load_results(root).warnings
    assert warning.startswith(f"{bad}: left out: damaged (")


def test_a_file_without_optional_columns_is_used(root: Path, add: Add) -> None:
    optional = set(records.SCHEMAS["results"].names) - {"run_id", "error_best_val", "error_last", "error_best_test"}
    optional -= set(make().identity) | {"config"}
    paths = [add(make(seed=seed), error_best_val=0.1) for seed in range(5)]
    for path in paths:
        rewrite(path, **dict.fromkeys(optional))
    results = load_results(root)
    assert results.frame["error_best_val"].tolist() == [0.1] * 5
    assert results.frame[sorted(optional)].isna().all(axis=None)
    assert len(results.warnings) == 5
    assert all(name in results.warnings[0] for name in optional)


def test_of_many_damaged_files_some_are_named_and_the_rest_counted(root: Path, add: Add) -> None:
    good = add(make(seed=0))
    for number in range(30):
        (root / "results" / f"x{number:02}.parquet").write_bytes(b"")
        good.with_stem(f"y{number:02}").write_bytes(good.read_bytes())
    results = load_results(root)
    assert len(results.frame) == 1
    assert len(results.warnings) == 40
    assert sum("x" in warning.partition(":")[0].rpartition("/")[2] for warning in results.warnings) == 20
    assert sum(warning.endswith(" (and 10 more like this)") for warning in results.warnings) == 2


def test_reasons_that_differ_in_numbers_are_one_group() -> None:
    problems = [Problem(f"f{i}", f"its error is {i / 10}, more than 1e-{i}") for i in range(4)]
    assert warning_lines([*problems, Problem("g\n", "other")], named=2) == (
        "f0: its error is 0.0, more than 1e-0",
        "f1: its error is 0.1, more than 1e-1 (and 2 more like this)",
        "g\\n: other",
    )


def test_printable_keeps_ordinary_text() -> None:
    assert printable("naïve 猫 \\n") == "naïve 猫 \\n"


def test_marks_that_change_the_text_direction_are_escaped() -> None:
    # UAX #9: the characters with the property Bidi_Control.
    marks = ["\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))]
    texts = [f"a{mark}b" for mark in marks]
    assert [printable(text) for text in texts] == [f"a\\u{ord(mark):04x}b" for mark in marks]
    column = pa.chunked_array([[*texts, None, "עברית", "e\u0301 \u200d 猫"]])
    assert with_control_characters(column).tolist() == [True] * len(texts) + [False] * 3
    lists = pa.chunked_array([[["a", text] for text in texts] + [["a", "ب"]]])
    assert with_control_characters(lists).tolist() == [True] * len(texts) + [False]


def test_a_folder_in_the_place_of_a_result_is_named(root: Path, add: Add) -> None:
    add(make())
    (root / "results" / "x.parquet").mkdir()
    results = load_results(root)
    assert len(results.frame) == 1
    (warning,) = results.warnings
    assert warning.startswith(f"{root / 'results' / 'x.parquet'}: left out: damaged (")


def test_a_link_out_of_the_store_is_not_followed(root: Path, add: Add, outside: Path) -> None:
    path = add(make())
    path.rename(outside / path.name)
    path.symlink_to(outside / path.name)
    assert load_results(root).frame.empty


# --- tables with many rows ---


def epochs_of(root: Path, run_id: str, /, **columns: Any) -> Path:
    """An epochs file of four epochs with these columns; None drops one."""
    values = {name: [None] * 4 for name in records.SCHEMAS["epochs"].names}
    values |= {"run_id": [run_id] * 4, "epoch": [0, 1, 2, 3], "test_error": [0.4, 0.3, 0.2, 0.1]}
    values |= {"val_error": [0.5] * 4, "test_loss": [1.0] * 4, "per_class_accuracy": [[0.5, None]] * 4}
    schema = records.SCHEMAS["epochs"]
    arrays = {
        name: value if isinstance(value, pa.Array) else pa.array(value, schema.field(name).type)
        for name, value in (values | columns).items()
        if value is not None
    }
    path = root / "epochs" / f"{run_id}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(arrays), path)
    return path


COLUMNS = ["run_id", "epoch", "test_error", "test_loss", "per_class_accuracy"]


def test_epochs_come_by_run_and_epoch(root: Path) -> None:
    epochs_of(root, "b", epoch=[3, 1, 0, 2], test_error=[0.3, 0.1, 0.0, 0.2])
    epochs_of(root, "a")
    frame, warnings = load_epochs(root, ["b", "a", "not there"], COLUMNS)
    assert warnings == ()
    assert frame.columns.tolist() == COLUMNS
    assert frame["run_id"].tolist() == ["a"] * 4 + ["b"] * 4
    assert frame["epoch"].tolist() == [0, 1, 2, 3] * 2
    assert frame["test_error"].tolist() == [0.4, 0.3, 0.2, 0.1, 0.0, 0.1, 0.2, 0.3]
    assert frame["per_class_accuracy"][0].tolist() == pytest.approx([0.5, float("nan")], nan_ok=True)


def test_no_run_has_no_epochs(root: Path) -> None:
    frame, warnings = load_epochs(root, [], COLUMNS)
    assert (len(frame), frame.columns.tolist(), warnings) == (0, COLUMNS, ())
    assert frame["epoch"].dtype == "int64"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"epoch": [0, 1, 1, 2]}, "its epoch 1 occurs twice"),
        ({"epoch": [-1, 0, 1, 2]}, "its epoch is -1, less than 0"),
        ({"epoch": [0, 1, 2, 10**12]}, "its epoch is 1e+12, more than 1e+06"),
        ({"epoch": [0, 1, 2, 9]}, "its 4 epochs are not 0 to 3"),
        ({"epoch": [0, 1, 2, None]}, "its epoch is not a number"),
        ({"epoch": None}, "not a file of epochs: it has no column 'epoch'"),
        ({"test_error": [0.1, float("nan"), 0.1, 0.1]}, "its test_error is not a number"),
        ({"test_error": [0.1, 0.1, 1.1, 0.1]}, "its test_error is 1.1, more than 1"),
        ({"test_error": pa.array(["a"] * 4)}, "damaged (test_error: it is string, not double)"),
        ({"test_error": None}, "not a file of epochs: it has no column 'test_error'"),
        ({"run_id": ["other"] * 4}, "it belongs to another run than its name says"),
        ({"run_id": ["bad", "bad", "bad", "other"]}, "it belongs to another run than its name says"),
        ({"run_id": ["bad", "bad", "bad", None]}, "it belongs to another run than its name says"),
    ],
)
def test_impossible_epochs_are_left_out(root: Path, columns: dict[str, Any], reason: str) -> None:
    epochs_of(root, "good")
    bad = epochs_of(root, "bad", **columns)
    frame, warnings = load_epochs(root, ["bad", "good"], COLUMNS)
    assert frame["run_id"].tolist() == ["good"] * 4
    (warning,) = warnings
    assert warning.removesuffix("; delete it and launch the grid again") == f"{bad}: left out: {reason}"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello, I am a text file", None])
@pytest.mark.parametrize("kind", ["epochs", "predictions", "points"])
def test_a_file_that_is_no_parquet_is_left_out(root: Path, kind: records.Kind, content: bytes | None) -> None:
    whole = epochs_of(root, "bad").read_bytes()
    bad = root / kind / "bad.parquet"
    bad.parent.mkdir(exist_ok=True)
    bad.write_bytes(whole[:-100] if content is None else content)
    found, (warning,) = reduce_runs(root, kind, ["bad"], ["run_id"], len)
    assert found == {}
    assert warning.startswith(f"{bad}: left out: damaged (")
    assert str(root) not in warning.removeprefix(str(bad))


def test_an_infinite_loss_is_unknown_and_the_rest_is_used(root: Path) -> None:
    bad = epochs_of(root, "bad", test_loss=[float("inf"), 1.0, float("nan"), 2.0])
    frame, warnings = load_epochs(root, ["bad"], COLUMNS)
    assert frame["test_loss"].isna().tolist() == [True, False, True, False]
    assert frame["test_error"].tolist() == [0.4, 0.3, 0.2, 0.1]
    assert warnings == (f"{bad}: its test_loss is not a number: unknown in 2 of 4 rows",)


def test_a_missing_optional_column_is_unknown(root: Path) -> None:
    bad = epochs_of(root, "bad", test_loss=None)
    epochs_of(root, "good")
    frame, warnings = load_epochs(root, ["good", "bad"], COLUMNS)
    assert frame["test_loss"].isna().tolist() == [True] * 4 + [False] * 4
    assert warnings == (f"{bad}: it has no test_loss, as files of another version: unknown",)


def test_an_unknown_column_is_an_error(root: Path) -> None:
    with pytest.raises(KeyError):
        load_epochs(root, [], ["tset_error"])


def points_of(root: Path, **columns: Any) -> Path:
    values: dict[str, Any] = {name: [None] * 3 for name in records.SCHEMAS["points"].names}
    values |= {"run_id": ["r"] * 3, "index": [0, 5, 9], "label": [0, 1, 1], "clean_label": [0, 1, 0]}
    values |= {"prediction": [0, 1, 0], "weight": [1.0, 2.0, 0.5], "soft_label": [[0.9, 0.1]] * 3}
    schema = records.SCHEMAS["points"]
    table = pa.table({name: pa.array(v, schema.field(name).type) for name, v in (values | columns).items()})
    path = root / "points" / "r.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({}, None),
        ({"index": [0, 5, 5]}, "left out: its index 5 occurs twice; delete it and launch the grid again"),
        ({"label": [0, -1, 1]}, "left out: its label is -1, less than 0; delete it and launch the grid again"),
        (
            {"clean_label": [0, None, 1]},
            "left out: its clean_label is not a number; delete it and launch the grid again",
        ),
        ({"weight": [1.0, -2.0, 0.5]}, "its weight is -2, less than 0: unknown in 1 of 3 rows"),
        ({"weight": [None, None, None]}, None),
        ({"soft_label": [[0.9, 0.1], [3.0, 0.1], None]}, "its soft_label holds a number that is not from 0 to 1.0001"),
        ({"soft_label": [[0.9, 0.1], [1.0], None]}, "its soft_label is not of one length and counts as unknown"),
    ],
)
def test_impossible_points(root: Path, columns: dict[str, Any], reason: str | None) -> None:
    path = points_of(root, **columns)
    wanted = ["label", "clean_label", "weight", "soft_label"]
    found, warnings = reduce_runs(root, "points", ["r"], wanted, lambda table: table.to_pandas())
    if reason is None:
        assert warnings == ()
    else:
        assert len(warnings) == 1
        assert warnings[0].startswith(f"{path}: {reason}")
    assert ("r" in found) == (reason is None or not reason.startswith("left out"))
    if "r" in found:
        assert isinstance(found["r"], pd.DataFrame)
        assert found["r"].columns.tolist() == wanted
        assert found["r"]["label"].tolist() == [0, 1, 1]


def test_an_empty_table_is_left_out(root: Path) -> None:
    path = points_of(root)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    found, warnings = reduce_runs(root, "points", ["r"], ["label"], len)
    assert found == {}
    assert warnings == (f"{path}: left out: it holds 0 rows; delete it and launch the grid again",)


def test_a_folder_that_cannot_be_listed_is_one_warning(root: Path, outside: Path) -> None:
    (root / "points").symlink_to(outside)
    found, (warning,) = reduce_runs(root, "points", ["r"], ["label"], len)
    assert found == {}
    assert "is a symbolic link that leads out of the store" in warning


@pytest.mark.parametrize("seed", range(40))
def test_damage_causes_only_warnings(root: Path, seed: int) -> None:
    """Whether bytes are changed, cut off or cut out, a file is read as before or left out."""
    generator = np.random.default_rng(seed)
    run = make(overrides={"training.epochs": 6})
    write_store(root, [run], ("epochs", "results"))
    whole = load_results(root).frame["error_best_val"][0]
    columns = ["run_id", *records.EPOCH_SCALARS, "per_class_accuracy"]
    curve = load_epochs(root, [run.run_id], columns)[0]["test_error"].tolist()
    for kind in ("results", "epochs"):
        path = root / kind / f"{run.run_id}.parquet"
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
        start, end = np.sort(generator.integers(len(content), size=2))
        if seed % 4 == 0:
            content = content[:end]
        elif seed % 4 == 1:
            content = np.delete(content, slice(start, end))
        else:
            content[generator.integers(len(content), size=1 + seed % 7)] ^= generator.integers(1, 256, dtype=np.uint8)
        path.write_bytes(content.tobytes())
    results = load_results(root)
    assert results.frame["error_best_val"].tolist() in ([whole], [])
    assert len(results.frame) or len(results.warnings) == 1
    assert len(named(results.frame)) == len(results.frame)
    frame, warnings = load_epochs(root, [run.run_id], columns)
    assert frame["test_error"].tolist() in (curve, [])
    assert len(frame) or len(warnings) == 1


def test_a_flipped_bit_is_damage(root: Path, add: Add) -> None:
    """Even if the file can be read and the changed value is possible."""
    bad = add(make(), error_best_val=0.123456789)
    content = bad.read_bytes()
    value = struct.pack("<d", 0.123456789)
    assert value in content
    changed = bytearray(value)
    changed[0] ^= 1
    bad.write_bytes(content.replace(value, bytes(changed), 1))
    assert pq.read_table(bad)["error_best_val"][0].as_py() == struct.unpack("<d", changed)[0]
    results = load_results(root)
    assert results.frame.empty
    (warning,) = results.warnings
    assert "CRC" in warning


def test_a_reformatted_configuration_is_accepted(root: Path, add: Add) -> None:
    """With other white space, and keys that a later version may add."""
    path = add(make())
    config = json.loads(pq.read_table(path)["config"][0].as_py())
    rewrite(path, config=json.dumps(config | {"later": {"a": [1]}}, indent=2))
    results = load_results(root)
    assert (len(results.frame), results.warnings) == (1, ())
