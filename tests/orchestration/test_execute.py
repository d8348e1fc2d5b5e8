"""One run in this process, with real training on digits."""

import pyarrow.parquet as pq
import pytest
import torch

from autodo.classifier import Classifier
from autodo.config import RunConfig
from autodo.data import load
from autodo.errors import TrainingDiverged
from autodo.recipes import build_run
from orchestration.execute import execute
from orchestration.failures import record_failure
from orchestration.run_state import RunBusy, State
from orchestration.store import Store
from tests.orchestration.conftest import SMALL


def test_a_run_is_done_with_its_four_tables_and_its_log(store: Store, run: RunConfig) -> None:
    assert [metrics["epoch"] for metrics in execute(run, store)] == [0, 1, 2]
    assert store.done() == {run.run_id}
    for kind in ("results", "epochs", "predictions", "points"):
        table = pq.read_table(store.table_file(kind, run.run_id), partitioning=None)
        assert set(table["run_id"].to_pylist()) == {run.run_id}
    log = store.log_file(run.run_id).read_text()
    assert "from epoch 0 of 3" in log
    assert log.rstrip().endswith("done")
    assert not store.checkpoint(run.run_id).exists()
    assert not store.model_file(run.run_id).exists()


def test_the_classifier_is_kept_if_asked_for(store: Store, run: RunConfig) -> None:
    list(execute(run, store, keep_model=True))
    results = pq.read_table(store.table_file("results", run.run_id), partitioning=None)
    test = load(run.dataset).test
    predictions = Classifier.load(store.model_file(run.run_id))(torch.from_numpy(test.images)).argmax(1)
    assert (predictions.numpy() != test.labels).mean() == pytest.approx(results["error_best_val"][0].as_py())


def test_a_run_that_was_stopped_continues_and_ends_the_same(store: Store, run: RunConfig, tmp_path) -> None:
    whole = [metrics["val_error"] for metrics in execute(run, Store(tmp_path / "whole").create())]
    epochs = execute(run, store)
    before = [next(epochs)["val_error"]]
    epochs.close()
    assert store.done() == set()
    after = list(execute(run, store))
    assert [metrics["epoch"] for metrics in after] == [1, 2]
    assert before + [metrics["val_error"] for metrics in after] == whole
    assert "stopped" in store.log_file(run.run_id).read_text()


def test_a_done_run_is_not_run_again(store: Store, run: RunConfig) -> None:
    list(execute(run, store))
    written = store.table_file("results", run.run_id).stat().st_mtime_ns
    assert list(execute(run, store)) == []
    assert store.table_file("results", run.run_id).stat().st_mtime_ns == written


def test_a_run_at_work_is_busy_for_a_second_one(store: Store, run: RunConfig) -> None:
    epochs = execute(run, store)
    next(epochs)
    with pytest.raises(RunBusy):
        next(execute(run, store))
    epochs.close()


def test_a_failure_is_logged_and_kept(store: Store) -> None:
    run = build_run("digits", "baseline", overrides={**SMALL, "training.lr": 1e20})
    with pytest.raises(TrainingDiverged) as caught:
        list(execute(run, store))
    assert "TrainingDiverged" in store.log_file(run.run_id).read_text()
    failure = record_failure(store, run.run_id, caught.value)
    assert failure.kind == "TrainingDiverged"
    assert failure.last_line.startswith("the train loss is not finite in epoch 0")
    assert "execute.py" in failure.traceback


def test_a_failed_run_that_is_at_work_again_is_no_longer_failed(store: Store, run: RunConfig) -> None:
    record_failure(store, run.run_id, KeyError("lr"))
    assert store.states([run.run_id]) == {run.run_id: State.FAILED}
    epochs = execute(run, store)
    next(epochs)
    assert store.states([run.run_id]) == {run.run_id: State.STARTED}
    epochs.close()
    assert store.states([run.run_id]) == {run.run_id: State.STARTED}
