"""`autodo predict`: what it prints and writes for images of all kinds of places, and for wrong input."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from autodo.config.recipes import build_run
from autodo.results.classifier import Classifier
from orchestration.cli.predict import predict_images
from orchestration.execution.execute import execute
from orchestration.execution.options import ExecutionOptions
from orchestration.store.store import Store
from tests.orchestration.cli.conftest import FOLDER_SET

Autodo = Callable[..., Any]


@pytest.fixture
def run_id(photos: Path, autodo: Autodo) -> str:
    """A run in the store S that has kept its classifier, in the working directory."""
    run = build_run("folder", "baseline", overrides=FOLDER_SET)
    for _ in execute(run, Store("S").create(), ExecutionOptions(keep=("models",))):
        pass
    (photos / "cat" / "cut.png").write_bytes((photos / "cat" / "00.png").read_bytes()[:30])
    (photos / "dog" / "text.jpg").write_text("text")
    return run.run_id


def test_images_of_files_folders_globs_and_csv_are_predicted(run_id: str, autodo: Autodo, photos: Path) -> None:
    model = f"S/runs/{run_id}/model.pt"
    classifier = Classifier.load(model)
    paths = sorted(str(path.relative_to(photos.parent)) for path in photos.rglob("[0-9]*"))
    probabilities = classifier.predict_proba([photos.parent / path for path in paths])
    Path("list.csv").write_text("path\n" + "\n".join(paths[12:]) + "\nphotos/missing.png\n")

    answer = autodo("predict", model, "photos/cat", "photos/dog/*", "list.csv", "--csv", "made/out.csv", "--top", "5")
    assert answer.code == 0
    assert "24 images: " in answer.out
    assert "written: made/out.csv" in answer.out
    cut, *others = answer.err.splitlines()
    assert cut.startswith("warning: left out: photos/cat/cut.png (")
    assert others == [
        "warning: left out: photos/dog/text.jpg (not an image)",
        "warning: left out: photos/missing.png (No such file or directory)",
        "warning: 3 images of 27 left out",
    ]
    with Path("made/out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "class", "probability", "class_2", "probability_2"]
    assert [row["path"] for row in rows] == paths
    for row, values in zip(rows, probabilities, strict=True):
        best = values.argmax()
        assert (row["class"], row["class_2"]) == (classifier.class_names[best], classifier.class_names[1 - best])
        assert float(row["probability"]) == pytest.approx(values.max(), abs=1e-5)
        assert float(row["probability_2"]) == pytest.approx(values.min(), abs=1e-5)

    answer = autodo("predict", "S", run_id[-8:], paths[0], paths[20], "--batch-size", "1")
    assert (answer.code, answer.err) == (0, "")
    expected = [f"{row['path']}  {row['class']} {float(row['probability']):.1%}" for row in (rows[0], rows[20])]
    assert answer.out.splitlines() == expected


def test_rows_of_features_are_predicted(autodo: Autodo) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save("points.npy", rows)
    np.save("points.label.npy", np.where(rows[:, 0] > 0, "right", "left"))
    run = build_run("features", "baseline", overrides={"dataset.path": "points.npy", "training.epochs": 3})
    for _ in execute(run, Store("S").create(), ExecutionOptions(keep=("models",))):
        pass
    np.save("new.npy", rows[:5])  # without labels
    pq.write_table(pa.table({"features": rows[5:8].tolist()}), "new.parquet")

    answer = autodo("predict", "S", run.run_id, "new.npy", "new.parquet", "--csv", "out.csv", "--batch-size", "3")
    assert (answer.code, answer.err) == (0, "")
    assert "8 rows: " in answer.out
    with Path("out.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["path"] for row in written] == [f"new.npy:{i}" for i in range(5)] + [
        f"new.parquet:{i}" for i in range(3)
    ]
    classifier = Classifier.load(f"S/runs/{run.run_id}/model.pt")
    assert [row["class"] for row in written] == classifier.predict(rows[:8]).tolist()

    np.save("other.npy", rows[:, :2])
    np.save("nan.npy", np.full((2, 3), np.nan))
    for file, problem in {
        "other.npy": "other.npy: 2 features in each row; the classifier takes 3",
        "nan.npy": "nan.npy: row 0 (one of 2 such rows): a feature is NaN",
        "out.csv": "out.csv: neither a .npy nor a .parquet file; give files of features",
    }.items():
        answer = autodo("predict", "S", run.run_id, "new.npy", file, "--csv", "again.csv")
        assert (answer.code, answer.err[: 7 + len(problem)]) == (2, f"error: {problem}")
    assert not Path("again.csv").exists()


def test_wrong_input_is_one_line_and_writes_nothing(run_id: str, autodo: Autodo, photos: Path) -> None:
    model = f"S/runs/{run_id}/model.pt"
    Store("S").paths.model("other").write_text("path\n")
    Store("S").paths.table("results", "other").write_text("not needed")
    Store("S").paths.table("results", "third").write_text("not needed")
    Path("list.csv").write_text("path\nphotos/cat/00.png\n")
    wrong = {
        ("nowhere", "photos"): "nowhere: no such file or folder; give a saved classifier, or a store and a run of it",
        ("photos", "photos"): "photos: is not a store: it holds none of grids/, runs/, results/",
        ("S", "no-such-run", "photos"): "'no-such-run': no run of S has this id",
        ("S", "third", "photos"): "third: has not kept its classifier; `autodo train` keeps it",
        ("S", "other", "photos"): "S/runs/other/model.pt: not a saved classifier: torch cannot read it",
        ("S", run_id): "no images are given",
        (model, "nowhere"): "nowhere: no such file or folder",
        (model, "photos/dog/text.jpg", "--csv", "out.csv"): "none of the 1 image can be read",
        (model, "list.csv", "--csv", "list.csv"): "--csv list.csv: is one of the files to read",
        (model, "list.csv", "--csv", model): f"--csv {model}: is one of the files to read",
        (model, "list.csv", "--csv", "list.csv/a"): "--csv list.csv/a: cannot be written",
        (model, "list.csv", "--device", "tpu"): "--device 'tpu': is not one of auto",
    }
    before = sorted(Path().rglob("*"))
    for arguments, problem in wrong.items():
        answer = autodo("predict", *arguments)
        (*_, line) = answer.err.splitlines()
        assert (answer.code, answer.out, line[: 7 + len(problem)]) == (2, "", f"error: {problem}"), arguments
    assert sorted(Path().rglob("*")) == before
    assert Path("list.csv").read_text() == "path\nphotos/cat/00.png\n"


def test_the_progress_bar_stays_out_of_a_pipe(
    run_id: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # stderr is a terminal
    settings: dict[str, Any] = {"csv_file": None, "top": 1, "batch_size": 8, "device": "cpu"}
    predict_images(Console(force_terminal=False), "S", [run_id, "photos"], **settings)
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 24
    assert "predicting" in said.err
    predict_images(Console(), "S", [run_id, "photos"], **settings)
    assert "predicting" not in capsys.readouterr().err, "on a terminal the lines show the progress"


def test_names_of_files_cannot_write_on_the_terminal(run_id: str, autodo: Autodo) -> None:
    Image.new("L", (8, 8)).save("a\x1b[31m.png")
    answer = autodo("predict", "S", run_id, "a\x1b[31m.png")
    assert answer.out.startswith("a\\x1b[31m.png  ")


def test_a_classifier_in_an_object_store(run_id: str, autodo: Autodo, bucket: str) -> None:
    store = Store(f"{bucket}/store").create()
    Store("S").paths.model(run_id).fetch(copy := Path("model.pt").absolute())
    store.paths.model(run_id).upload(copy)
    store.paths.table("results", run_id).write_text("not needed")
    here = autodo("predict", "model.pt", "photos/cat/01.png")
    for model in ((f"{bucket}/store/runs/{run_id}/model.pt",), (f"{bucket}/store", run_id)):
        assert autodo("predict", *model, "photos/cat/01.png") == here
    answer = autodo("predict", f"{bucket}/nowhere/model.pt", "photos/cat/01.png")
    assert (answer.code, answer.err) == (2, f"error: {bucket}/nowhere/model.pt: no such file\n")
