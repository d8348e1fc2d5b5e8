"""Runs by two processes each, on a real Ray."""

import contextlib
import io
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from autodo.config import RunConfig
from autodo.recipes import build_run
from orchestration.grid import ResourcesConfig
from orchestration.progress import GridProgress
from orchestration.run_queue import Work
from orchestration.run_state import Cause
from orchestration.store import Store
from tests.autodo import jobs_of_workers as jobs
from tests.orchestration.conftest import SMALL
from tests.workers import Pool

pytestmark = [
    pytest.mark.slow,
    # Ray 2.60 leaves sockets and files of its own processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]
ROOT = Path(__file__).parents[2]
Launch = Callable[..., GridProgress]


@contextlib.contextmanager
def ray_with(cpus: int, home: Path) -> Iterator[Launch]:
    """`launch(runs, store)` with two workers a run, on one local Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))  # for Ray's token
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.chdir(ROOT)
        # Before Ray: it sets the environment that Ray reads at its import.
        from orchestration import launch as on_ray
        from orchestration import on_workers
        from orchestration.cluster import Cluster, temporary_directory

        import ray  # isort: skip

        patch.setattr(on_ray, "RunTrial", on_workers.AnyRunTrial)
        patch.setattr(on_ray, "_request", on_workers.request)
        with temporary_directory(Path("/tmp")) as scratch:
            # Ray Train clears up after a killed controller through the dashboard.
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=True,
                _temp_dir=str(scratch),
                log_to_driver=False,
                logging_level="ERROR",
            )

            def call(runs: list[RunConfig], store: Store, **options: Any) -> GridProgress:
                works = [Work(run.run_id, run, ResourcesConfig(workers=2)) for run in runs]
                console = Console(file=io.StringIO(), width=200)
                settings = on_ray.Options(**{"max_concurrent": 1, **options})
                return on_ray.launch(works, store, console, cluster=Cluster(), options=settings)

            try:
                yield call
            finally:
                ray.shutdown()


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    with ray_with(2, tmp_path_factory.mktemp("home")) as launch:
        yield launch


def small(method: str = "baseline", seed: int = 0, **overrides: object) -> RunConfig:
    return build_run("digits", method, seed=seed, overrides={**SMALL, **overrides})


def epochs_of(store: Store, run: RunConfig) -> dict[str, list[Any]]:
    table = pq.read_table(store.table_file("epochs", run.run_id), partitioning=None)
    return {name: table[name].to_pylist() for name in ("epoch", "train_loss", "val_loss", "val_error", "test_error")}


def starts_of(store: Store, run: RunConfig) -> list[int]:
    """The epoch that each attempt began with."""
    return [int(epoch) for epoch in re.findall(r"from epoch (\d+)", store.log_file(run.run_id).read_text())]


def check_results(store: Store, run: RunConfig) -> None:
    (result,) = pq.read_table(store.table_file("results", run.run_id), partitioning=None).to_pylist()
    assert result["device"].endswith("1 threads, 2 workers")
    points = pq.read_table(store.table_file("points", run.run_id), partitioning=None)
    assert points["index"].to_pylist() == sorted(points["index"].to_pylist())
    assert len(points) == result["train_points"] == 240
    assert list(store.run_dir(run.run_id).glob("checkpoint*")) == []


def test_runs_by_two_workers_one_after_another(launch: Launch, store: Store) -> None:
    runs = [small(), small("autodo-exact-aws")]
    progress = launch(runs, store)
    assert (progress.done, progress.failed) == (2, {})
    for run in runs:
        check_results(store, run)
        assert epochs_of(store, run)["epoch"] == [0, 1, 2]


def test_runs_that_wait_for_each_others_cpus_all_end(tmp_path: Path, store: Store) -> None:
    """Three runs at a time want six of three CPUs: one CPU is always left over, and must help nobody to half a run."""
    runs = [small(seed=seed) for seed in range(3)]
    with ray_with(3, tmp_path) as launch:
        progress = launch(runs, store, max_concurrent=3)
    assert (progress.done, progress.failed) == (3, {})
    for run in runs:
        check_results(store, run)


class Killer(threading.Thread):
    """Sends SIGKILL to the workers of these ranks, one in each attempt, after the attempt's second epoch."""

    def __init__(self, store: Store, run_id: str, ranks: list[int]) -> None:
        super().__init__()
        self.log, self.ranks = store.log_file(run_id), ranks
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


def test_a_killed_worker_costs_an_attempt_and_no_bit_of_the_result(launch: Launch, store: Store) -> None:
    run = small("autodo-exact-ws", **{"training.epochs": 40, "outer.start_share": 0.1})
    pool = Pool(2)
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


def test_a_killed_worker_is_told_as_what_it_is(launch: Launch, store: Store) -> None:
    run = small(**{"training.epochs": 1000})
    killer = Killer(store, run.run_id, ranks=[1])
    killer.start()
    progress = launch([run], store, retries=0)
    killer.join()
    assert list(progress.failed) == [run.run_id]
    failure = store.failures()[run.run_id]
    assert failure.cause is Cause.KILLED
    assert "died without a word" in failure.last_line
    assert "worker" in failure.traceback


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
    failure = store.failures()[run.run_id]
    assert (failure.kind, failure.cause) == (kind, cause)
    assert re.search(r"in worker \d of 2:\nTraceback", failure.traceback)


def test_a_run_that_another_process_works_on_is_left_to_it(launch: Launch, store: Store) -> None:
    run = small()
    with store.locked_log(run.run_id):
        progress = launch([run], store)
    assert (set(progress.busy), progress.done, progress.failed) == ({run.run_id}, 0, {})
    assert store.failures() == {}


def test_a_run_stops_at_the_end_of_an_epoch_and_goes_on_from_there(launch: Launch, store: Store) -> None:
    run = small(**{"training.epochs": 12})
    launch([run], store, seconds=1)
    log = store.log_file(run.run_id).read_text()
    assert log.count("train loss") == 1
    assert "stopped; the next attempt continues from the checkpoint" in log
    assert launch([run], store).done == 1
    assert starts_of(store, run) == [0, 1]
