"""A store, a run that is small and real, the one Ray of all tests, and launches on it or without any Ray."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from orchestration.display.grid_progress import GridProgress
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import Job
from orchestration.store import lease
from orchestration.store.store import Store

if TYPE_CHECKING:  # not here, since it imports Ray
    from tests.orchestration.in_process import Actor, Tuner

ROOT = Path(__file__).parents[2]
Launch = Callable[..., GridProgress]
HEAD = {"num_cpus": 2, "include_dashboard": False, "dashboard_port": 0}
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


@pytest.fixture(scope="session")
def ray_nodes(_home_of_ray: None) -> Iterator[str]:
    """The address of a Ray of this machine with two CPUs, the one Ray of the whole test run.

    It is no process of ours that has to be connected to it, so that a module that needs a Ray of its own has one.
    """
    # Before Ray: it sets the environment that Ray reads at its import.
    from orchestration.store.scratch import scratch_directory

    from ray import cluster_utils  # isort: skip

    # Directly in /tmp: the path of a socket in it must stay below about 100 characters.
    with scratch_directory(Path("/tmp")) as scratch:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            patch.setenv("RAY_TMPDIR", str(scratch))
            for left in (2, 1, 0):
                try:
                    nodes = cluster_utils.Cluster(initialize_head=True, head_node_args=HEAD)
                    break
                except Exception:  # Ray gives its processes 30 s to start, which is little on a busy machine
                    if not left:
                        raise
        yield nodes.address
        nodes.shutdown()


@pytest.fixture(scope="module")
def shared_ray(ray_nodes: str) -> Iterator[None]:
    """This process is connected to the Ray of the test run, and what it left there goes with the module."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        ray.init(address=ray_nodes, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def launch(shared_ray: None) -> Iterator[Launch]:
    """`launch(runs, store)` on the Ray of the test run; what it prints is not kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield _launch


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> "type[Tuner]":
    """Launches take place in this process, on two CPUs that are not there; see `in_process`."""
    from orchestration import launch as on_ray
    from orchestration.search import find_policies
    from tests.orchestration.in_process import ActorPool, Tuner

    import ray  # isort: skip

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(find_policies, "ActorPool", type("ActorPool", (ActorPool,), {"dies": {}, "done": []}))
    monkeypatch.setattr(find_policies, "LOOK_SECONDS", 0.0)
    tuner = type("Tuner", (Tuner,), {})
    monkeypatch.setattr(on_ray.tune, "Tuner", tuner)
    return tuner


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> "Actor":
    """In the place of every training, one that only acts."""
    from orchestration.execution import trial
    from tests.orchestration.in_process import Actor

    actor = Actor()
    monkeypatch.setattr(trial, "execute", actor)
    return actor


@pytest.fixture
def launch_here(without_ray: "type[Tuner]") -> Launch:
    """`launch(runs, store)` in this process."""
    return _launch


def _launch(runs: list[RunConfig], store: Store, out: io.StringIO | None = None, **options: Any) -> GridProgress:
    from orchestration import launch as on_ray
    from orchestration.execution.options import LaunchSettings
    from orchestration.ray_cluster.cluster import Cluster

    trackers, address = options.pop("trackers", ()), options.pop("address", None)
    resources = options.pop("resources", ResourcesConfig())
    jobs = [Job(run.run_id, run, resources) for run in runs]
    return on_ray.launch(
        jobs,
        store,
        Console(file=out or io.StringIO(), width=200),
        cluster=Cluster(address),
        options=LaunchSettings(**options),
        trackers=trackers,
    )
