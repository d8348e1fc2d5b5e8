"""Public functions take paths as text or as anything with __fspath__."""

import ast
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from autodo.augment.read_policy import import_policy, read_policy
from autodo.config.validation import load_yaml
from autodo.errors import DataError
from autodo.models import build
from autodo.results import records
from autodo.results.classifier import Classifier
from autodo.training import checkpoint

ROOT = Path(__file__).parents[1]
INSIDE = (
    *(f"autodo/io/{name}.py" for name in ("atomic", "file_lock", "object_store", "storage")),
    *("autodo/data/", "autodo/search/", "autodo/training/checkpointer.py"),
    *(
        "orchestration/store/",
        "orchestration/ray_cluster/",
        "orchestration/tracking/",
        "orchestration/testing/",
        "autodo/testing/",
    ),
)
"""Modules of internal functions, which may require a Path."""


class PathLike:
    """A path that is neither text nor a Path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@pytest.mark.parametrize("kind", [str, PathLike])
def test_files_are_written_and_read_by_paths_of_any_kind(kind, tmp_path: Path) -> None:
    encoder, head = build("small-cnn", in_channels=1, image_size=8, classes=2)
    channel = torch.ones(1)
    Classifier("small-cnn", encoder, head, channel, channel, 8, ("a", "b")).save(kind(tmp_path / "new/model.pt"))
    assert Classifier.load(kind(tmp_path / "new/model.pt")).class_names == ("a", "b")
    with pytest.raises(DataError, match=f"^{tmp_path}/none.pt: not a saved classifier: .*No such file"):
        Classifier.load(kind(tmp_path / "none.pt"))

    path = kind(tmp_path / "checkpoint.pt")
    assert checkpoint.save(path, "run", {"epoch": 1}, {"rows": torch.ones(2)}, torch.arange(2), apart=True)
    assert checkpoint.load(path, "run", torch.arange(2))["epoch"] == 1
    assert len(checkpoint.files(path)) == 2
    checkpoint.delete(path)
    assert checkpoint.files(path) == []

    records.write("epochs", records.SCHEMAS["epochs"].empty_table(), kind(tmp_path / "epochs.parquet"))
    assert pq.read_table(tmp_path / "epochs.parquet").num_rows == 0

    (tmp_path / "policy.json").write_text('{"source": "s", "sub_policies": [[["Rotate", 0.9, 0.3]]]}')
    assert read_policy(kind(tmp_path / "policy.json")) == import_policy(kind(tmp_path / "policy.json"))
    (tmp_path / "some.yaml").write_text("a: 1")
    assert load_yaml(kind(tmp_path / "some.yaml")) == {"a": 1}


def test_no_public_function_requires_a_pathlib_path() -> None:
    files = [file for package in ("autodo", "orchestration", "reports") for file in (ROOT / package).rglob("*.py")]
    found = [
        f"{name}: {function.name}({ast.unparse(argument)})"
        for file in files
        if not (name := str(file.relative_to(ROOT))).startswith(INSIDE)
        for function in _public(ast.parse(file.read_text()))
        for argument in [*function.args.args, *function.args.kwonlyargs]
        if argument.annotation is not None and ast.unparse(argument.annotation) in ("Path", "Path | None", "Path | str")
    ]
    assert found == [], "take a StrPath (autodo/io/storage.py)"


def _public(module: ast.Module) -> list[ast.FunctionDef]:
    """Functions and methods, those of private classes left out."""
    bodies = [module, *(node for node in module.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    found = (node for body in bodies for node in body.body if isinstance(node, ast.FunctionDef))
    return [function for function in found if function.name[0] != "_" or function.name == "__init__"]
