"""Grids on a real Ray with real training on digits."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from autodo.config import RunConfig
from autodo.errors import ConfigError
from autodo.recipes import build_run
from orchestration.grid import ResourcesConfig
from orchestration.progress import GridProgress
from orchestration.run_state import State
from orchestration.store import Store
from tests.orchestration.conftest import SMALL

# Ray 2.60 leaves sockets and files of its own processes to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
ROOT = Path(__file__).parents[2]
Launch = Callable[..., GridProgress]


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """`launch(runs, store)` on one local Ray with two CPUs; `launch.out` is not kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # for Ray's token
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.chdir(ROOT)
        # Before Ray: it sets the environment that Ray reads at its import.
        from orchestration import launch as on_ray

        import ray  # isort: skip

        with on_ray._temporary_directory(Path("/tmp")) as scratch:
            ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                _temp_dir=str(scratch),
                log_to_driver=False,
                logging_level="ERROR",
            )

            def call(runs: list[RunConfig], store: Store, out: io.StringIO | None = None) -> GridProgress:
                console = Console(file=out or io.StringIO(), width=120)
                return on_ray.launch(runs, store, ResourcesConfig(), console)

            yield call
            ray.shutdown()


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
    import torch

    from orchestration.execute import execute

    run, alone = small("autodo-exact-aws"), Store(tmp_path / "alone").create()
    launch([run], store)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of several threads round otherwise
    list(execute(run, alone))
    torch.set_num_threads(threads)
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


def test_a_process_that_dies_is_a_failed_run_and_the_others_go_on(launch: Launch, store: Store) -> None:
    long, short = small(**{"training.epochs": 5000}), [small(seed=seed) for seed in (1, 2)]
    killed = threading.Event()

    def kill() -> None:
        log, deadline = store.log_file(long.run_id), time.monotonic() + 60
        while time.monotonic() < deadline:
            if log.exists() and "epoch 2" in (text := log.read_text()):
                os.kill(int(text.split(" on ")[1].split(",")[0].rpartition(":")[2]), signal.SIGKILL)
                killed.set()
                return
            time.sleep(0.1)

    killer = threading.Thread(target=kill)
    killer.start()
    progress = launch([long, *short], store)
    killer.join()
    assert killed.is_set()
    assert list(progress.failed) == [long.run_id]
    assert store.done() == {run.run_id for run in short}
    failure = store.failures()[long.run_id]
    assert failure.kind == "ProcessDied"
    assert "actor" in failure.traceback
    assert store.checkpoint(long.run_id).exists()


def test_a_run_that_another_process_works_on_is_left_to_it(launch: Launch, store: Store) -> None:
    run = small()
    with store.locked_log(run.run_id):
        progress = launch([run], store)
    assert (progress.busy, progress.done, progress.failed) == (1, 0, {})
    assert store.failures() == {}


def test_resources_that_no_machine_has_are_told_at_once(launch: Launch, store: Store) -> None:
    from orchestration import launch as on_ray

    with pytest.raises(ConfigError, match="a run needs 64 CPUs and 0 GPUs, but this machine has 2 and 0"):
        on_ray.launch([small()], store, ResourcesConfig(cpus=64), Console(file=io.StringIO()))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:10001", "head", "127.0.0.1:99999"])
def test_an_address_where_nothing_answers_is_told_at_once(launch: Launch, address: str) -> None:
    from orchestration import launch as on_ray

    with pytest.raises(ConfigError, match=f"--address '{address}'"):
        on_ray._check_address(address)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_launch_ends_cleanly_and_the_same_command_continues(tmp_path: Path, stop: signal.Signals) -> None:
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
        first.send_signal(stop)
        out, _ = first.communicate(timeout=60)
    assert first.returncode == 130, out
    assert "of 4 runs are done; the same command continues" in out
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
