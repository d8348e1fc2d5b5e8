import pytest
import torch

from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.errors import DataError, UserError
from autodo.results.classifier import Classifier
from autodo.results.export import export
from autodo.training.trainer import Trainer


@pytest.fixture(scope="module")
def training():
    overrides = {"training.epochs": 3, "dataset.subsample": 400}
    config = build_run("digits", "baseline", overrides=overrides)
    training = Trainer(config, prepare(load(config.dataset), config))
    list(training)
    return training


def test_a_saved_classifier_predicts_what_the_run_reported(training, tmp_path):
    outcome = training.outcome()
    outcome.classifier.save(tmp_path / "model.pt")
    loaded = Classifier.load(tmp_path / "model.pt")
    probabilities = loaded(torch.from_numpy(training.context.data.test.images.read()))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(probabilities)))
    wrong = probabilities.argmax(1) != torch.from_numpy(training.context.data.test.labels)
    assert wrong.double().mean().item() == pytest.approx(outcome.error)
    assert loaded.class_names == training.context.data.class_names


def test_images_of_another_kind_are_refused(training):
    for images in (torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"not torch\.uint8"):
            training.outcome().classifier(images)


@pytest.mark.parametrize("content", [b"", b"not a file of torch", None])
def test_a_file_that_is_not_a_classifier_is_named(content, tmp_path):
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.pt: not a saved classifier"):
        Classifier.load(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (
            {"fc.weight": torch.zeros(2), "fc.bias": torch.zeros(1)},
            "the weights of a network alone, 2 tensors, without",
        ),
        ({"epoch": 3, "lr": 0.1}, "a dict of epoch, lr"),
        ([1], "a list"),
    ],
)
def test_what_another_file_of_torch_holds_is_said(content, kind, tmp_path):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(DataError, match=rf"model\.pt: not a saved classifier: it holds {kind}"):
        Classifier.load(tmp_path / "model.pt")


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(training, tmp_path):
    (tmp_path / "folder").mkdir()
    classifier = training.outcome().classifier
    with pytest.raises(UserError, match="folder: cannot be written: Is a directory"):
        classifier.save(tmp_path / "folder")
    with pytest.raises(UserError, match=r"new/e\.onnx: cannot be written: No such file or directory"):
        export(classifier, "/proc/new/e.onnx", "torchscript")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
