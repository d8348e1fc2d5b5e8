"""`autodo inspect` in this process, on runs that are small and real."""

import base64
import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from autodo import data
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from orchestration.cli.inspect import SIDE
from orchestration.execution.execute import execute
from orchestration.store.run_state import Cause
from orchestration.store.store import Store
from tests.orchestration.cli.conftest import Answer
from tests.orchestration.conftest import SMALL

Autodo = Callable[..., Answer]
WEB_PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")


def noisy(method: str = "baseline", **options: object) -> RunConfig:
    return build_run("digits", method, distortion=DistortionConfig(noise_ratio=0.4), overrides=SMALL, **options)


def train(run: RunConfig) -> str:
    for _ in execute(run, Store("S").create()):
        pass
    return run.run_id


def pictures(page: Path) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(code))) for code in WEB_PNG.findall(page.read_text())]


def labels(folder: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path(folder, "labels.csv").read_bytes().decode(), newline="")))


def test_the_labels_of_a_run_are_shown_and_written(autodo: Autodo, tmp_path: Path) -> None:
    run_id = train(noisy("autodo-exact-ws"))
    answer = autodo("inspect", "S", run_id, "--top", "7")
    assert answer.code == 0
    folder = f"S/report/inspect/{run_id}"
    assert f"written: {folder}/labels.csv" in answer.out
    assert f"written: {folder}/gallery.html" in answer.out
    points = pandas.read_parquet("S/points")
    wrong = points["label"] != points["clean_label"]
    assert f"{wrong.sum()} of {len(points)} labels are known to be wrong" in answer.out
    for ranking in ("loss", "soft-label", "average", "confident-learning"):
        assert ranking in answer.out
    written = labels(folder)
    assert [int(row["index"]) for row in written] == (
        points.sort_values("loss", ascending=False, kind="stable")["index"].tolist()
    )
    # Pictures are those of the dataset: digits are 8x8, and only a right index shows the image.
    shown = pictures(Path(folder, "gallery.html"))
    train_set = data.load(noisy().dataset).train
    originals = {int(index): image[0] for index, image in zip(train_set.index, train_set.images.read(), strict=True)}
    assert len(shown) == 7
    for picture, row in zip(shown, written, strict=False):
        assert np.asarray(picture).tolist() == originals[int(row["index"])].tolist()


def test_another_ranking_and_another_folder(autodo: Autodo) -> None:
    run_id = train(noisy("autodo-exact-ws"))
    answer = autodo("inspect", "S", "--ranking", "soft-label", "--out", "mine")
    assert answer.code == 0
    assert "written: mine/labels.csv" in answer.out
    doubt = [1 - float(row["soft_label"]) for row in labels("mine")]
    assert doubt == sorted(doubt, reverse=True)
    assert run_id in answer.out


def test_a_run_is_known_by_its_beginning_or_its_hash(autodo: Autodo) -> None:
    first, second = (train(noisy(seed=seed)) for seed in range(2))
    for name in (first, first[:-3], first.rpartition("_")[2]):
        assert f"S/report/inspect/{first}/labels.csv" in autodo("inspect", "S", name).out
    listed = autodo("inspect", "S")
    assert listed.code == 0
    assert "2 runs are done" in listed.out
    assert first in listed.out
    assert second in listed.out
    epochs = pandas.read_parquet(f"S/epochs/{first}.parquet")
    assert f"{100 * epochs['val_error'].min():.2f}%" in listed.out
    for name, message in {
        "digits_ir1": f"digits_ir1: 2 runs of S begin so: {first}, {second}",
        first.replace("baseline", "baselime"): f"no run of S has this id; the nearest: {first}, {second}",
        "../../etc": "no run of S has this id; `autodo inspect S` lists those that are done",
        "": "'': no run of S has this id",
    }.items():
        answer = autodo("inspect", "S", name)
        assert answer.code == 2
        assert message in answer.err
        assert len(answer.err.splitlines()) == 1


