"""`autodo export`: the files that it writes, and wrong input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autodo.models import build
from autodo.results.classifier import Classifier
from orchestration.store.store import Store

Autodo = Callable[..., Any]


@pytest.fixture
def model(autodo: Autodo) -> str:
    """A classifier of the run `done` of the store S, in the working directory."""
    encoder, head = build("small-cnn", in_channels=1, image_size=8, classes=2)
    classifier = Classifier("small-cnn", encoder, head, torch.zeros(1), torch.ones(1), 8, ("a", "b"))
    store = Store("S").create()
    classifier.save(Path("S/runs/done/model.pt"))
    store.paths.table("results", "done").write_text("not needed")
    return "S/runs/done/model.pt"


def test_a_classifier_is_exported_with_its_card(model: str, autodo: Autodo) -> None:
    answer = autodo("export", "S", "done", "--format", "torchscript")
    names = ("done.torchscript", "done.card.json", "done.card.md")
    *written, checked = answer.out.splitlines()
    assert (answer.code, answer.err, written) == (0, "", [f"written: {name}" for name in names])
    assert checked == "its probabilities differ by at most 0 from those of the classifier"
    assert all(Path(name).stat().st_size for name in names)
    assert autodo("export", model, "--format", "torchscript", "--out", "new/b.ts").code == 0
    assert Path("new/b.card.json").read_bytes() == Path("done.card.json").read_bytes()


def test_wrong_input_is_one_line_and_writes_nothing(model: str, autodo: Autodo) -> None:
    Path("file").write_text("path\n")
    before = sorted(Path().rglob("*"))
    wrong = {
        (model, "--format", "onx"): "unknown format 'onx'; did you mean 'onnx'",
        (model, "other", "--format", "onnx"): "other: one classifier is exported at a time",
        ("S", "--format", "onnx"): "S: is a store; name a run of it too",
        ("file", "--format", "onnx"): "file: not a saved classifier: torch cannot read it",
        (model, "--format", "torchscript", "--out", model): f"--out {model}: is the classifier itself",
        (model, "--format", "torchscript", "--out", "file/a"): "file/a: cannot be written",
    }
    for arguments, problem in wrong.items():
        answer = autodo("export", *arguments)
        assert (answer.code, answer.err[: 7 + len(problem)]) == (2, f"error: {problem}"), arguments
        assert answer.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
