"""`autodo train`."""

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from autodo import data
from autodo.api.pretrained import settings_of_weights
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.models import build
from autodo.results.classifier import Classifier
from orchestration.cli import train
from orchestration.cli.options import TrainOptions
from orchestration.store.store import Store
from tests.orchestration.cli.conftest import FOLDER_SET, OPTIMISTIC, TRAIN, fill


@pytest.mark.parametrize(
    ("device", "built", "there", "message"),
    [
        ("cuda", None, 0, "torch 9.9+cpu is built without CUDA; give --device cpu, or leave it out"),
        ("cuda:1", "13.0", 0, "torch finds no GPU here (does nvidia-smi?); give --device cpu, or leave it out"),
        ("cuda:1", "13.0", 1, "there is 1 GPU, cuda:0"),
        ("cuda:4", "13.0", 4, "there are 4 GPUs, cuda:0 to cuda:3"),
        ("cuda:3", "13.0", 4, "cannot be used: it is busy; give --device cpu, or leave it out"),
    ],
)
def test_a_missing_gpu_is_a_one_line_error(
    autodo, monkeypatch: pytest.MonkeyPatch, device: str, built: str | None, there: int, message: str
) -> None:
    import torch

    def busy(*_: object, **__: object) -> None:
        raise RuntimeError("it is busy\nand more")

    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch, "__version__", "9.9+cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch, "zeros", busy)
    answer = autodo(*TRAIN, "--device", device)
    assert answer.err == f"error: --device {device!r}: {message}\n"
    assert answer.code == 2


def test_train_runs_once_then_shows_what_it_has(autodo) -> None:
    first = autodo(*TRAIN)
    assert (first.code, first.err) == (0, "")
    assert "test error, epoch of lowest val error" in first.out
    assert len(Store("outputs/single").status.done()) == 1
    second = autodo(*TRAIN)
    assert second.code == 0
    assert second.out.startswith("done before; nothing to do\n")


def test_train_of_a_done_run_without_its_classifier_says_how_to_get_it(autodo, grid: str) -> None:
    fill(Store("S"), grid, n=1)
    answer = autodo("train", "--dataset", "digits", "--method", "baseline", "--store", "S")
    assert answer.code == 0
    assert answer.out.splitlines()[0] == (
        "done before; nothing to do. It has not kept its models: the same command with another --store does"
    )


def test_train_keeps_the_embeddings_if_asked_to_and_says_when_it_is_too_late(autodo) -> None:
    assert autodo(*TRAIN, "--store", "without").code == 0
    late = autodo(*TRAIN, "--store", "without", "--keep", "embeddings")
    printed = " ".join(late.out.split())
    assert "It has not kept its embeddings: the same command with another --store does" in printed
    assert not Store("without").status.kept("embeddings", Store("without").status.done())
    assert autodo(*TRAIN, "--store", "S", "--keep", "embeddings").code == 0
    done = Store("S").status.done()
    assert Store("S").status.kept("embeddings", done) == Store("S").status.kept("models", done) == done


def test_train_with_the_test_images_as_val_notes_that_errors_are_optimistic(autodo) -> None:
    answer = autodo(*TRAIN, "--split", "test-as-val")
    assert answer.code == 0
    assert OPTIMISTIC in answer.out
    assert OPTIMISTIC not in autodo(*TRAIN).out


def test_train_on_other_images_is_another_run(autodo, photos: Path) -> None:
    overrides = [part for key, value in FOLDER_SET.items() for part in ("--set", f"{key}={value}")]
    train = ("train", "--dataset", "folder", "--method", "baseline", "--store", "S", *overrides)
    assert autodo(*train).code == 0
    assert autodo(*train).out.startswith("done before")
    for file in ("00.png", "01.png"):
        (photos / "cat" / file).rename(photos / "dog" / f"cat-{file}")
    answer = autodo(*train)
    assert answer.code == 0
    assert "done before" not in answer.out
    assert len(Store("S").status.done()) == 2


