"""A node of a real Ray cluster on this machine goes away in the middle of a run."""

import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from orchestration.display.grid_progress import GridProgress
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import Job
from orchestration.store.run_state import Cause, Failure
from orchestration.store.store import Store
from tests.orchestration.undisturbed import alone, check_no_epoch_was_lost, metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head on which nothing runs; the driver is connected to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        # Before Ray: it sets the environment that Ray reads at its import.
        from orchestration.store.scratch import scratch_directory
        from orchestration.ray_cluster.cluster import Cluster  # noqa: F401  # isort: skip

        import ray  # isort: skip
        from ray import cluster_utils

        with scratch_directory(Path("/tmp")) as scratch:
            patch.setenv("RAY_TMPDIR", str(scratch))
            nodes = cluster_utils.Cluster(
                initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "dashboard_port": 0}
            )
            ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
            yield nodes
            ray.shutdown()
            nodes.shutdown()


class Launching(threading.Thread):
    """A launch in a thread, because nodes can be added in the main thread only."""

    def __init__(self, cluster: Any, runs: list[RunConfig], store: Store) -> None:
        super().__init__()
        self._address, self._runs, self._store = cluster.address, runs, store
        self.out = io.StringIO()
        self.progress: GridProgress | None = None

    def run(self) -> None:
        from orchestration.execution.options import LaunchSettings
        from orchestration.launch import launch
        from orchestration.ray_cluster.cluster import Cluster

        jobs = [Job(run.run_id, run, ResourcesConfig()) for run in self._runs]
        console = Console(file=self.out, width=200)
        # No retries: only what is no fault of the run is tried again.
        options = LaunchSettings(retries=0)
        self.progress = launch(jobs, self._store, console, cluster=Cluster(self._address), options=options)


def wait_for(what: Any, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def node_of(process: int, cluster: Any) -> Any:
    """The node whose raylet is an ancestor of the process."""
    raylets = {info.process.pid: node for node in cluster.worker_nodes for info in node.all_processes["raylet"]}
    while process not in raylets:
        process = psutil.Process(process).ppid()
    return raylets[process]


def preempt(cluster: Any, node: Any) -> None:
    """What an autoscaler does when a spot machine is taken back: it says so, and soon the machine is gone."""
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "drain-node"]
    command += ["--address", cluster.address, "--node-id", node.node_id]
    command += [
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "spot",
        "--deadline-remaining-seconds",
        "1",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    cluster.remove_node(node, allow_graceful=False)


LOSSES = {
    "it crashes": lambda cluster, node: cluster.remove_node(node, allow_graceful=False),
    "it is preempted": preempt,
    "it is shut down": lambda cluster, node: cluster.remove_node(node, allow_graceful=True),
}


@pytest.mark.parametrize(
    "loss",
    [pytest.param(loss, marks=[] if loss == "it crashes" else pytest.mark.long) for loss in LOSSES],
)
def test_a_run_whose_node_is_lost_continues_on_another(
    loss: str, cluster: Any, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = {"dataset.subsample": 300}
    run = build_run("digits", "autodo-exact-aws", overrides={**overrides, "training.epochs": 150})
    others = [
        build_run("digits", "baseline", seed=seed, overrides={**overrides, "training.epochs": 10}) for seed in range(4)
    ]
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    launching = Launching(cluster, [run, *others], store)
    launching.start()

    log = Path(store.paths.log(run.run_id))
    wait_for(lambda: log.exists() and " epoch 3: " in log.read_text())
    process = int(log.read_text().split(" on ")[1].split(",")[0].rpartition(":")[2])
    LOSSES[loss](cluster, node_of(process, cluster))

    def failure() -> Failure | None:
        return store.status.failure(run.run_id) or read(store.paths.earlier_failure(run.run_id))

    lost = wait_for(failure)
    assert (lost.cause, lost.attempts, lost.nodes_lost) == (Cause.NODE_LOST, 0, 1), lost.traceback
    cluster.add_node(num_cpus=1)
    launching.join(240)
    assert not launching.is_alive()
    assert launching.progress is not None
    assert (launching.progress.done, launching.progress.failed) == (5, {})
    assert "the node of the run was lost or preempted; it is tried again" in launching.out.getvalue()
    assert check_no_epoch_was_lost(log.read_text()) == 2
    for other in others:
        assert check_no_epoch_was_lost(Path(store.paths.log(other.run_id)).read_text()) == 1
    # Ray's own words about the death stay in failure.json. Only here may the agent of a killed node outlive its raylet
    # for a moment and report that: a machine that crashes takes both.
    printed = re.sub(r"\(raylet\)\S* Raylet is terminated.*", "", "".join(capsys.readouterr()), flags=re.DOTALL)
    assert "raylet" not in printed
    undisturbed = alone([run, *others], tmp_path / "undisturbed")
    for one in (run, *others):
        assert metrics(store, one.run_id) == metrics(undisturbed, one.run_id)
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node)


def read(path: Any) -> Failure | None:
    try:
        return Failure.model_validate_json(Path(path).read_bytes())
    except FileNotFoundError:
        return None
