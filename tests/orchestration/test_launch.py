"""Grids on a real Ray with real training on digits."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.errors import ConfigError
from orchestration.display.grid_progress import GridProgress
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import RunQueue
from orchestration.ray_cluster.address import check_address
from orchestration.store import failures
from orchestration.store.run_state import Cause, Failure, State
from orchestration.store.store import Store
from orchestration.tracking.delivery import delivering
from orchestration.tracking.settings import Tracking
from tests.orchestration.conftest import SMALL, Launch
from tests.orchestration.undisturbed import alone, check_no_epoch_was_lost, metrics

# Ray 2.60 leaves sockets and files of its own processes to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
ROOT = Path(__file__).parents[2]


def small(method: str = "baseline", seed: int = 0, **overrides: object) -> RunConfig:
    return build_run("digits", method, seed=seed, overrides={**SMALL, **overrides})


@dataclasses.dataclass
class Launched:
    """A launch that is over."""

    store: Store
    progress: GridProgress
    out: str
    reported: list[tuple[Any, ...]]
    """What a tracker was told, in the order of the calls."""

    def told_of(self, run: RunConfig) -> list[tuple[Any, ...]]:
        """The calls about a run, without its seed and without the messages of failures."""
        calls = [call for call in self.reported if call[1:2] == (run.run_id,)]
        return [(call[0], call[2]) for call in calls]


class Recorder:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def epoch(self, run: RunConfig, metrics: Any) -> None:
        self.calls.append(("epoch", run.run_id, metrics["epoch"]))

    def ended(self, run: RunConfig, state: str, message: str | None) -> None:
        self.calls.append(("ended", run.run_id, state, message))

    def close(self) -> None:
        self.calls.append(("close",))


def launch_and_keep(launch: Launch, runs: list[RunConfig], folder: Path, **options: Any) -> Launched:
    """A launch with a tracker, and all that is known of it."""
    store, out, recorder = Store(folder / "S").create(), io.StringIO(), Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracking, "trackers", lambda *_: {"Recorder": lambda: recorder})
        with delivering(Tracking(), grid="g", directory=folder, say=print) as trackers:
            progress = launch(runs, store, out, trackers=trackers, **options)
    return Launched(store, progress, out.getvalue(), recorder.calls)


# ----- one launch of runs of several kinds

BAD = small(**{"training.lr": 1e20})
GOOD = [small("baseline", seed) for seed in range(4)] + [small("autodo-exact-aws", seed) for seed in range(2)]


@pytest.fixture(scope="module")
def grid(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    return launch_and_keep(launch, [BAD, *GOOD], tmp_path_factory.mktemp("grid"), keep=("embeddings",))


def test_a_failed_run_is_recorded_and_the_others_go_on(grid: Launched) -> None:
    assert grid.progress.done == 6
    assert grid.store.status.done() == {run.run_id for run in GOOD}
    (failure,) = grid.store.status.failures().values()
    assert failure.kind == "TrainingDiverged"
    assert grid.progress.failed == {BAD.run_id: failure.last_line}
    assert "failed: digits 1-0.0 baseline seed 0: the train loss is not finite" in grid.out
    assert "6 of 7 runs done" in grid.out


def test_a_run_on_ray_has_the_results_of_a_run_in_process(grid: Launched, tmp_path: Path) -> None:
    here = alone(GOOD, tmp_path / "alone", keep=("embeddings",))
    for run in GOOD:
        assert metrics(grid.store, run.run_id) == metrics(here, run.run_id)
        embeddings = [store.paths.table("embeddings", run.run_id).read_parquet() for store in (grid.store, here)]
        assert embeddings[0].equals(embeddings[1])


def test_one_process_runs_several_runs(grid: Launched) -> None:
    workers = {
        line.split(" on ")[1].split(",")[0]
        for path in (Path(grid.store.root) / "runs").glob("*/log.txt")
        for line in path.read_text().splitlines()
        if " on " in line
    }
    assert len(workers) <= 2


def test_a_tracker_hears_of_every_epoch_and_every_end(grid: Launched) -> None:
    for run in GOOD:
        assert grid.told_of(run) == [("epoch", 0), ("epoch", 1), ("epoch", 2), ("ended", "done")]
    assert grid.told_of(BAD) == [("ended", "failed")]
    (message,) = [call[3] for call in grid.reported if call[1:3] == (BAD.run_id, "failed")]
    assert message == grid.progress.failed[BAD.run_id]
    assert grid.reported[-1] == ("close",)


# ----- a process that is killed

KILLED = small("autodo-exact-aws", **{"training.epochs": 60})
UNDISTURBED = [small(seed=seed) for seed in (1, 2)]


class Killer(threading.Thread):
    """Sends SIGKILL to the process of a run when its log tells of the third epoch, as often as `times`."""

    def __init__(self, store: Store, run_id: str, times: int = 1) -> None:
        super().__init__()
        self._log, self._times = store.paths.log(run_id), times
        self.killed: list[int] = []

    def run(self) -> None:
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline and len(self.killed) < self._times:
            time.sleep(0.01)
            attempts = self._log.read_text().split(" on ")[1:] if self._log.exists() else []
            if not attempts or "val error" not in attempts[-1] or "epoch 2" not in " ".join(attempts):
                continue
            pid = int(attempts[-1].split(",")[0].rpartition(":")[2])
            if pid not in self.killed:
                self.killed.append(pid)
                os.kill(pid, signal.SIGKILL)


def test_a_run_whose_process_dies_is_tried_again_and_ends_as_if_nothing_had_been(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.execution import supervisor

    deaths: list[tuple[str, Failure]] = []

    def record_death(store: Store, run_id: str, message: str) -> Failure:
        deaths.append((run_id, failures.record_death(store, run_id, message)))
        return deaths[-1][1]

    monkeypatch.setattr(supervisor, "record_death", record_death)
    killer = Killer(Store(tmp_path / "S").create(), KILLED.run_id)
    killer.start()
    launched = launch_and_keep(launch, [KILLED, *UNDISTURBED], tmp_path)
    killer.join()
    assert len(killer.killed) == 1
    ((run_id, failure),) = deaths
    assert (run_id, failure.kind, failure.cause, failure.attempts) == (KILLED.run_id, "ProcessDied", Cause.KILLED, 1)
    assert "actor" in failure.traceback, "all that Ray says"
    store, progress = launched.store, launched.progress
    assert (progress.done, progress.failed, progress.attempts_failed) == (3, {}, 1)
    assert store.status.done() == {run.run_id for run in (KILLED, *UNDISTURBED)}
    assert "autodo-exact-aws seed 0: the process of the run died without a word" in launched.out
    assert "it is tried again" in launched.out
    ends = [call for call in launched.told_of(KILLED) if call[0] == "ended"]
    assert ends == [("ended", "failed"), ("ended", "done")]
    assert (KILLED.run_id, "failed", failure.last_line) in [call[1:] for call in launched.reported]
    assert check_no_epoch_was_lost(store.paths.log(KILLED.run_id).read_text()) == 2
    assert "from epoch 0 of" not in store.paths.log(KILLED.run_id).read_text().split(" on ")[2]
    undisturbed = alone([KILLED], tmp_path / "undisturbed")
    assert metrics(store, KILLED.run_id) == metrics(undisturbed, KILLED.run_id)


@pytest.mark.slow
@pytest.mark.long  # test_launch_without_ray.py shows it
def test_a_run_whose_process_dies_every_time_is_given_up_and_the_others_go_on(launch: Launch, store: Store) -> None:
    bad = small(**{"training.epochs": 5000})
    killer = Killer(store, bad.run_id, times=2)
    killer.start()
    progress = launch([bad, *UNDISTURBED], store, retries=1)
    killer.join()
    assert len(killer.killed) == 2
    assert list(progress.failed) == [bad.run_id]
    assert store.status.done() == {run.run_id for run in UNDISTURBED}
    failure = store.status.failures()[bad.run_id]
    assert (failure.kind, failure.cause, failure.attempts) == ("ProcessDied", Cause.KILLED, 2)
    assert store.paths.checkpoint(bad.run_id).exists()


# ----- the end, and room


def test_at_the_end_of_the_time_budget_runs_end_their_epoch(
    launch: Launch, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [small(seed=seed, **{"training.epochs": 10_000}) for seed in range(4)]
    logs = [store.paths.log(run.run_id) for run in runs]
    out = io.StringIO()
    # However long it takes until a run is at work.
    over = property(lambda _: any(log.exists() and "train loss" in log.read_text() for log in logs))
    monkeypatch.setattr(RunQueue, "out_of_time", over)
    progress = launch(runs, store, out, max_concurrent=1)
    assert progress.stop_reason == "out of time"
    assert "the time budget is over" in out.getvalue()
    assert progress.stopped
    begun = [run for run in runs if store.status.states([run.run_id])[run.run_id] is State.STARTED]
    assert {run.run_id for run in begun} == progress.stopped
    for run in begun:
        assert store.paths.checkpoint(run.run_id).exists()
        assert not store.status.at_work(run.run_id)
        assert "stopped; the next attempt continues" in store.paths.log(run.run_id).read_text()


def test_resources_that_no_machine_has_are_refused_at_once(launch: Launch, store: Store) -> None:
    with pytest.raises(ConfigError, match="a run needs 64 CPUs and 0 GPUs, and the nodes have 2 CPUs and 0 GPUs"):
        launch([small()], store, resources=ResourcesConfig(cpus=64))


def test_runs_that_wait_for_a_node_with_room_are_reported(
    launch: Launch, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.execution import supervisor

    monkeypatch.setattr(supervisor, "IDLE_SECONDS", 0.5)
    run, out = small(), io.StringIO()
    monkeypatch.setattr(RunQueue, "out_of_time", property(lambda _: "no node" in out.getvalue()))
    # A cluster that is not ours may yet grow such a node.
    resources = ResourcesConfig(cpus=64, memory=2**50)
    progress = launch([run], store, out, address="auto", resources=resources)
    assert (progress.done, progress.failed, progress.stop_reason) == (0, {}, "out of time")
    assert "a run needs 64 CPUs, 0 GPUs and 1048576.0 GiB of memory, and the nodes have" in out.getvalue()
    assert store.status.states([run.run_id]) == {run.run_id: State.MISSING}


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:10001", "head", "127.0.0.1:99999"])
def test_an_address_where_nothing_answers_is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match=f"--address '{address}'"):
        check_address(address)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([signal.SIGINT], id="Ctrl-C"),
        pytest.param([signal.SIGINT, signal.SIGINT], id="Ctrl-C twice", marks=pytest.mark.long),
        pytest.param([signal.SIGTERM], id="SIGTERM", marks=pytest.mark.long),
    ],
)
def test_a_stopped_launch_ends_cleanly_and_the_same_command_continues(
    tmp_path: Path, stops: list[signal.Signals]
) -> None:
    grid = tmp_path / "g.yaml"
    grid.write_text(
        "name: g\ndatasets: [digits]\ndistortions: ['1-0.0']\nmethods: [baseline, autodo-exact-aws]\nseeds: 2\n"
        "set: {training.epochs: 60, dataset.subsample: 300}\n"
    )
    store = Store(tmp_path / "S")
    command = [sys.executable, "-m", "orchestration.cli", "launch", str(grid), "--store", store.uri]
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    with start() as first:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not list(Path(store.root).glob("runs/*/checkpoint.pt")):
            time.sleep(0.1)
        for stop in stops:
            first.send_signal(stop)
            time.sleep(0.3)
        out, _ = first.communicate(timeout=300)
    assert first.returncode == 130, out
    assert "of 4 runs are done; the same command continues" in out
    assert "stopping: each run ends its epoch" in out
    assert "Trial" not in out, "Tune says nothing"
    if len(stops) == 1:
        # Every run was told to stop after an epoch; none was cut off in the middle of one.
        logs = [path.parent.name for path in Path(store.root).glob("runs/*/checkpoint.pt")]
        assert all("stopped; the next" in store.paths.log(run_id).read_text().splitlines()[-1] for run_id in logs)
    unfinished = [path.parent.name for path in Path(store.root).glob("runs/*/checkpoint.pt")]
    assert unfinished
    with start() as second:
        out, _ = second.communicate(timeout=500)
    assert second.returncode == 0, out
    assert "all 4 runs are done" in out
    assert set(store.status.states(store.status.run_ids()).values()) == {State.DONE}
    for run_id in unfinished:
        starts = [line for line in store.paths.log(run_id).read_text().splitlines() if "from epoch" in line]
        assert "from epoch 0 " in starts[0]
        assert "from epoch 0 " not in starts[1]
