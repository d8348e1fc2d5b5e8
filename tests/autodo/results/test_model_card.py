"""The model card says what the run's tables say, beside every saved classifier, and cannot be forged by names."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from autodo.api.run import fit_run
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import pin_content
from autodo.models import build
from autodo.results.classifier import Classifier
from autodo.results.model_card import model_card, to_markdown, write_cards
from tests.autodo.results.test_predict import SETTINGS

NAMES = ("a|b", "# c\n<script>")


def test_the_card_of_a_run_says_what_its_tables_say(tmp_path: Path) -> None:
    photos = tmp_path / "private" / "photos"
    for i in range(40):
        file = photos / ("cat", "dog")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (i, 6 * i, 9)).save(file)
    settings = SETTINGS | {"dataset.path": str(photos)}
    config = build_run(
        "folder", "baseline", distortion=DistortionConfig.parse("2-0.5"), split="union", overrides=settings
    )
    outcome = fit_run(config.model_copy(update={"dataset": pin_content(config.dataset)}))
    outcome.classifier.save(tmp_path / "made.pt")
    text = (tmp_path / "made.card.json").read_text()
    card, (row,), points = json.loads(text), outcome.results.to_pylist(), outcome.points.to_pydict()
    assert str(photos.parent) not in text, "a path of this machine"
    assert card["classes"] == list(card["run"]["errors"]["test_accuracy_per_class"]) == ["cat", "dog"]
    assert card["input"]["shape"] == ["batch", 3, 8, 8]
    assert card["input"]["preparation"][1] == "resize its shorter side to 8 pixels (bilinear, antialiased)"
    assert card["input"]["normalisation"]["mean"] == outcome.classifier.mean.flatten().tolist()
    run, settings = card["run"], json.loads(row["config"])
    assert (run["id"], run["seed"], run["method"]) == (row["run_id"], 0, "baseline")
    assert run["data"]["fingerprint"] == settings["dataset"]["content"] is not None
    assert run["data"]["train_images_per_class"] == {
        name: points["label"].count(k) for k, name in enumerate(card["classes"])
    }
    assert run["data"]["known_wrong_train_labels"] == row["wrong_labels"] > 0
    assert run["errors"]["test"] == row["error_best_val"] == outcome.error
    assert run["errors"]["val"] == outcome.epochs["val_error"][row["best_val_epoch"]].as_py()
    assert "also trained on the validation images" in run["errors"]["note"]
    assert list(run["errors"]["test_accuracy_per_class"].values()) == row["per_class_accuracy"]
    del settings["dataset"]["path"]
    assert run["config"] == settings
    assert run["provenance"]["versions"]["torch"] == torch.__version__.partition("+")[0]

    loaded = Classifier.load(tmp_path / "made.pt")
    assert model_card(loaded) == card, "a classifier that is loaded and saved again keeps its card"
    assert f"| test error | {100 * outcome.error:.2f}% |" in (tmp_path / "made.card.md").read_text()


@pytest.mark.parametrize("channels", [1, 3])
def test_names_cannot_become_markup(channels: int, tmp_path: Path) -> None:
    encoder, head = build("small-cnn", in_channels=channels, image_size=8, classes=2)
    one = torch.ones(channels)
    classifier = Classifier("small-cnn", encoder, head, one, one, 8, NAMES)
    classifier.resize = 10
    classifier.save(tmp_path / "a.pt")
    card = json.loads((tmp_path / "a.card.json").read_text())
    assert (card["classes"], card["run"]) == (list(NAMES), None)
    assert card["input"]["channels"] == {1: "gray", 3: "RGB"}[channels]
    assert "shorter side to 10 pixels" in card["input"]["preparation"][1]
    text = (tmp_path / "a.card.md").read_text()
    assert text == to_markdown(card)
    assert "| classes | 2: a\\|b, \\# c\\\\n\\<script\\> |\n" in text
    assert model_card(Classifier.load(tmp_path / "a.pt")) == card


def test_only_the_suffix_of_a_format_is_cut_from_a_name(tmp_path: Path) -> None:
    encoder, head = build("small-cnn", in_channels=1, image_size=8, classes=2)
    card = model_card(Classifier("small-cnn", encoder, head, torch.ones(1), torch.ones(1), 8, NAMES))
    for name, stem in {"cats.pt": "cats", "cats.v1.onnx": "cats.v1", "net.v1": "net.v1", "net.v2": "net.v2"}.items():
        assert write_cards(card, tmp_path / name) == (tmp_path / f"{stem}.card.json", tmp_path / f"{stem}.card.md")
