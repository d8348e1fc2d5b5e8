"""A store, a run that is small and real, and a Ray."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autodo.config import RunConfig
from autodo.recipes import build_run
from orchestration import lease
from orchestration.grid import ResourcesConfig
from orchestration.progress import GridProgress
from orchestration.run_queue import Work
from orchestration.store import Store

ROOT = Path(__file__).parents[2]
Launch = Callable[..., GridProgress]
SMALL = {"training.epochs": 3, "dataset.subsample": 300}


@pytest.fixture(scope="session", autouse=True)
def _home_of_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray keeps its token in HOME, and a process reads it only once: so there is one HOME for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").create()


@pytest.fixture(params=["local", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store on a path, and one in an object store."""
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.05)
    if request.param == "local":
        return Store(tmp_path / "store").create()
    return Store(f"{request.getfixturevalue('bucket')}/a/store").create()


@pytest.fixture
def run() -> RunConfig:
    """Three epochs of well under a second each."""
    return build_run("digits", "baseline", overrides=SMALL)


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    """`launch(runs, store)` on one local Ray with two CPUs; `launch.out` is not kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        # Before Ray: it sets the environment that Ray reads at its import.
        from orchestration import launch as on_ray
        from orchestration.cluster import Cluster
        from orchestration.scratch import scratch_directory

        import ray  # isort: skip

        with scratch_directory(Path("/tmp")) as scratch:
            ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                _temp_dir=str(scratch),
                log_to_driver=False,
                logging_level="ERROR",
            )

            def call(
                runs: list[RunConfig], store: Store, out: io.StringIO | None = None, **options: Any
            ) -> GridProgress:
                console = Console(file=out or io.StringIO(), width=200)
                works = [Work(run.run_id, run, ResourcesConfig()) for run in runs]
                return on_ray.launch(works, store, console, cluster=Cluster(), options=on_ray.Options(**options))

            yield call
            ray.shutdown()
