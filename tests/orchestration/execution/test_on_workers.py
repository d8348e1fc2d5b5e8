"""Runs by two processes each, on a real Ray."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest

from autodo.config.run import RunConfig
from autodo.testing.process_groups import WorkerPool
from orchestration.planning.run_queue import RunQueue
from orchestration.store.run_state import Cause
from orchestration.store.store import Store
from tests.autodo.distributed import group_jobs as jobs
from tests.orchestration.execution.two_workers import MARKS, Launch, check_results, ray_with, small

pytestmark = MARKS
TRIAL = ("with_resources.<locals>.ResourceTrainable", "ALIVE")  # what Ray calls the actor of a trial


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    with ray_with(2) as launch:
        yield launch


def epochs_of(store: Store, run: RunConfig) -> dict[str, list[Any]]:
    table = pq.read_table(store.paths.table("epochs", run.run_id), partitioning=None)
    return {name: table[name].to_pylist() for name in ("epoch", "train_loss", "val_loss", "val_error", "test_error")}


def starts_of(store: Store, run: RunConfig) -> list[int]:
    """The epoch that each attempt began with."""
    return [int(epoch) for epoch in re.findall(r"from epoch (\d+)", store.paths.log(run.run_id).read_text())]


@pytest.mark.parametrize(
    "methods", [["autodo-exact-aws"], pytest.param(["baseline", "autodo-exact-aws"], marks=pytest.mark.long)]
)
def test_runs_by_two_workers_one_after_another(methods: list[str], launch: Launch, store: Store) -> None:
    runs = [small(method) for method in methods]
    progress = launch(runs, store, keep=("embeddings",))
    assert (progress.done, progress.failed) == (len(runs), {})
    for run in runs:
        check_results(store, run)
        embeddings, predictions = (
            pq.read_table(store.paths.table(kind, run.run_id), partitioning=None)
            for kind in ("embeddings", "predictions")
        )
        shared = ["index", "label", "prediction"]
        assert embeddings.select(shared).equals(predictions.select(shared))
        assert epochs_of(store, run)["epoch"] == [0, 1, 2]


class Killer(threading.Thread):
    """Sends SIGKILL to the workers of these ranks, one in each attempt, after the attempt's second epoch."""

    def __init__(self, store: Store, run_id: str, ranks: list[int]) -> None:
        super().__init__()
        self.log, self.ranks = store.paths.log(run_id), ranks
        self.killed: list[int] = []

    def run(self) -> None:
        deadline = time.monotonic() + 300
        while len(self.killed) < len(self.ranks) and time.monotonic() < deadline:
            time.sleep(0.05)
            attempts = self.log.read_text().split(" on ")[1:] if self.log.exists() else []
            if len(attempts) == len(self.killed) + 1 and attempts[-1].count("train loss") >= 2:
                workers = attempts[-1].split(",")[0].split(" + ")
                pid = int(workers[self.ranks[len(self.killed)]].rpartition(":")[2])
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)


@pytest.mark.long
def test_a_killed_worker_costs_an_attempt_and_no_bit_of_the_result(launch: Launch, store: Store) -> None:
    run = small("autodo-exact-ws", **{"training.epochs": 40, "outer.start_share": 0.1})
    pool = WorkerPool(2)
    (undisturbed, _) = pool.each(2, jobs.run, run)
    pool.close()
    killer = Killer(store, run.run_id, ranks=[1, 0])
    killer.start()
    progress = launch([run], store, retries=2)
    killer.join()
    assert len(killer.killed) == 2
    assert (progress.done, progress.failed) == (1, {})
    first, second, third = starts_of(store, run)
    assert first == 0
    assert 2 <= second < third, "every attempt continues from the checkpoint"
    for name, values in epochs_of(store, run).items():
        assert values == [row[name] for row in undisturbed["history"]], name


@pytest.mark.long
def test_a_killed_trial_leaves_nothing_that_the_next_attempt_waits_for(launch: Launch, store: Store) -> None:
    """Its workers, and the CPUs that are set aside for them, are not its own: Ray has to take them back."""
    from ray.util.state import list_actors

    run = small(**{"training.epochs": 200})
    log = store.paths.log(run.run_id)

    def kill() -> None:
        deadline = time.monotonic() + 200
        while not killed and time.monotonic() < deadline:
            time.sleep(0.05)
            if log.exists() and log.read_text().count("train loss") >= 2:
                # That of an earlier test may still be on its way out.
                trials = [actor for actor in list_actors(limit=1000) if (actor.class_name, actor.state) == TRIAL]
                if len(trials) == 1:
                    os.kill(trials[0].pid, signal.SIGKILL)
                    killed.append(trials[0].pid)

    killed: list[int] = []
    killer = threading.Thread(target=kill)
    killer.start()
    progress = launch([run], store, retries=1)
    killer.join()
    assert len(killed) == 1
    assert (progress.done, progress.failed) == (1, {})
    first, *_, last = starts_of(store, run)
    assert first == 0
    assert last >= 2


@pytest.mark.long
def test_a_killed_worker_is_reported_as_dead(launch: Launch, store: Store) -> None:
    run = small(**{"training.epochs": 1000})
    killer = Killer(store, run.run_id, ranks=[1])
    killer.start()
    progress = launch([run], store, retries=0)
    killer.join()
    assert list(progress.failed) == [run.run_id]
    failure = store.status.failures()[run.run_id]
    assert failure.cause is Cause.KILLED
    assert "died without a word" in failure.last_line
    assert "worker" in failure.traceback


@pytest.mark.long
@pytest.mark.parametrize(
    ("overrides", "kind", "cause", "message"),
    [
        ({"training.lr": 1e20}, "TrainingDiverged", Cause.DIVERGED, "is not finite in epoch 0"),
        ({"training.batch_size": 1}, "ConfigError", Cause.ERROR, "workers: 2 are too many, at most 1 can train"),
    ],
)
def test_a_run_fails_with_the_error_of_its_workers(
    launch: Launch, store: Store, overrides: dict[str, object], kind: str, cause: Cause, message: str
) -> None:
    run = small(**overrides)
    progress = launch([run], store, retries=0)
    assert message in progress.failed[run.run_id]
    failure = store.status.failures()[run.run_id]
    assert (failure.kind, failure.cause) == (kind, cause)
    assert re.search(r"in worker \d of 2:\nTraceback", failure.traceback)


@pytest.mark.long
def test_a_run_that_another_process_works_on_is_left_to_it(launch: Launch, store: Store) -> None:
    run = small()
    with store.attempt(run.run_id):
        progress = launch([run], store)
    assert (set(progress.busy), progress.done, progress.failed) == ({run.run_id}, 0, {})
    assert store.status.failures() == {}


@pytest.mark.long
def test_a_run_stops_at_the_end_of_an_epoch_and_goes_on_from_there(launch: Launch, store: Store) -> None:
    run = small(**{"training.epochs": 12})
    log = store.paths.log(run.run_id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunQueue, "stopping", property(lambda queue: log.exists() and "train loss" in log.read_text()))
        launch([run], store)
    assert log.read_text().count("train loss") == 1, "the workers wait for the word to go on"
    assert log.read_text().endswith("stopped; the next attempt continues from the checkpoint\n")
    assert launch([run], store).done == 1
    assert starts_of(store, run) == [0, 1]
