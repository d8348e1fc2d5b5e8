"""An exported classifier gives the same probabilities, for any number of images, without AutoDO's code."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autodo.errors import ConfigError, DataError
from autodo.models import assemble
from autodo.results import export as module
from autodo.results.classifier import Classifier
from autodo.results.export import export

SUFFIX = {"torch-export": "pt2", "onnx": "onnx", "torchscript": "ts"}


def classifier(cosine_scale: float | None = None, size: int | None = None) -> Classifier:
    """A classifier of images of 8x8, whose network takes images of another size if one is given."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"name": "small-cnn", "size": size}
        encoder, head = assemble(settings, in_channels=3, image_size=8, classes=4, cosine_scale=cosine_scale)
    mean, std = torch.tensor([0.2, 0.5, 0.6]), torch.tensor([0.1, 0.3, 0.2])
    return Classifier("small-cnn", encoder, head, mean, std, 8, ("cat", "dog", "eel", "fox"))


def as_others_load_it(file: Path) -> tuple[Callable[[Tensor], Tensor], str]:
    """The network of an exported file, and the card in it."""
    extra: dict[str, Any] = {"card.json": ""}
    if file.suffix == ".pt2":
        return torch.export.load(file, extra_files=extra).module(), extra["card.json"]
    if file.suffix == ".ts":
        with pytest.warns(FutureWarning, match="deprecated"):
            network = torch.jit.load(file, _extra_files=extra)
        return network, extra["card.json"].decode()
    session = pytest.importorskip("onnxruntime").InferenceSession(file)
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:], given.type) == ("images", [3, 8, 8], "tensor(uint8)")
    assert (result.name, result.shape[1:], result.type) == ("probabilities", [4], "tensor(float)")
    card = session.get_modelmeta().custom_metadata_map["card.json"]
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), card


@pytest.mark.parametrize(("kind", "network"), [("torch-export", {}), ("onnx", {"size": 12}), ("torchscript", {})])
def test_an_exported_classifier_gives_the_same_probabilities(
    kind: str, network: dict[str, Any], tmp_path: Path
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript")
    original = classifier(16.0, **network)
    exported = export(original, tmp_path / f"new/file.{SUFFIX[kind]}", kind)
    run, card = as_others_load_it(exported.file)
    for count in (1, 3, 70):
        images = torch.randint(
            0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(count)
        )
        torch.testing.assert_close(run(images), original(images), rtol=0, atol=1e-5)
    assert exported.difference <= 1e-5
    beside = tmp_path / "new/file.card.json"
    assert (beside.read_text(), exported.cards) == (card, (beside, tmp_path / "new/file.card.md"))
    assert json.loads(card)["classes"] == ["cat", "dog", "eel", "fox"]
    assert len(list((tmp_path / "new").iterdir())) == 3


class Unusual(nn.Module):
    """Features that depend on the number of images, which no exporter can follow."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * sum(float(image.mean()) for image in images.unbind())


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = classifier()
    with pytest.raises(ConfigError, match="unknown format 'onx'; did you mean 'onnx'"):
        export(original, tmp_path / "a", "onx")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ConfigError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'autodo\[onnx\]'"):
            export(original, tmp_path / "a", "onnx")
    with monkeypatch.context() as patch:
        patch.setattr(module, "TOLERANCE", -1.0)
        with pytest.raises(DataError, match=r"small-cnn: exported as torchscript, its probabilities differ by 0"):
            export(original, tmp_path / "a", "torchscript")
    unusual = Classifier("own", Unusual(), nn.Linear(192, 4), original.mean, original.std, 8, original.class_names)
    for kind in ("torch-export", "torchscript"):
        with pytest.raises(DataError, match=f"own: (cannot be exported as|exported as) {kind}"):
            export(unusual, tmp_path / "a", kind)
    assert list(tmp_path.iterdir()) == []