def test_a_run_that_is_not_done_says_how_far_it_is(autodo: Autodo) -> None:
    run, other = noisy(), noisy(seed=1)
    store = Store("S").create()
    assert "no run is done yet" in autodo("inspect", "S").err
    store.begin(run)
    assert f"{run.run_id}: is not done: it was interrupted; `autodo resume S`" in autodo("inspect", "S", run.run_id).err
    store.record_failure(run.run_id, kind="E", last_line="no luck", traceback="", cause=Cause.ERROR)
    answer = autodo("inspect", "S", run.run_id)
    assert f"{run.run_id}: failed (no luck); `autodo retry S {run.run_id}` tries it again" in answer.err
    store.begin(other)
    with store.attempt(other.run_id):
        assert f"{other.run_id}: is not done: it is at work now" in autodo("inspect", "S", other.run_id).err


def test_wrong_input_and_damaged_files_are_one_line(autodo: Autodo) -> None:
    run_id = train(noisy())
    cut = Path(f"S/points/{run_id}.parquet")
    cut.write_bytes(cut.read_bytes()[:-50])
    for arguments, message in {
        ("S",): f"{cut}: damaged",
        ("S", "--ranking", "los"): "unknown ranking 'los'; did you mean 'loss'",
        ("nowhere",): "nowhere: no such store",
    }.items():
        answer = autodo("inspect", *arguments)
        assert answer.code == 2
        assert message in answer.err
        assert len(answer.err.splitlines()) == 1


def test_without_the_images_there_are_thumbnails(autodo: Autodo) -> None:
    run_id = train(noisy())
    Path(f"S/runs/{run_id}/config.json").unlink()
    answer = autodo("inspect", "S", "--top", "70")
    assert answer.code == 0
    assert "note: pictures are the store's thumbnails, because the images are not at hand: S/runs" in answer.out
    kept = sum(picture is not None for picture in pandas.read_parquet("S/points")["thumbnail"])
    assert len(pictures(Path(f"S/report/inspect/{run_id}/gallery.html"))) == min(kept, 70)


def test_images_that_are_not_those_of_the_run_are_not_shown(autodo: Autodo, monkeypatch: pytest.MonkeyPatch) -> None:
    train(noisy())
    wrong = data.load(noisy().dataset)
    object.__setattr__(wrong.train, "labels", (wrong.train.labels + 1) % 10)
    monkeypatch.setattr("orchestration.execution.process.load_dataset", lambda *_: wrong)
    answer = autodo("inspect", "S")
    assert answer.code == 0
    assert "the images are not at hand: digits: the images are not those of the run" in answer.out


def test_a_persons_own_images_are_shown_as_they_are_now(autodo: Autodo, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name, level in {"=cat": 40, "dog": 200}.items():
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(15):
            pixels = np.clip(draw.normal(level, 20, (150, 300, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    overrides = {"dataset.path": "photos", "dataset.image_size": 8, "model.name": "small-cnn"}
    overrides |= {"training.epochs": 2, "training.warmup_epochs": 1}
    run = build_run("folder", "baseline", distortion=DistortionConfig(noise_ratio=0.4), overrides=overrides)
    train(run)
    answer = autodo("inspect", "S", "--top", "5")
    assert answer.code == 0
    written = labels(f"S/report/inspect/{run.run_id}")
    for row in written:
        assert Path(row["path"]).is_file()
        assert row["given"] in ("'=cat", "dog")
    shown = pictures(Path(f"S/report/inspect/{run.run_id}/gallery.html"))
    assert [picture.size for picture in shown] == [(SIDE, SIDE // 2)] * 5
    gone = tmp_path / written[0]["path"]
    gone.write_bytes(b"no image")
    answer = autodo("inspect", "S", "--top", "5")
    assert answer.code == 0
    shown = pictures(Path(f"S/report/inspect/{run.run_id}/gallery.html"))
    assert [picture.size for picture in shown] == [(8, 8), *[(SIDE, SIDE // 2)] * 4]
