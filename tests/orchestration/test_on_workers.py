"""Runs by two processes each, on a real Ray."""

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
from tests.orchestration.conftest import SMALL

pytestmark = [
    pytest.mark.slow,
    # Ray 2.60 leaves sockets and files of its own processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]
ROOT = Path(__file__).parents[2]
TWO = ResourcesConfig(workers=2)
Launch = Callable[..., GridProgress]


@pytest.fixture(scope="module", params=[2, 3], ids=["2 CPUs", "3 CPUs"])
def launch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """`launch(runs, store)` with two workers a run, on one local Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # for Ray's token
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
                num_cpus=request.param,
                include_dashboard=True,
                _temp_dir=str(scratch),
                log_to_driver=False,
                logging_level="ERROR",
            )

            def call(
                runs: list[RunConfig], store: Store, resources: ResourcesConfig = TWO, **options: Any
            ) -> GridProgress:
                works = [Work(run.run_id, run, resources) for run in runs]
                console = Console(file=io.StringIO(), width=200)
                return on_ray.launch(works, store, console, cluster=Cluster(), options=on_ray.Options(**options))

            yield call
            ray.shutdown()


def small(method: str = "baseline", seed: int = 0, **overrides: object) -> RunConfig:
    return build_run("digits", method, seed=seed, overrides={**SMALL, **overrides})


def test_a_grid_of_runs_by_two_workers_ends(launch: Launch, store: Store) -> None:
    runs = [small(method, seed) for method in ("baseline", "autodo-exact-aws") for seed in (0, 1)]
    began = time.monotonic()
    progress = launch(runs, store)
    print("grid", time.monotonic() - began)
    assert (progress.done, progress.failed) == (4, {})
    for run in runs:
        (result,) = pq.read_table(store.table_file("results", run.run_id), partitioning=None).to_pylist()
        assert result["device"].endswith("1 threads, 2 workers")
        assert result["epochs"] == 3
        points = pq.read_table(store.table_file("points", run.run_id), partitioning=None)
        assert points["index"].to_pylist() == sorted(points["index"].to_pylist())
        assert len(points) == result["train_points"] == 240
        assert [path.name for path in store.run_dir(run.run_id).glob("checkpoint*")] == []