def test_the_device_chooses_the_preset_of_a_folder(autodo, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainOptions("folder", "baseline", overrides=["dataset.path=photos"])
    for device, preset in (("cpu", "cpu"), ("cuda", "gpu")):
        with monkeypatch.context() as patched:
            patched.setattr(train, "chosen_device", lambda _, device=device: device)
            assert train._with_preset(options).preset == preset
    assert train._with_preset(dataclasses.replace(options, preset="none")).preset is None
    assert train._with_preset(TrainOptions("digits", "baseline")).preset is None

    folder = ("train", "--dataset", "folder", "--method", "baseline", "--device", "cpu", "--store", "S")
    folder += tuple(word for key in ("model.name=small-cnn", "training.epochs=4") for word in ("--set", key))
    folder += ("--set", "dataset.path=photos")
    assert "preset" not in autodo(*folder, "--preset", "none").out
    chosen = autodo(*folder).out.replace("\n", " ")
    assert "preset cpu, by the device: small-cnn, 32 x 32 pixels, 4 epochs; --preset none is the recipe" in chosen
    assert "S has the run of the recipe itself, which --preset none continues; this is another run" in chosen
    assert autodo(*folder, "--preset", "cpu").out.startswith("done before")


def test_pretrained_weights_bring_the_settings_of_fit_with_a_preset(autodo, photos: Path) -> None:
    encoder, head = build("small-cnn", in_channels=3, image_size=12, classes=2)
    Classifier("small-cnn", encoder, head, torch.zeros(3), torch.ones(3), 12, ("a", "b")).save("first.pt")
    settings = ("dataset.path=photos", "model.name=small-cnn", "model.weights=first.pt", "training.epochs=4")
    options = TrainOptions("folder", "baseline", preset="cpu", overrides=[*settings])
    plain = train._build(dataclasses.replace(options, preset=None))
    assert (plain.dataset.image_size, plain.training.encoder_lr_factor) == (64, 1.0)
    run = train._build(options)
    assert (run.dataset.image_size, run.augmentation.crop_padding, run.training.encoder_lr_factor) == (12, 1, 0.1)
    given = train._build(
        dataclasses.replace(options, overrides=[*settings, "dataset.image_size=8", "training.encoder_lr_factor=1"])
    )
    assert (given.dataset.image_size, given.training.encoder_lr_factor) == (8, 1.0)
    unsized = build_run("digits", "baseline", overrides={"model.weights": "first.pt"})
    assert settings_of_weights(unsized, ()) == {"training.encoder_lr_factor": 0.1}
    command = ("train", "--dataset", "folder", "--method", "baseline", "--device", "cpu", "--store", "S")
    answer = autodo(*command, *(word for setting in settings for word in ("--set", setting)))
    assert answer.code == 0
    assert (
        "pretrained weights bring training.encoder_lr_factor=0.1, dataset.image_size=12, augmentation.crop_padding=1; "
        "--set overrides each, and --preset none is the recipe itself"
    ) in answer.out.replace("\n", " ")
    answer = autodo(*command, "--weights-dir", "missing")
    assert (answer.code, answer.err) == (2, "error: --weights-dir missing: there is no such folder\n")


def test_train_that_diverges_is_one_line_and_exit_code_1(autodo) -> None:
    answer = autodo(*TRAIN, "--set", "training.lr=1e20", "--store", "S")
    assert answer.code == 1
    (line,) = answer.err.splitlines()
    assert line.startswith("error: the train loss is not finite in epoch 0")
    assert len(Store("S").status.failures()) == 1


def test_train_with_an_unforeseen_error_says_where_the_traceback_is(autodo, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(data, "prepare", broken)
    answer = autodo(*TRAIN, "--store", "S")
    assert answer.code == 1
    assert "failed: RuntimeError: a bug; traceback in S/runs/" in answer.out
    assert "Traceback" not in answer.out + answer.err
    (failure,) = Store("S").status.failures().values()
    assert "in broken" in failure.traceback


def test_train_interrupted_continues(autodo, monkeypatch: pytest.MonkeyPatch) -> None:
    from autodo.training.trainer import Trainer

    run_epoch = Trainer.train_epoch

    def interrupted_in_the_second(self: Trainer, epoch: int) -> object:
        if epoch == 1 and self.checkpointer.path is not None:  # not while an epoch is only timed
            raise KeyboardInterrupt
        return run_epoch(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", interrupted_in_the_second)
        answer = autodo(*TRAIN, "--store", "S")
    assert answer.code == 130
    assert "interrupted after epoch 1/2; the same command continues" in answer.out
    assert autodo(*TRAIN, "--store", "S").code == 0
    (log,) = Path("S/runs").glob("*/log.txt")
    assert "from epoch 1 of 2" in log.read_text()


def test_train_says_that_the_store_has_the_run_with_older_defaults(autodo) -> None:
    distortion = DistortionConfig(imbalance_ratio=10)
    settings = {"training.epochs": 2, "training.warmup_epochs": 1, "dataset.subsample": 300}
    older = build_run("digits", "baseline", distortion=distortion, overrides=settings, protocol=1)
    Store("S").create().begin(older)
    overrides = [f"--set={key}={value}" for key, value in settings.items()]
    command = ["train", "--dataset", "digits", "--method", "baseline", "--store", "S", *overrides, "--ir"]
    says = "S has this run as it was with older defaults (distortion.minority: class"
    assert says in autodo(*command, "10").out
    assert says not in autodo(*command, "5").out


@pytest.mark.slow
def test_a_streamed_folder_is_trained_on_inspected_and_reported(autodo, tmp_path, monkeypatch) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    from autodo.data.stream.pool import close_pools

    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AUTODO_LOADER_WORKERS", raising=False)
    generator = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "images" / f"kind{label}").mkdir(parents=True)
        for number in range(70):
            pixels = generator.normal(60 + 60 * label, 30, (40, 50, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"kind{label}" / f"{number}.jpg")
    keys = {
        "dataset.path": "images",
        "dataset.stream": "true",
        "dataset.image_size": "24",
        "augmentation.resized_crop": "[0.3, 1]",
        "model.name": "small-cnn",
        "training.epochs": "3",
        "training.warmup_epochs": "1",
        "training.batch_size": "32",
        "outer.start_share": "0.3",
    }
    overrides = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    command = ("train", "--dataset", "folder", "--method", "autodo-exact-ws", "--nr", "0.3", *overrides, "--store", "S")
    answer = autodo(*command, "--keep", "embeddings", "--loader-workers", "1", "--checkpoint-steps", "2")
    close_pools()
    assert answer.code == 0, answer.err
    store = Store("S")
    (run_id,) = store.status.done()
    points = pq.read_table(str(store.paths.table("points", run_id)))
    assert points.num_rows == round(0.8 * 0.8 * 210)
    assert points["thumbnail"].null_count < points.num_rows
    assert all(source.endswith(".jpg") for source in points["source"].to_pylist())
    shown = autodo("inspect", "S", run_id, "--out", "I")
    assert shown.code == 0, shown
    assert "kind" in shown.out
    assert autodo("report", "S").code == 0
    html = Path("S/report/report.html")
    assert "data:image/png" in html.read_text()
