"""One run in this process, with real training on digits."""

import json
import os
import socket
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import load
from autodo.data.stream.pool import loader_workers
from autodo.errors import DataError, TrainingDiverged
from autodo.results.classifier import Classifier
from autodo.results.model_card import model_card, to_markdown
from autodo.training.optimizers import SGD
from orchestration.execution.execute import execute
from orchestration.execution.options import ExecutionOptions
from orchestration.store.failures import record_failure
from orchestration.store.run_state import RunBusy, State
from orchestration.store.store import Store
from tests.orchestration.conftest import SMALL


def test_a_run_is_done_with_its_four_tables_and_its_log(any_store: Store, run: RunConfig) -> None:
    store = any_store
    assert [metrics["epoch"] for metrics in execute(run, store)] == [0, 1, 2]
    assert store.status.done() == {run.run_id}
    for kind in ("results", "epochs", "predictions", "points"):
        table = store.paths.table(kind, run.run_id).read_parquet()
        assert set(table["run_id"].to_pylist()) == {run.run_id}
    log = store.paths.log(run.run_id).read_text()
    assert "from epoch 0 of 3" in log
    assert log.rstrip().endswith("done")
    assert not store.paths.checkpoint(run.run_id).exists()
    assert not store.paths.model(run.run_id).exists()


def test_warnings_about_the_data_are_in_the_log_of_every_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "cache"))
    for number in range(40):
        file = tmp_path / "images" / f"class{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 6 * number, 9)).save(file)
    file.write_text("no image")
    settings = {"path": str(tmp_path / "images"), "image_size": 8, "stream": True, "damaged_limit": 0.1}
    overrides = {f"dataset.{name}": value for name, value in settings.items()}
    overrides |= {"model.name": "small-cnn", "training.epochs": 2, "training.warmup_epochs": 1}
    for seed in (0, 1):
        run = build_run("folder", "baseline", seed=seed, overrides=overrides)
        list(execute(run, store, ExecutionOptions(loader_workers=0)))
        log = store.paths.log(run.run_id).read_text()
        assert log.count("left out: 1 of 40 images are damaged: class1/39.png (not an image)") == 1


def test_the_classifier_is_kept_if_asked_for(any_store: Store, run: RunConfig, tmp_path: Path) -> None:
    store = any_store
    list(execute(run, store, ExecutionOptions(keep=("models",))))
    store.paths.model(run.run_id).fetch(model := tmp_path / "model.pt")
    results = store.paths.table("results", run.run_id).read_parquet()
    test = load(run.dataset).test
    classifier = Classifier.load(model)
    predictions = classifier(torch.from_numpy(test.images.read())).argmax(1)
    assert (predictions.numpy() != test.labels).mean() == pytest.approx(results["error_best_val"][0].as_py())
    card = store.paths.run(run.run_id) / "model.card.json"
    assert json.loads(card.read_text()) == model_card(classifier)
    assert (store.paths.run(run.run_id) / "model.card.md").read_text() == to_markdown(model_card(classifier))


def test_the_embeddings_are_kept_if_asked_for_also_of_a_run_that_began_without(
    any_store: Store, run: RunConfig
) -> None:
    store = any_store
    epochs = execute(run, store)
    next(epochs)
    epochs.close()
    list(execute(run, store, ExecutionOptions(keep=("models", "embeddings"))))
    embeddings = store.paths.table("embeddings", run.run_id).read_parquet()
    predictions = store.paths.table("predictions", run.run_id).read_parquet()
    shared = ["run_id", "index", "label", "prediction"]
    assert embeddings.select(shared).equals(predictions.select(shared))
    kept = (store.status.kept("embeddings", [run.run_id, "other"]), store.status.kept("models", [run.run_id, "other"]))
    assert kept == ({run.run_id}, {run.run_id})


def test_by_default_only_tables_are_kept(any_store: Store, run: RunConfig) -> None:
    list(execute(run, any_store))
    assert any_store.root.names() >= {"points", "predictions"}
    assert "embeddings" not in any_store.root.names()
    assert any_store.status.kept("embeddings", [run.run_id]) == any_store.status.kept("models", [run.run_id]) == set()


def test_a_run_that_was_stopped_continues_and_ends_the_same(any_store: Store, run: RunConfig, tmp_path) -> None:
    store = any_store
    whole = [metrics["val_error"] for metrics in execute(run, Store(tmp_path / "whole").create())]
    epochs = execute(run, store)
    before = [next(epochs)["val_error"]]
    epochs.close()
    assert store.status.done() == set()
    after = list(execute(run, store))
    assert [metrics["epoch"] for metrics in after] == [1, 2]
    assert before + [metrics["val_error"] for metrics in after] == whole
    assert "stopped" in store.paths.log(run.run_id).read_text()


