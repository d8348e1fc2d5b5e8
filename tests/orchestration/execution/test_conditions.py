"""What results say of the machine on which they were measured."""

import os
import socket

import pytest

from autodo.config.run import RunConfig
from autodo.results import records
from orchestration.execution.conditions import Conditions
from orchestration.execution.execute import execute
from orchestration.execution.options import ExecutionOptions, LaunchInfo
from orchestration.store.store import Store
from tests.runs import outcome


def test_conditions_are_columns_of_the_results(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 9.0, 9.0))
    before = outcome(run, error_best_val=0.25).results
    results = Conditions.now(LaunchInfo("abc", 4), resumed=True).add_to(before)
    assert results.schema.equals(records.SCHEMAS["results"])
    row = results.to_pylist()[0]
    assert {name: row.pop(name) for name in records.CONDITIONS} == {
        "launch_id": "abc",
        "host": socket.gethostname(),
        "host_cpus": os.cpu_count(),
        "slots": 4,
        "load_average": 1.5,
        "resumed": True,
    }
    assert row == {name: value for name, value in before.to_pylist()[0].items() if name in row}


def test_a_resumed_run_is_marked(store: Store, run: RunConfig) -> None:
    epochs = execute(run, store, ExecutionOptions(launch=LaunchInfo("first", 1)))
    next(epochs)
    epochs.close()
    list(execute(run, store, ExecutionOptions(launch=LaunchInfo("second", 2))))
    row = store.paths.table("results", run.run_id).read_parquet().to_pylist()[0]
    assert (row["launch_id"], row["slots"], row["resumed"]) == ("second", 2, True)
    other = run.model_copy(update={"seed": 1})
    list(execute(other, store))
    row = store.paths.table("results", other.run_id).read_parquet().to_pylist()[0]
    assert (row["launch_id"], row["slots"], row["resumed"]) == (None, None, False)
