"""Training on datasets of features."""

from pathlib import Path

import numpy as np
import pytest
import torch

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import DataSplits, load, pin_content, prepare
from autodo.results.classifier import Classifier
from autodo.results.export import export
from autodo.results.outcome import Outcome
from autodo.training.trainer import Trainer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 points of 4 classes with 6 features, of which the last does not vary, and others are large."""
    generator, labels = np.random.default_rng(0), np.arange(400) % 4
    values = generator.normal(size=(400, 6)) + 2 * generator.normal(size=(4, 6))[labels]
    values[:, 1] = 1000 * values[:, 1] + 5000
    values[:, 5] = 0.1
    file = tmp_path_factory.mktemp("features") / "x.npy"
    np.save(file, values)
    np.save(file.with_name("x.label.npy"), labels)
    return file


def trained(path: Path, method: str, **overrides: object) -> tuple[RunConfig, DataSplits, Outcome]:
    config = build_run(
        "features",
        method,
        distortion=DistortionConfig(noise_ratio=0.2),
        overrides={"dataset.path": str(path), "training.epochs": 4, **overrides},
    )
    config = config.model_copy(update={"dataset": pin_content(config.dataset)})
    data = prepare(load(config.dataset), config)
    training = Trainer(config, data)
    list(training)
    return config, data, training.outcome(keep_embeddings=True)


def test_the_classifier_takes_features_and_standardises_them(path: Path, tmp_path: Path) -> None:
    _, data, outcome = trained(path, "autodo")
    test = data.test.images.read()
    assert test.shape == (80, 6, 1, 1)
    np.testing.assert_array_equal(test, load(trained(path, "baseline")[0].dataset).test.images.read())
    outcome.classifier.save(tmp_path / "model.pt")
    classifier = Classifier.load(tmp_path / "model.pt")
    features = test[:, :, 0, 0]
    probabilities = classifier.predict_proba(features, batch_size=7)
    np.testing.assert_array_equal(probabilities.argmax(1), outcome.predictions["prediction"].to_numpy())
    assert classifier.predict(torch.from_numpy(features)[:2]).tolist() == [str(k) for k in probabilities[:2].argmax(1)]
    train = data.train.images.read()[:, :, 0, 0].astype(np.float64)
    deviation = train.std(0)
    deviation[5] = 1
    expected = (features - train.mean(0)) / deviation
    np.testing.assert_allclose(classifier.embed(features), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.stack(outcome.embeddings["embedding"].to_numpy()), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"features are torch.float32 \(1, 5\), not torch.float32 \[B, 6\]"):
        classifier.predict(features[:1, :5])


@pytest.mark.parametrize("kind", ["torch-export", "torchscript", "onnx"])
def test_a_classifier_of_features_is_exported(path: Path, tmp_path: Path, kind: str) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    _, _, outcome = trained(path, "baseline", **{"training.epochs": 2})
    exported = export(outcome.classifier, tmp_path / "model", kind)
    assert exported.difference <= 1e-5
    card = exported.cards[1].read_text()
    assert "A classifier of features" in card
    assert r"\[batch, 6\] float32, features" in card
    assert "autodo predict" not in card


def test_features_have_no_thumbnails(path: Path) -> None:
    _, _, outcome = trained(path, "autodo-exact-ws")
    assert outcome.points["thumbnail"].null_count == len(outcome.points)
    assert outcome.suspicious_points().num_rows == len(outcome.points)


@pytest.mark.parametrize("method", ["mixup", "ldam-drw", "l2rw", "finetune-head-on-val", "co-teaching", "glc", "sop"])
def test_rivals_train_on_features(path: Path, method: str) -> None:
    _, _, outcome = trained(path, method, **{"distortion.noise": "confusion"})
    assert np.isfinite(outcome.error)
