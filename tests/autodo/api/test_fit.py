"""`autodo.fit` on scans of digits."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import autodo
from autodo.api.run import fit_run
from autodo.config.dataset import DatasetConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.config.shipped import dataset_preset, preset_of_device
from autodo.data import load
from autodo.errors import ConfigError, DataError

SHORT = {
    "model": "small-cnn",
    "epochs": 3,
    "preset": "cpu",
    "device": "cpu",
    "settings": {"augmentation.flip": False, "augmentation.erase_probability": 0.0},
}
TIMES = ("inner_seconds", "outer_seconds", "eval_seconds")


@pytest.fixture(scope="module")
def digits():
    train = load(DatasetConfig(name="digits")).train
    return train.images.read()[:, 0], train.labels


@pytest.fixture(scope="module")
def parts(digits):
    """200 train, 60 val and 100 test images with their labels."""
    images, labels = digits
    return [(images[part], labels[part]) for part in (slice(200), slice(200, 260), slice(260, 360))]


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_test_error_is_that_of_the_classifier_and_test_images_change_nothing_else(parts, tmp_path):
    train, val, (images, labels) = parts
    outcome = autodo.fit(*train, val=val, test=(images, labels), **SHORT)
    predictions = outcome.classifier(torch.from_numpy(images[:, None])).argmax(1).numpy()
    assert outcome.error == pytest.approx((predictions != labels).mean())
    untested = autodo.fit(*train, val=val, **SHORT)
    assert same(untested.classifier.state_dict(), outcome.classifier.state_dict())
    assert untested.error is None
    assert "no test error" in repr(untested)
    tests = ("test_error", "test_loss")
    assert all(untested.history[name].null_count == 3 for name in tests)
    errors = untested.classifier.run["errors"]
    assert (errors["test"], errors["val_is_trained_on"]) == (None, True)
    untested.classifier.save(tmp_path / "model.pt")
    card = (tmp_path / "model.card.md").read_text()
    assert "| test error | not measured: there were no test images |" in card
    assert "| validation error (of images that were trained on) |" in card.replace("\\", "")
    row = untested.results.to_pylist()[0]
    assert (row["error_last"], row["error_best_test"], row["test_points"]) == (None, None, 0)
    seen = untested.history.drop_columns([*tests, *TIMES])
    assert seen.equals(outcome.history.drop_columns([*tests, *TIMES]))


def test_learned_values_are_in_the_order_of_the_given_images(parts):
    (images, labels), val, _ = parts
    learned = {}
    for method in ("autodo", "autodo-exact-ws", "baseline"):
        outcome = autodo.fit(images, labels, val=val, test=np.float32(0.25), method=method, **SHORT)
        learned[method] = outcome
        index = outcome.points["index"].to_numpy()
        assert (len(index), outcome.given) == (150, 200)
        assert np.array_equal(outcome.points["label"].to_numpy(), labels[index])
        assert sorted(outcome.suspicious["index"].to_pylist()) == sorted(index.tolist())
        assert outcome.error is not None
        assert "test: held out of the given images, so its labels are as wrong as theirs" in outcome.notes
        if method == "baseline":
            assert outcome.weights is outcome.soft_labels is None
            continue
        held_out = np.setdiff1d(np.arange(200), index)
        for values in (outcome.weights, outcome.soft_labels):
            assert len(values) == 200
            assert np.isnan(values[held_out]).all()
            assert np.isfinite(values[index]).all()
        assert np.allclose(outcome.soft_labels[index].sum(1), 1, atol=1e-5)
    trusted, rows = learned["autodo"], learned["autodo"].points.to_pylist()
    assert all(trusted.weights[row["index"]] == np.float32(row["soft_label"][row["label"]]) for row in rows)
    rows = learned["autodo-exact-ws"].points.to_pylist()
    assert all(learned["autodo-exact-ws"].weights[row["index"]] == np.float32(row["weight"]) for row in rows)


def test_without_val_a_share_is_split_off_and_what_that_means_is_said(parts, caplog):
    (images, labels), *_ = parts
    with caplog.at_level(logging.WARNING, "autodo"):
        outcome = autodo.fit(images, labels, val_share=0.25, **SHORT)
    (warning,) = [record.message for record in caplog.records]
    assert warning == (
        "val: none was given, so 25% of the train images are used as trusted, and their labels are as wrong as the "
        "others'; give val=(images, labels) whose labels somebody has checked"
    )
    assert outcome.notes[0] == warning
    assert np.isnan(outcome.weights).sum() == 50
    assert outcome.trains_on_val
    assert not autodo.fit(images, labels, method="baseline", split="paper", **SHORT).trains_on_val


def test_images_in_memory_train_as_those_of_a_folder_do(digits, tmp_path):
    images, labels = digits[0][:60], digits[1][:60]
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / str(label) / f"{i:02}.png")
    folder = autodo.fit(tmp_path, image_size=8, **{**SHORT, "settings": {"augmentation.crop_padding": 1}})
    order = np.argsort(labels, kind="stable")
    given = autodo.fit(images[order], labels[order], test=0.2, **{**SHORT, "settings": None})
    assert given.error == folder.error
    assert same(given.classifier.state_dict(), folder.classifier.state_dict())
    assert np.array_equal(given.weights[~np.isnan(given.weights)], folder.weights[~np.isnan(folder.weights)])
    run = build_run(
        "folder", "autodo", split="union", preset="cpu",
        overrides={"dataset.path": str(tmp_path), "dataset.image_size": 8, "model.name": "small-cnn",
                   "training.epochs": 3, "training.warmup_epochs": 1, "augmentation.crop_padding": 1},
    )  # fmt: skip
    assert same(fit_run(run, device="cpu").classifier.state_dict(), folder.classifier.state_dict())
    for name in ("val", "test", "class_names"):
        with pytest.raises(ConfigError, match=f"{name}: cannot be given with a folder or file, which has its own"):
            autodo.fit(tmp_path, **{name: 0.2})


def test_a_file_of_features_is_trained_on_as_the_dataset_is(tmp_path):
    path, labels = tmp_path / "points.npy", np.arange(60) % 3
    np.save(path, np.random.default_rng(0).normal(size=(60, 5)) + 2 * np.eye(5)[labels])
    np.save(tmp_path / "points.label.npy", labels)
    outcome = autodo.fit(path, epochs=2)
    settings = {"dataset.path": str(path), "training.epochs": 2, "training.warmup_epochs": 0}
    expected = fit_run(build_run("features", "autodo", split="union", overrides=settings), device="cpu")
    assert same(outcome.classifier.state_dict(), expected.classifier.state_dict())
    assert (outcome.error, len(outcome.weights)) == (expected.error, 48)


class Killed(Exception):
    pass


def test_a_killed_fit_continues_with_the_same_bits(parts, tmp_path):
    train, val, _ = parts
    file = tmp_path / "fit.pt"

    def kill(row) -> None:
        if row["epoch"] == 1:
            raise Killed

    whole = autodo.fit(*train, val=val, **SHORT)
    with pytest.raises(Killed):
        autodo.fit(*train, val=val, checkpoint=file, on_epoch=kill, **SHORT)
    epochs = []
    continued = autodo.fit(*train, val=val, checkpoint=file, on_epoch=lambda row: epochs.append(row["epoch"]), **SHORT)
    assert epochs == [2]
    assert continued.history.drop_columns(TIMES).equals(whole.history.drop_columns(TIMES))
    assert continued.points.equals(whole.points)
    assert same(continued.classifier.state_dict(), whole.classifier.state_dict())

    kept = file.read_bytes()
    with pytest.raises(ConfigError, match=r"fit\.pt: belongs to memory_ir1_nr0_autodo_s0_\w+, and these images"):
        autodo.fit(*train, val=val, checkpoint=file, seed=1, **SHORT)
    with pytest.raises(ConfigError, match="belongs to memory"):
        autodo.fit(train[0], np.roll(train[1], 1), val=val, checkpoint=file, **SHORT)
    other = tmp_path / "photo.png"
    other.write_bytes(b"no checkpoint")
    with pytest.raises(ConfigError, match=r"photo\.png: not a checkpoint of AutoDO; give another path"):
        autodo.fit(*train, val=val, checkpoint=other, **SHORT)
    with pytest.raises(ConfigError, match=r"there is no folder .*missing; create it"):
        autodo.fit(*train, val=val, checkpoint=tmp_path / "missing" / "fit.pt", **SHORT)
    assert (file.read_bytes(), other.read_bytes()) == (kept, b"no checkpoint")


def test_wrong_settings_are_one_line_before_an_image_is_read(parts):
    (images, labels), *_ = parts
    unread = [images[0]] * len(labels)
    unread[0] = None
    wrong = [
        ({"method": "autodos"}, r"unknown method 'autodos'; did you mean 'autodo'"),
        ({"model": "resnet-1"}, r"model\.name"),
        ({"epochs": 0}, r"autodo\.fit: training\.epochs: input should be greater than or equal to 1"),
        ({"settings": {"training.lrr": 1}}, r"training\.lrr: unknown key; did you mean 'lr'"),
        (
            {"settings": {"training.epochs": 4}, "epochs": 3},
            r"settings: 'training\.epochs' is given twice, also",
        ),
        (
            {"settings": {"dataset.subsample": 4}},
            r"'dataset\.subsample' is for datasets with a name; give",
        ),
        ({"epochs": "3"}, r"epochs: must be a whole number, not '3'"),
        ({"image_size": 8.0}, r"image_size: must be a whole number, not 8\.0"),
        ({"method": 3}, r"method: must be a name, not 3"),
        ({"settings": ["training.lr"]}, r"settings: must be a dict of values by dotted key"),
        ({"preset": "tpu"}, r"preset 'tpu': is none of 'auto', None, 'cpu', 'gpu'"),
        ({"device": "tpu"}, r"device 'tpu': cannot be used"),
        ({"device": "meta"}, r"device 'meta': cannot be used: AutoDO trains on cpu and cuda, not on meta"),
        ({"split": "papers"}, r"split: input should be 'paper', 'union'"),
    ]
    for given, message in wrong:
        with pytest.raises(ConfigError, match=message) as raised:
            autodo.fit(unread, labels, **given)
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="split 'test-as-val' needs test images"):
        autodo.fit(images, labels, method="autodo-exact-ws", split="test-as-val", **SHORT)
    with pytest.raises(DataError, match="images: 1 of 200 images cannot be read"):
        autodo.fit(unread, labels, **SHORT)
    with pytest.raises(DataError, match="given in Python and are not kept"):
        load(DatasetConfig(name="memory", content="0" * 16, image_size=8))


def test_a_verbose_fit_estimates_its_duration_first_and_says_what_the_result_means(parts, capsys):
    train, val, _ = parts
    outcome = autodo.fit(*train, val=val, verbose=True, **{**SHORT, "epochs": 1})
    first, epoch, *end = capsys.readouterr().out.splitlines()
    assert first.startswith("training takes about ")
    assert "val error (trained on)" in epoch
    assert "test error" not in epoch
    assert any(line.startswith("epochs: their errors are those of the head that was trained;") for line in end)
    assert not any(note.startswith("epochs:") for note in autodo.fit(*train, val=val, method="baseline", **SHORT).notes)
    assert "\n".join(end) == repr(outcome)
    assert end[-1].startswith("test: none was given, so the error on new images is unknown")


def test_a_network_can_be_an_object_which_stays_as_it_is(parts):
    train, val, (images, labels) = parts
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    outcome = autodo.fit(*train, val=val, test=(images, labels), **{**SHORT, "model": network})
    assert same(network.state_dict(), before)
    assert outcome.error < 0.7, "guessing is wrong nine times of ten"
    assert outcome.results["model"].to_pylist() == ["module:Sequential"]
    again = autodo.fit(*train, val=val, test=(images, labels), **{**SHORT, "model": network})
    assert again.results["run_id"] == outcome.results["run_id"]
    assert same(again.classifier.state_dict(), outcome.classifier.state_dict())
    with pytest.raises(ConfigError, match=r"a network is an nn\.Module, not a int"):
        autodo.fit(*train, model=7)


def test_pretrained_weights_bring_their_image_size_and_a_lower_rate_of_the_encoder(parts, tmp_path, monkeypatch):
    train, val, _ = parts
    autodo.fit(*train, val=val, **SHORT).classifier.save(tmp_path / "first.pt")
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (30, 12, 20), np.uint8)
    given = {**SHORT, "weights": tmp_path / "first.pt", "epochs": np.int64(1)}
    outcome = autodo.fit(photos, np.arange(30) % 3, **given)
    assert outcome.classifier.image_size == 8, "not the 12 pixels of the images"
    (config,) = outcome.results["config"].to_pylist()
    run = RunConfig.from_stored(config)
    assert run.training.encoder_lr_factor == 0.1
    assert run.model.weights_content is not None
    assert (run.dataset.image_size, run.augmentation.crop_padding) == (8, 1)
    for i, photo in enumerate(photos):
        (tmp_path / "photos" / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(tmp_path / "photos" / str(i % 3) / f"{i}.png")
    assert autodo.fit(tmp_path / "photos", **given).classifier.image_size == 8
    assert autodo.fit(photos, np.arange(30) % 3, image_size=10, **given).classifier.image_size == 10
    monkeypatch.setenv("AUTODO_WEIGHTS", "missing")
    with pytest.raises(ConfigError, match="AUTODO_WEIGHTS missing: there is no such folder"):
        autodo.fit(photos, np.arange(30) % 3, **given)


def test_the_preset_is_chosen_by_the_device(monkeypatch):
    assert [preset_of_device("folder", name) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "gpu", "gpu"]
    assert preset_of_device("digits", "cpu") is None
    assert preset_of_device("imagenet", "cuda") is None
    plain = build_run("folder", "baseline", overrides={"dataset.path": "photos"})
    gpu = build_run("folder", "baseline", preset="gpu", overrides={"dataset.path": "photos"})
    assert gpu.run_id == plain.run_id

    class Built(Exception):
        pass

    seen = []

    def stop(run, **_) -> None:
        seen.append(run)
        raise Built

    monkeypatch.setattr("autodo.api.fit.fit_run", stop)
    monkeypatch.setattr("autodo.api.fit._checked_device", lambda device: device)
    images, labels = np.zeros((40, 100, 80, 3), np.uint8), np.arange(40) % 2
    for device in ("cpu", "cuda"):
        with pytest.raises(Built):
            autodo.fit(images, labels, device=device)
    cpu = dataset_preset("folder", "cpu")
    assert [(run.model.name, run.dataset.image_size, run.training.epochs) for run in seen] == [
        (cpu["model.name"], cpu["dataset.image_size"], cpu["training.epochs"]),
        ("resnet-18", 64, 100),
    ]
    assert [run.augmentation.crop_padding for run in seen] == [4, 8]


def test_importing_the_package_imports_nothing_large():
    code = "import sys, autodo; assert dir(autodo); print({'torch', 'numpy', 'pydantic', 'sklearn'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
    assert {*autodo.__all__} <= {*dir(autodo)}
    with pytest.raises(AttributeError, match="module 'autodo' has no attribute 'fits'"):
        autodo.fits  # noqa: B018
