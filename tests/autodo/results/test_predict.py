"""A classifier's predictions for files, PIL images, arrays and tensors are those that its run reported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.errors import DataError
from autodo.results.classifier import Classifier
from autodo.results.outcome import Outcome
from autodo.training.trainer import Trainer

SETTINGS = {
    "dataset.image_size": 8,
    "model.name": "small-cnn",
    "augmentation.crop_padding": 1,
    "training.epochs": 2,
    "training.warmup_epochs": 0,
    "training.batch_size": 16,
}


@pytest.fixture(scope="module", params=[None, 10], ids=["in memory", "streamed and resized"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Outcome]:
    """Two classes of images of many sizes and modes, some turned, and a run on them."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for i in range(40):
        width, height = generator.integers(9, 70, 2)
        pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
        image = Image.fromarray(pixels if i % 4 else pixels[..., 0])
        exif = Image.Exif()
        exif[0x0112] = 1 + i % 8
        file = folder / ("cat", "dog")[i % 2] / f"{i}.{'png' if i % 3 else 'jpg'}"
        file.parent.mkdir(exist_ok=True)
        image.save(file, exif=exif)
    settings = SETTINGS | {"dataset.path": str(folder)}
    if request.param is not None:
        settings |= {"dataset.stream": True, "dataset.resize": request.param}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTODO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("AUTODO_LOADER_WORKERS", "0")
        config = build_run("folder", "baseline", overrides=settings)
        training = Trainer(config, prepare(load(config.dataset), config))
        list(training)
        return training, training.outcome()


def files(training: Trainer) -> list[Path]:
    """Files of the test images, in their order."""
    root = Path(str(training.context.config.dataset.path))
    return [root / str(source) for source in training.context.data.test.sources]


def test_predictions_for_files_are_those_of_the_run(trained, tmp_path):
    training, outcome = trained
    outcome.classifier.save(tmp_path / "model.pt")
    classifier = Classifier.load(tmp_path / "model.pt")
    paths, images = files(training), training.context.data.test.images.read()
    assert all(np.array_equal(classifier.inputs.pixels(path), image) for path, image in zip(paths, images, strict=True))
    table = outcome.predictions.to_pydict()
    assert classifier.predict(paths).tolist() == [classifier.class_names[k] for k in table["prediction"]]
    probabilities = classifier.predict_proba([str(path) for path in paths], batch_size=3)
    np.testing.assert_allclose(probabilities.max(1), table["probability"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(probabilities, classifier(torch.from_numpy(images)), rtol=0, atol=1e-6)
    features = classifier.embed(paths)
    assert features.shape == (len(paths), classifier.encoder.features)
    logits = torch.from_numpy(features) @ classifier.head.weight.T + classifier.head.bias
    np.testing.assert_allclose(logits.softmax(1).detach(), probabilities, rtol=0, atol=1e-6)


def test_one_list_may_hold_all_kinds_of_images_of_all_sizes(trained):
    training, outcome = trained
    classifier, path = outcome.classifier, next(path for path in files(training) if path.suffix == ".png")
    wide = np.random.default_rng(0).integers(0, 256, (20, 90, 3), np.uint8)
    given = [path, Image.open(path), wide, torch.from_numpy(wide).permute(2, 0, 1) / 255]
    together = classifier.predict_proba(given)
    assert np.array_equal(together[0], together[1])
    assert np.array_equal(together[2], together[3])
    assert np.array_equal(classifier.predict(given), np.array(classifier.class_names)[together.argmax(1)])
    np.testing.assert_allclose(classifier.predict_proba(path), together[:1], rtol=0, atol=1e-6)
    assert classifier.predict([]).shape == (0,)
    assert classifier.embed([]).shape == (0, classifier.encoder.features)


def test_what_cannot_be_read_is_named(trained, tmp_path):
    training, outcome = trained
    good = files(training)[0]
    for name, content in (("empty.png", b""), ("cut.png", good.read_bytes()[:60]), ("text.jpg", b"text")):
        (tmp_path / name).write_bytes(content)
    damaged = [tmp_path / name for name in ("empty.png", "cut.png", "text.jpg", "missing.png")]
    with pytest.raises(
        DataError, match=r"^cannot be used: .*empty\.png \(not an image\), .*cut\.png \(.*text\.jpg .*, and 1 more"
    ):
        outcome.classifier.predict([good, *damaged])
    with pytest.raises(DataError, match=r"^cannot be used: image 1 \(NaN or infinite pixels; "):
        outcome.classifier.embed([good, np.full((4, 4), np.nan)])
    with pytest.raises(DataError, match=r"used: image 0 \(a NoneType; an image is a path"):
        outcome.classifier.predict([None])
    with pytest.raises(DataError, match=r"^a int; images are paths"):
        outcome.classifier.predict(7)
    with pytest.raises(DataError, match="batch_size 0: must be at least 1"):
        outcome.classifier.predict([], batch_size=0)
