"""Causes of failures: what an exception and what Ray's words mean. What Ray really says is tested with the faults."""

from pathlib import Path

import pytest
import torch

from autodo.config.run import RunConfig
from autodo.errors import DataError, StoreError, TrainingDiverged
from orchestration.store.failures import cause_of, cause_of_death, record_death, record_failure
from orchestration.store.run_state import Cause, State
from orchestration.store.store import Store


def out_of_host_memory() -> Exception:
    try:
        torch.empty(2**50)
    except RuntimeError as error:
        return error
    raise AssertionError("this machine has a petabyte of memory")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (KeyError("lr"), Cause.ERROR),
        (DataError("no images"), Cause.ERROR),
        (TrainingDiverged("train loss", 3, 2), Cause.DIVERGED),
        (MemoryError(), Cause.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), Cause.OUT_OF_MEMORY),
        (out_of_host_memory(), Cause.OUT_OF_MEMORY),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_cause_of_an_exception(error: Exception, cause: Cause) -> None:
    assert cause_of(error) is cause


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("The actor died because its node has died. Node Id: 3f", Cause.NODE_LOST),
        ("The node was lost: a worker was preempted", Cause.NODE_LOST),
        ("The actor f466 is unavailable: The actor is temporarily unavailable: RpcError", Cause.NODE_LOST),
        ("OutOfMemoryError: 2 worker(s) were killed due to the node running low on memory.", Cause.OUT_OF_MEMORY),
        ("Worker unexpectedly exits with a connection error code 2. End of file.", Cause.KILLED),
        ("", Cause.KILLED),
    ],
)
def test_the_cause_of_a_death(said: str, cause: Cause) -> None:
    assert cause_of_death(said) is cause


def test_the_class_of_a_foreign_error_is_part_of_its_line(store: Store, run: RunConfig) -> None:
    assert record_failure(store, run.run_id, KeyError("lr")).last_line == "KeyError: 'lr'"
    assert record_failure(store, run.run_id, DataError("no images")).last_line == "no images"


def test_a_death_keeps_the_message_of_ray(store: Store, run: RunConfig) -> None:
    record_death(store, run.run_id, "The actor died\nEnd of file.")
    failure = store.status.failures()[run.run_id]
    assert (failure.kind, failure.cause, failure.attempts) == ("ProcessDied", Cause.KILLED, 1)
    assert "End of file." in failure.traceback
    assert store.status.states([run.run_id]) == {run.run_id: State.FAILED}


def test_a_process_that_could_not_start_is_an_error_with_its_reason(store: Store, run: RunConfig) -> None:
    said = "The actor died because of an error in its creation task, …\nModuleNotFoundError: No module named 'x'\n"
    failure = record_death(store, run.run_id, said)
    assert failure.cause is Cause.ERROR
    assert failure.last_line == "the process could not start: ModuleNotFoundError: No module named 'x'"


def test_a_lost_node_is_not_counted_as_an_attempt(store: Store, run: RunConfig) -> None:
    for _ in range(3):
        failure = record_death(store, run.run_id, "its node has died")
    assert (failure.attempts, failure.nodes_lost) == (0, 3)
    failure = record_failure(store, run.run_id, KeyError("x"))
    assert (failure.attempts, failure.nodes_lost) == (1, 3)


def test_a_failure_that_cannot_be_written_is_returned(tmp_path: Path, run: RunConfig) -> None:
    (tmp_path / "file").touch()
    failure = record_failure(Store(tmp_path / "file", patience=0), run.run_id, StoreError("full"))
    assert (failure.last_line, failure.attempts) == ("full", 1)
