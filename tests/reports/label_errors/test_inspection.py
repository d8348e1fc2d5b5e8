import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.errors import StoreError
from autodo.io.storage import Location, locate
from autodo.results import records
from reports.html import to_html
from reports.label_errors.inspection import inspect_run, write_inspection
from reports.label_errors.labels_csv import image_folder, path_of, write_labels
from tests.reports.conftest import make
from tests.reports.label_errors.points import learned, random_table
from tests.runs import result_row

NAMES = ["<script>alert(1)</script>", "=1+1", 'a,b\n"c"', "dog", "@SUM(A1)"]
Store = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Write a finished run by `store(points, run)`; returns its id."""

    def write(points: Any = None, run: RunConfig | None = None, **values: Any) -> str:
        run = run or make()
        row = result_row(run, class_names=NAMES, **values)
        records.write("results", records.table("results", [row]), tmp_path / "results" / f"{run.run_id}.parquet")
        points = random_table(**learned(200, 5)) if points is None else points
        points = points.set_column(0, points.schema.field(0), [[run.run_id] * len(points)])
        records.write("points", points, tmp_path / "points" / f"{run.run_id}.parquet")
        return run.run_id

    return write


def rows(file: Location) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_bytes().decode(), newline="")))


def no_figure(_: object) -> tuple[str, bytes]:
    raise AssertionError


def test_a_run_is_written_as_csv_and_page(tmp_path: Path, store: Store) -> None:
    pictures = [None] * 200
    pictures[3] = b"\x89PNG\r\n\x1a\nthree"
    table = random_table(**learned(200, 5), thumbnail=pictures)
    found = inspect_run(tmp_path, store(table), top=200)
    files = write_inspection(found, locate(tmp_path / "out"), lambda report: to_html(report, no_figure))
    assert [str(file) for file in files] == [f"{tmp_path}/out/labels.csv", f"{tmp_path}/out/gallery.html"]
    written = rows(files[0])
    points = table.to_pandas().sort_values("loss", ascending=False)
    assert [int(row["rank"]) for row in written] == list(range(1, 201))
    assert [int(row["index"]) for row in written] == points["index"].tolist()
    assert [float(row["loss"]) for row in written] == pytest.approx(points["loss"].tolist())
    assert [float(row["weight"]) for row in written] == pytest.approx(points["weight"].tolist())
    soft = [soft[label] for soft, label in zip(points["soft_label"], points["label"], strict=True)]
    assert [float(row["soft_label"]) for row in written] == pytest.approx(soft)
    assert [row["known_wrong"] for row in written] == [
        str(wrong).lower() for wrong in (points["label"] != points["clean_label"])
    ]
    (third,) = [suspect for suspect in found.gallery.suspects if suspect.image]
    assert (third.index, third.image) == (30, pictures[3])
    page = files[1].read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_class_names_are_no_formulas_and_paths_still_open(tmp_path: Path, store: Store) -> None:
    sources = [None, "=cmd|' /C calc'!A0.png", "-1.png", "@x/1.png", 'a/"b",c\n.png', "＋1.png"] + ["ok.png"] * 194
    found = inspect_run(tmp_path, store(random_table(source=sources)))
    write_labels(found.labels, locate(tmp_path) / "labels.csv")
    written = sorted(rows(locate(tmp_path) / "labels.csv"), key=lambda row: int(row["index"]))
    assert [row["path"] for row in written[:7]] == [
        *("", "./=cmd|' /C calc'!A0.png", "./-1.png", "./@x/1.png", 'a/"b",c\n.png', "./＋1.png", "ok.png")
    ]
    used = {row[column] for row in written for column in ("given", "proposed", "prediction")}
    assert used == {"<script>alert(1)</script>", "'=1+1", 'a,b\n"c"', "dog", "'@SUM(A1)"}
    for row in written:
        assert not any(value.startswith(tuple("=+-@\t\r＝＋－＠")) for value in row.values())


@pytest.mark.parametrize(
    ("dataset_path", "source", "path"),
    [
        (None, "cat/1.png", "cat/1.png"),
        ("/photos", "cat/1.png", "/photos/cat/1.png"),
        ("/photos/list.CSV", "cat/1.png", "/photos/cat/1.png"),
        ("list.csv", "=1.png", "./=1.png"),
        ("-photos", "1.png", "./-photos/1.png"),
        ("/photos/list.csv", "/archive/1.png", "/archive/1.png"),
        ("s3://bucket/photos", "cat/1.png", "s3://bucket/photos/cat/1.png"),
        ("s3://bucket/list.csv", "cat/1.png", "s3://bucket/cat/1.png"),
    ],
)
def test_paths_open_the_files(dataset_path: str | None, source: str, path: str) -> None:
    assert path_of(source, image_folder(dataset_path)) == path


def test_the_folder_is_that_of_the_runs_dataset(tmp_path: Path, store: Store) -> None:
    run = build_run("folder", "baseline", overrides={"dataset.path": "~/photos", "dataset.image_size": 8})
    found = inspect_run(tmp_path, store(random_table(source=["1.png"] * 200), run))
    assert {suspect.source for suspect in found.gallery.suspects} == {str(Path("~/photos/1.png").expanduser())}
    damaged = inspect_run(tmp_path, store(random_table(source=["1.png"] * 200), config="{"))
    assert {suspect.source for suspect in damaged.gallery.suspects} == {"1.png"}


def test_features_have_no_pictures_and_say_so(tmp_path: Path, store: Store) -> None:
    run = build_run("features", "baseline", overrides={"dataset.path": "/data/x.npy"})
    found = inspect_run(tmp_path, store(random_table(source=["1.png"] * 200), run))
    assert found.gallery.caption.endswith("; the points are features, of which there are no pictures")
    assert found.gallery.suspects[0].source == "1.png"
    page = to_html(found.report, no_figure)
    assert "of which there are no pictures" in page
    assert "no image kept" not in page


def test_given_pictures_are_preferred_to_thumbnails(tmp_path: Path, store: Store) -> None:
    run_id = store(random_table(thumbnail=[b"old"] * 200))
    found = inspect_run(tmp_path, run_id, top=2, pictures=lambda shown: {int(shown.index[0]): b"new"})
    assert [suspect.image for suspect in found.gallery.suspects] == [b"new", b"old"]


def test_a_missing_signal_is_named(tmp_path: Path, store: Store) -> None:
    run_id = store(random_table())
    found = inspect_run(tmp_path, run_id)
    assert "Left out: weight, soft-label, average (the method does not learn what it needs)." in found.notes
    with pytest.raises(
        StoreError, match=f"{run_id}: cannot be sorted by weight: the method does not learn what it needs"
    ):
        inspect_run(tmp_path, run_id, ranking="weight")


def test_unknown_truth_has_a_note(tmp_path: Path, store: Store) -> None:
    table = random_table()
    place = table.schema.get_field_index("clean_label")
    found = inspect_run(tmp_path, store(table.set_column(place, "clean_label", table["label"])))
    assert found.quality is None
    assert {suspect.wrong for suspect in found.gallery.suspects} == {None}
    assert "No label is known to be wrong, so it is not known how many of these are wrong." in found.notes


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def other_run(file: Path) -> None:
    table = locate(file).read_parquet()
    records.write("points", table.set_column(0, table.schema.field(0), [["x"] * len(table)]), file)


@pytest.mark.parametrize("damage", [truncate, empty, other_run])
def test_a_damaged_file_is_named(tmp_path: Path, store: Store, damage: Callable[[Path], None]) -> None:
    run_id = store()
    file = tmp_path / "points" / f"{run_id}.parquet"
    damage(file)
    with pytest.raises(StoreError) as caught:
        inspect_run(tmp_path, run_id)
    assert str(caught.value).startswith((f"{file}: damaged", f"{file}: cannot be used"))
    assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(StoreError, match=f"{file}: cannot be read: No such file or directory"):
        inspect_run(tmp_path, run_id)


def test_a_run_in_an_object_store_reads_as_in_a_folder(tmp_path: Path, store: Store, bucket: str) -> None:
    run_id = store()
    for kind in ("results", "points"):
        name = f"{run_id}.parquet"
        (locate(bucket) / kind / name).upload(tmp_path / kind / name)
    found = inspect_run(bucket, run_id)
    assert found.labels.index.tolist() == inspect_run(tmp_path, run_id).labels.index.tolist()
    write_labels(found.labels, locate(bucket) / "labels.csv")
    assert len(rows(locate(bucket) / "labels.csv")) == 200
