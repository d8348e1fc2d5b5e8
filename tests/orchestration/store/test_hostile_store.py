"""Stores that someone else made, damaged or spoiled: nothing in them runs code here or leads elsewhere."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from autodo.config.run import RunConfig
from autodo.errors import ConfigError, DataError, StoreError
from autodo.results.classifier import Classifier
from orchestration.execution.execute import execute
from orchestration.store.run_state import State
from orchestration.store.store import Store


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def spoiled(kind: str, victim: Path, tmp_path: Path, run: RunConfig) -> bytes:
    """A checkpoint.pt that is of no use."""
    if kind == "pickle":
        return pickle.dumps(Payload(victim))
    if kind == "empty":
        return b""
    contents: dict[str, Any] = {
        "torch pickle": Payload(victim),
        "payload inside": {"format": 1, "run_id": run.run_id, "state": Payload(victim)},
        "other version": {"format": 99, "run_id": run.run_id, "state": {}},
        "other run": {"format": 1, "run_id": "someone-else", "state": {}},
        "other content": {"format": 1, "run_id": run.run_id, "state": {"epoch": 2}},
        "truncated": {"format": 1, "run_id": run.run_id, "state": {"epoch": 2}},
    }
    torch.save(contents[kind], tmp_path / "spoiled.pt")
    content = (tmp_path / "spoiled.pt").read_bytes()
    return content[: len(content) // 2] if kind == "truncated" else content


KINDS = (
    "pickle", "empty", "torch pickle", "payload inside", "other version", "other run", "other content", "truncated"
)  # fmt: skip


def test_the_payload_of_these_tests_works(victim: Path) -> None:
    pickle.loads(pickle.dumps(Payload(victim)))
    assert victim.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_a_spoiled_checkpoint_starts_anew(
    any_store: Store, run: RunConfig, kind: str, victim: Path, tmp_path: Path
) -> None:
    any_store.begin(run)
    any_store.paths.checkpoint(run.run_id).write_bytes(spoiled(kind, victim, tmp_path, run))
    epochs = execute(run, any_store)
    assert next(epochs)["epoch"] == 0
    epochs.close()
    log = any_store.paths.log(run.run_id).read_text()
    assert "cannot be used, the run starts" in log
    assert "from epoch 0 of 3" in log
    assert not victim.exists()


@pytest.mark.parametrize("kind", ["pickle", "torch pickle", "empty", "truncated"])
def test_a_damaged_classifier_is_an_error_of_one_line(kind: str, victim: Path, tmp_path: Path, run: RunConfig) -> None:
    model = tmp_path / "model.pt"
    model.write_bytes(spoiled(kind, victim, tmp_path, run))
    with pytest.raises(DataError, match=r"model\.pt: not a saved classifier"):
        Classifier.load(model)
    assert not victim.exists()


def test_a_hostile_grid_is_only_an_error(any_store: Store, victim: Path) -> None:
    grids = {
        "python": f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{victim}']]",
        "binary": "\x00\x01",
        "list": "[1, 2]",
        "deep": "[" * 5000,
        "elsewhere": "name: ../../x\ndatasets: [digits]\ndistortions: ['1-0.0']\nmethods: [baseline]\nseeds: 1\n",
    }
    for name, text in grids.items():
        (any_store.root / "grids" / f"{name}.yaml").write_text(text)
    found = any_store.grids()
    assert found.keys() == grids.keys()
    assert all(isinstance(grid, ConfigError) for grid in found.values())
    assert not victim.exists()


def test_garbage_in_runs_changes_nothing(any_store: Store, run: RunConfig, victim: Path) -> None:
    folder = any_store.paths.run(run.run_id)
    (folder / "config.json").write_bytes(pickle.dumps(Payload(victim)))
    (folder / "failure.json").write_bytes(pickle.dumps(Payload(victim)))
    (folder / "earlier_failure.json").write_text(json.dumps({"attempts": "many"}))
    (any_store.root / "runs" / "a b").make_folder()
    (any_store.root / "runs" / "file").write_text("hello")
    assert any_store.status.failures()[run.run_id].last_line == "failure.json is damaged"
    assert any_store.status.states([run.run_id]) == {run.run_id: State.FAILED}
    list(execute(run, any_store))
    assert any_store.status.done() == {run.run_id}
    assert not victim.exists()


def test_curves_do_not_follow_links(store: Store, run: RunConfig, tmp_path: Path) -> None:
    from orchestration.cli.run_jobs import _tensorboard_dir
    from orchestration.tracking.trackers import TensorBoardTracker

    (tmp_path / "elsewhere").mkdir()
    folder = _tensorboard_dir(store)
    (folder / run.run_id).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is a symbolic link"):
        TensorBoardTracker(folder).epoch(run, {"epoch": 0, "val_error": 0.5})
    (folder / run.run_id).unlink()
    folder.rmdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="leads out of the store"):
        _tensorboard_dir(store)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_links_out_of_a_store_are_not_followed(store: Store, run: RunConfig, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "bashrc").write_text("mine")
    folder = Path(store.paths.run(run.run_id))
    folder.mkdir()
    (folder / "log.txt").symlink_to(outside / "bashrc")
    (folder / "config.json").symlink_to(outside / "bashrc")
    with pytest.raises(StoreError, match=r"log\.txt: cannot be written"):
        next(execute(run, Store(store.uri, patience=0)))
    (folder / "log.txt").unlink()
    list(execute(run, store))
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"bashrc": "mine"}

    other = run.model_copy(update={"seed": 1})
    Path(store.paths.run(other.run_id)).symlink_to(outside)
    with pytest.raises(StoreError, match="leads out of the store"):
        next(execute(other, store))
    (Path(store.paths.results) / "far.parquet").symlink_to(outside / "bashrc")
    assert store.status.done() == {run.run_id}
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"bashrc": "mine"}
