"""A local Ray on which every run is trained by two workers."""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from orchestration.display.grid_progress import GridProgress
from orchestration.execution.options import LaunchSettings
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import Job
from orchestration.store.store import Store
from tests.orchestration.conftest import SMALL

ROOT = Path(__file__).parents[3]
Launch = Callable[..., GridProgress]
MARKS = [
    pytest.mark.slow,
    # Ray 2.60 leaves sockets and files of its own processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]


@contextlib.contextmanager
def ray_with(cpus: int) -> Iterator[Launch]:
    """`launch(runs, store)` with two workers a run, on one local Ray.

    With `joins` it is taken as a cluster that may still grow.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        # Before Ray: it sets the environment that Ray reads at its import.
        from orchestration import launch as on_ray
        from orchestration.ray_cluster.cluster import Cluster
        from orchestration.store.scratch import scratch_directory

        import ray  # isort: skip

        with scratch_directory(Path("/tmp")) as scratch:
            # Ray Train clears up after a killed controller through the dashboard.
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=True,
                _temp_dir=str(scratch),
                log_to_driver=False,
                logging_level="ERROR",
            )

            def call(
                runs: list[RunConfig],
                store: Store,
                *,
                workers: int = 2,
                joins: bool = False,
                file: io.StringIO | None = None,
                **options: Any,
            ) -> GridProgress:
                jobs = [Job(run.run_id, run, ResourcesConfig(workers=workers)) for run in runs]
                console = Console(file=file or io.StringIO(), width=200)
                settings = LaunchSettings(**{"max_concurrent": 1, **options})
                cluster = Cluster(address="auto" if joins else None)
                return on_ray.launch(jobs, store, console, cluster=cluster, options=settings)

            try:
                yield call
            finally:
                ray.shutdown()


def small(method: str = "baseline", seed: int = 0, **overrides: object) -> RunConfig:
    return build_run("digits", method, seed=seed, overrides={**SMALL, **overrides})


def check_results(store: Store, run: RunConfig) -> None:
    (result,) = pq.read_table(store.paths.table("results", run.run_id), partitioning=None).to_pylist()
    assert result["device"].endswith("1 thread, 2 workers")
    points = pq.read_table(store.paths.table("points", run.run_id), partitioning=None)
    assert points["index"].to_pylist() == sorted(points["index"].to_pylist())
    assert len(points) == result["train_points"] == 240
    assert store.paths.run(run.run_id).names() == {"config.json", "log.txt"}
