"""Grids on a real Ray with real training on digits."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from autodo.config import RunConfig
from autodo.errors import ConfigError
from autodo.recipes import build_run
from orchestration.address import check_address
from orchestration.grid import ResourcesConfig
from orchestration.run_queue import Work
from orchestration.run_state import Cause, State
from orchestration.store import Store
from tests.orchestration.conftest import SMALL, Launch

# Ray 2.60 leaves sockets and files of its own processes to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
ROOT = Path(__file__).parents[2]


def small(method: str = "baseline", seed: int = 0, **overrides: object) -> RunConfig:
    return build_run("digits", method, seed=seed, overrides={**SMALL, **overrides})


def test_a_failed_run_is_recorded_and_the_others_go_on(launch: Launch, store: Store) -> None:
    bad = small(**{"training.lr": 1e20})
    good = [small(method, seed) for method in ("baseline", "autodo-exact-aws") for seed in (0, 1)]
    out = io.StringIO()
    progress = launch([bad, *good], store, out)
    assert progress.done == 4
    assert store.done() == {run.run_id for run in good}
    (failure,) = store.failures().values()
    assert failure.kind == "TrainingDiverged"
    assert progress.failed == {bad.run_id: failure.last_line}
    assert "failed: digits 1-0.0 baseline seed 0: the train loss is not finite" in out.getvalue()
    assert "4 of 5 runs done" in out.getvalue()


def test_a_run_on_ray_has_the_results_of_a_run_in_process(launch: Launch, store: Store, tmp_path: Path) -> None:
    from orchestration.execute import execute

    run, alone = small("autodo-exact-aws"), Store(tmp_path / "alone").create()
    launch([run], store, keep=("embeddings",))
    list(execute(run, alone, keep=["embeddings"]))
    embeddings = [pq.read_table(s.table_file("embeddings", run.run_id), partitioning=None) for s in (store, alone)]
    assert embeddings[0].equals(embeddings[1])
    tables = [pq.read_table(s.table_file("epochs", run.run_id), partitioning=None) for s in (store, alone)]
    for column in ("train_loss", "val_error", "test_error"):
        assert tables[0][column].to_pylist() == tables[1][column].to_pylist()


def test_one_process_runs_several_runs(launch: Launch, store: Store) -> None:
    launch([small(seed=seed) for seed in range(6)], store)
    workers = {
        line.split(" on ")[1].split(",")[0]
        for path in (Path(store.root) / "runs").glob("*/log.txt")
        for line in path.read_text().splitlines()
        if " on " in line
    }
    assert len(workers) <= 2


class Killer(threading.Thread):
    """Sends SIGKILL to the process of a run once its log says `when`, as often as `times`."""

    def __init__(self, store: Store, run_id: str, when: str = "epoch 2", times: int = 1) -> None:
        super().__init__()
        self._log, self._when, self._times = store.log_file(run_id), when, times
        self.killed: list[int] = []

    def run(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(self.killed) < self._times:
            time.sleep(0.05)
            text = self._log.read_text() if self._log.exists() else ""
            attempts = text.split(" on ")[1:]
            if not attempts or self._when not in attempts[-1]:
                continue
            pid = int(attempts[-1].split(",")[0].rpartition(":")[2])
            if pid not in self.killed:
                self.killed.append(pid)
                os.kill(pid, signal.SIGKILL)


def test_a_run_whose_process_dies_is_tried_again_and_ends_as_if_nothing_had_been(
    launch: Launch, store: Store, tmp_path: Path
) -> None:
    run, other = small("autodo-exact-aws", **{"training.epochs": 30}), small(seed=1)
    killer = Killer(store, run.run_id)
    killer.start()
    out = io.StringIO()
    progress = launch([run, other], store, out)
    killer.join()
    assert len(killer.killed) == 1
    assert (progress.done, progress.failed, progress.attempts_failed) == (2, {}, 1)
    assert "the process of the run died without a word" in out.getvalue()
    assert "it is tried again" in out.getvalue()
    assert "from epoch 0 of" not in store.log_file(run.run_id).read_text().split(" on ")[2]
    undisturbed = Store(tmp_path / "undisturbed").create()
    launch([run], undisturbed)
    tables = [pq.read_table(s.table_file("epochs", run.run_id), partitioning=None) for s in (store, undisturbed)]
    for column in ("train_loss", "val_loss", "val_error", "test_error"):
        assert tables[0][column].to_pylist() == tables[1][column].to_pylist()


def test_a_run_whose_process_dies_every_time_is_given_up_and_the_others_go_on(launch: Launch, store: Store) -> None:
    long, short = small(**{"training.epochs": 5000}), [small(seed=seed) for seed in (1, 2)]
    killer = Killer(store, long.run_id, when="val error", times=2)
    killer.start()
    progress = launch([long, *short], store, retries=1)
    killer.join()
    assert len(killer.killed) == 2
    assert list(progress.failed) == [long.run_id]
    assert store.done() == {run.run_id for run in short}
    failure = store.failures()[long.run_id]
    assert (failure.kind, failure.cause, failure.attempts) == ("ProcessDied", Cause.KILLED, 2)
    assert "actor" in failure.traceback
    assert store.checkpoint(long.run_id).exists()


def test_an_unforeseen_error_is_tried_again_in_another_process(launch: Launch, store: Store) -> None:
    run = small()
    # In the place of the file that holds its configuration stands a folder: the store cannot begin the run.
    Path(store.config_file(run.run_id)).mkdir(parents=True)
    progress = launch([run, small(seed=1)], store, retries=1)
    assert (progress.done, progress.attempts_failed) == (1, 2)
    assert store.failures()[run.run_id].attempts == 2
    assert "Is a directory" in store.failures()[run.run_id].last_line


def test_a_run_that_another_process_works_on_is_left_to_it_in_the_end(
    launch: Launch, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration import run_queue

    monkeypatch.setattr(run_queue, "PATIENCE_SECONDS", 4.0)
    run = small()
    with store.attempt(run.run_id):
        progress = launch([run], store)
    assert (progress.busy, progress.done, progress.failed) == ({run.run_id}, 0, {})
    assert store.failures() == {}


def test_a_run_that_another_process_lets_go_of_is_run(launch: Launch, store: Store) -> None:
    run = small()
    let_go = threading.Event()

    def hold() -> None:
        with store.attempt(run.run_id):
            let_go.wait(4.0)

    holder = threading.Thread(target=hold)
    holder.start()
    progress = launch([run], store)
    holder.join()
    assert (progress.busy, progress.done) == (set(), 1)


def test_when_the_time_is_over_runs_end_their_epoch_and_the_next_launch_continues(launch: Launch, store: Store) -> None:
    runs = [small(seed=seed, **{"training.epochs": 10_000}) for seed in range(4)]
    for seconds in (8.0, 30.0, 120.0):  # on a slow machine no run has begun in the first of them
        out = io.StringIO()
        progress = launch(runs, store, out, seconds=seconds)
        assert progress.stop_reason == "out of time"
        if progress.stopped:
            break
    assert "the time budget is over" in out.getvalue()
    assert progress.stopped
    begun = [run for run in runs if store.states([run.run_id])[run.run_id] is State.STARTED]
    assert {run.run_id for run in begun} == progress.stopped
    for run in begun:
        assert store.checkpoint(run.run_id).exists()
        assert not store.at_work(run.run_id)
        assert "stopped; the next attempt continues" in store.log_file(run.run_id).read_text()


def test_resources_that_no_machine_has_are_told_at_once(launch: Launch, store: Store) -> None:
    from orchestration import launch as on_ray
    from orchestration.cluster import Cluster

    run = small()
    work = Work(run.run_id, run, ResourcesConfig(cpus=64))
    with pytest.raises(ConfigError, match="a run needs 64 CPUs and 0 GPUs, and there is 2 CPUs and 0 GPUs"):
        on_ray.launch([work], store, Console(file=io.StringIO()), cluster=Cluster(), options=on_ray.Options())


def test_runs_that_wait_for_a_node_with_room_are_told_of(
    launch: Launch, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration import launch as on_ray
    from orchestration.cluster import Cluster

    monkeypatch.setattr(on_ray, "IDLE_SECONDS", 1.0)
    run, out = small(), io.StringIO()
    # A cluster that is not ours may yet grow such a node.
    progress = on_ray.launch(
        [Work(run.run_id, run, ResourcesConfig(cpus=64, memory=2**50))],
        store,
        Console(file=out, width=200),
        cluster=Cluster(address="auto"),
        options=on_ray.Options(seconds=4.0),
    )
    assert (progress.done, progress.failed, progress.stop_reason) == (0, {}, "out of time")
    told = (
        "no node has had room for a run for 1 s: a run needs 64 CPUs, 0 GPUs and 1048576.0 GiB of memory, and there is"
    )
    assert out.getvalue().count(told) == 1
    assert store.states([run.run_id]) == {run.run_id: State.MISSING}


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:10001", "head", "127.0.0.1:99999"])
def test_an_address_where_nothing_answers_is_told_at_once(launch: Launch, address: str) -> None:
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
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(Path(store.root).glob("runs/*/checkpoint.pt")):
            time.sleep(0.1)
        for stop in stops:
            first.send_signal(stop)
            time.sleep(0.3)
        out, _ = first.communicate(timeout=60)
    assert first.returncode == 130, out
    assert "of 4 runs are done; the same command continues" in out
    assert "stopping: each run ends its epoch" in out
    assert "Trial" not in out, "Tune says nothing"
    if len(stops) == 1:
        # Every run was told to stop after an epoch; none was cut off in the middle of one.
        logs = [path.parent.name for path in Path(store.root).glob("runs/*/checkpoint.pt")]
        assert all("stopped; the next" in store.log_file(run_id).read_text().splitlines()[-1] for run_id in logs)
    unfinished = [path.parent.name for path in Path(store.root).glob("runs/*/checkpoint.pt")]
    assert unfinished
    with start() as second:
        out, _ = second.communicate(timeout=180)
    assert second.returncode == 0, out
    assert "all 4 runs are done" in out
    assert set(store.states(store.run_ids()).values()) == {State.DONE}
    for run_id in unfinished:
        starts = [line for line in store.log_file(run_id).read_text().splitlines() if "from epoch" in line]
        assert "from epoch 0 " in starts[0]
        assert "from epoch 0 " not in starts[1]