def test_a_checkpoint_within_an_epoch_comes_to_the_store_before_the_epoch_ends(
    any_store: Store, run: RunConfig, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = any_store
    run = build_run("digits", "autodo-exact-ws", overrides={**SMALL, "training.batch_size": 32})
    whole = [metrics["val_loss"] for metrics in execute(run, Store(tmp_path / "whole").create())]
    taken: list[None] = []
    take_step = SGD.step

    def stops_at_the_fifth(*arguments: object, **options: object) -> object:
        if len(taken) == 4:
            deadline = time.monotonic() + 20
            while not store.paths.checkpoint(run.run_id).exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert store.paths.checkpoint(run.run_id).exists()
            raise KeyboardInterrupt
        taken.append(None)
        return take_step(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(SGD, "step", stops_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            list(execute(run, store, ExecutionOptions(checkpoint_steps=2)))
    after = [metrics["val_loss"] for metrics in execute(run, store, ExecutionOptions(checkpoint_steps=2))]
    assert after == whole
    assert "from epoch 0 of 3, step 4" in store.paths.log(run.run_id).read_text()


def test_loader_workers_are_set_during_a_run(store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTODO_LOADER_WORKERS", "5")
    epochs = execute(run, store, ExecutionOptions(loader_workers=3))
    next(epochs)
    assert loader_workers() == 3
    epochs.close()
    assert loader_workers() == 5
    monkeypatch.delenv("AUTODO_LOADER_WORKERS")
    list(execute(run, store, ExecutionOptions(loader_workers=0)))
    assert "AUTODO_LOADER_WORKERS" not in os.environ


def test_a_done_run_is_not_run_again(store: Store, run: RunConfig) -> None:
    list(execute(run, store))
    written = Path(store.paths.table("results", run.run_id)).stat().st_mtime_ns
    assert list(execute(run, store)) == []
    assert Path(store.paths.table("results", run.run_id)).stat().st_mtime_ns == written


def test_a_second_attempt_at_a_run_is_refused(any_store: Store, run: RunConfig) -> None:
    store = any_store
    epochs = execute(run, store)
    next(epochs)
    with pytest.raises(RunBusy):
        next(execute(run, store))
    epochs.close()


def test_a_failure_is_logged_and_kept(any_store: Store) -> None:
    store = any_store
    run = build_run("digits", "baseline", overrides={**SMALL, "training.lr": 1e20})
    with pytest.raises(TrainingDiverged) as caught:
        list(execute(run, store))
    assert "TrainingDiverged" in store.paths.log(run.run_id).read_text()
    failure = record_failure(store, run.run_id, caught.value)
    assert failure.kind == "TrainingDiverged"
    assert failure.last_line.startswith("the train loss is not finite in epoch 0")
    assert "execute.py" in failure.traceback


def test_a_failed_run_that_is_at_work_again_is_no_longer_failed(store: Store, run: RunConfig) -> None:
    record_failure(store, run.run_id, KeyError("lr"))
    assert store.status.states([run.run_id]) == {run.run_id: State.FAILED}
    epochs = execute(run, store)
    next(epochs)
    assert store.status.states([run.run_id]) == {run.run_id: State.STARTED}
    epochs.close()
    assert store.status.states([run.run_id]) == {run.run_id: State.STARTED}


def test_an_error_about_missing_data_names_the_node(store: Store, tmp_path: Path) -> None:
    run = build_run("mnist", "baseline")
    with pytest.raises(DataError, match=rf"^node {socket.gethostname()}: .*{tmp_path}/data"):
        next(execute(run, store, ExecutionOptions(data_dir=str(tmp_path / "data"))))


def test_the_last_line_of_the_log_is_read_alone(any_store: Store, run: RunConfig) -> None:
    assert any_store.status.last_log_line(run.run_id) == ""
    with any_store.attempt(run.run_id) as attempt:
        attempt.log.write("x" * 10_000 + "\n")
        attempt.log.write("the last\n")
    assert any_store.status.last_log_line(run.run_id) == "the last"


def test_the_checkpoint_is_in_the_store_while_the_run_goes_on(any_store: Store, run: RunConfig) -> None:
    epochs = execute(run, any_store)
    next(epochs)
    deadline = time.monotonic() + 30
    while not any_store.paths.checkpoint(run.run_id).exists() or not any_store.status.last_log_line(run.run_id):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert any_store.status.at_work(run.run_id)
    epochs.close()
    assert not any_store.status.at_work(run.run_id)
    assert any_store.status.last_log_line(run.run_id).endswith("continues from the checkpoint")
