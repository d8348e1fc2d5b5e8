"""Stores that cannot be written for a while, with real full disks and real servers that are gone."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from autodo.config.run import RunConfig
from autodo.errors import StoreError
from autodo.training import checkpoint
from orchestration.execution.execute import execute
from orchestration.execution.options import ExecutionOptions
from orchestration.store import lease
from orchestration.store.run_state import State
from orchestration.store.store import Store
from tests.conftest import new_bucket, s3_server
from tests.orchestration.undisturbed import metrics
from tests.runs import outcome


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill_up(disk: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    return ballast


def later(seconds: float, action: object) -> threading.Timer:
    timer = threading.Timer(seconds, action)  # type: ignore[arg-type]
    timer.start()
    return timer


def test_a_full_disk_that_is_freed_loses_no_result(
    small_disk: Path, tmp_path: Path, run: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = Store(tmp_path / "undisturbed").create()
    list(execute(run, undisturbed))
    store = Store(small_disk / "store", patience=60).create()
    ballast = fill_up(small_disk)
    timer = later(2, ballast.unlink)
    with caplog.at_level(logging.INFO, "autodo"):
        rows = list(execute(run, store))
    timer.join()
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert store.status.done() == {run.run_id}
    assert len(store.paths.table("epochs", run.run_id).read_parquet()) == 3
    assert metrics(store, run.run_id) == metrics(undisturbed, run.run_id)
    assert "cannot be written: No space left on device; trying again" in caplog.text
    log = store.paths.log(run.run_id).read_text()
    assert "from epoch 0 of 3" in log
    assert log.endswith("done\n")
    assert not [path for path in small_disk.rglob(".*") if path.is_file()]


def test_a_checkpoint_that_does_not_fit_does_not_end_the_run(
    small_disk: Path, run: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(small_disk / "store", patience=30).create()
    epochs = execute(run, store, ExecutionOptions(checkpoint_every=1))
    next(epochs)
    good = store.paths.checkpoint(run.run_id).read_bytes()
    ballast = fill_up(small_disk)
    with caplog.at_level(logging.WARNING, "autodo"):
        next(epochs)
    assert "cannot be written, the next epoch tries again: No space left on device" in caplog.text
    assert store.paths.checkpoint(run.run_id).read_bytes() == good
    assert store.paths.run(run.run_id).names() == {"config.json", "log.txt", "checkpoint.pt"}
    assert not list(Path(store.paths.run(run.run_id)).glob(".*"))
    ballast.unlink()
    next(epochs)
    assert store.paths.checkpoint(run.run_id).read_bytes() != good
    assert list(epochs) == []
    assert store.status.done() == {run.run_id}
    log = store.paths.log(run.run_id).read_text()
    assert "the next epoch tries again" in log, "what could not be written at once is written later"


def test_a_missed_checkpoint_is_made_up_for_in_the_next_epoch(
    store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, asked = checkpoint.save, []

    def save_the_second_time(path: Path, run_id: str, state: dict, *rest: object, **more: object) -> bool:
        asked.append(state["epoch"])
        return len(asked) > 1 and save(path, run_id, state, *rest, **more)

    monkeypatch.setattr(checkpoint, "save", save_the_second_time)
    longer = run.model_copy(update={"training": run.training.model_copy(update={"epochs": 5})})
    list(execute(longer, store, ExecutionOptions(checkpoint_every=2)))
    assert asked == [2, 3, 4, 5]


def test_results_that_cannot_be_saved_at_all_leave_the_checkpoint(small_disk: Path, run: RunConfig) -> None:
    store = Store(small_disk / "store", patience=0.5).create()
    epochs = execute(run, store)
    for _ in range(3):
        next(epochs)
    ballast = fill_up(small_disk)
    with pytest.raises(StoreError, match=r"points/.*\.parquet: cannot be written: No space left on device"):
        list(epochs)
    assert store.status.done() == set()
    assert store.paths.checkpoint(run.run_id).exists()
    ballast.unlink()
    assert list(execute(run, store)) == []  # nothing is trained again
    assert store.status.done() == {run.run_id}


def test_a_folder_that_is_gone_for_a_while_loses_no_result(store: Store, run: RunConfig) -> None:
    results, aside = Path(store.paths.results), Path(store.root) / "aside"
    results.rename(aside)
    results.write_text("a file in its place")

    def mend() -> None:
        results.unlink()
        aside.rename(results)

    timer = later(1.5, mend)
    Store(store.uri, patience=30).save(outcome(run), run.run_id)
    timer.join()
    assert store.status.done() == {run.run_id}


def test_a_failure_that_cannot_be_kept_is_given_up_soon(
    store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autodo.io import retry as module
    from orchestration.store.failures import record_failure

    now = [0.0]
    monkeypatch.setattr(
        module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: now.append(now.pop() + s))
    )
    (Path(store.root) / "runs").rmdir()
    (Path(store.root) / "runs").write_text("a file in its place")
    assert record_failure(store, run.run_id, KeyError("lr")).last_line == "KeyError: 'lr'"
    assert now == [10.0], "seconds, where a result has five minutes"


@pytest.mark.slow
@pytest.mark.long
def test_a_server_that_is_gone_for_a_while_loses_no_result(
    tmp_path: Path, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Store(tmp_path / "undisturbed").create()
    list(execute(run, undisturbed))
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.05)
    with s3_server() as (url, server):
        store = Store(f"{new_bucket(url, monkeypatch)}/store", patience=120).create()
        epochs = execute(run, store)
        next(epochs)
        time.sleep(1)  # the first checkpoint is on its way
        os.kill(server.pid, signal.SIGSTOP)
        # Longer than Arrow's own attempts last.
        timer = later(45, lambda: os.kill(server.pid, signal.SIGCONT))
        rest = list(epochs)
        timer.join()
        assert [row["epoch"] for row in rest] == [1, 2]
        assert store.status.states([run.run_id]) == {run.run_id: State.DONE}
        assert metrics(store, run.run_id) == metrics(undisturbed, run.run_id)
        log = store.paths.log(run.run_id).read_text()
        assert "cannot be written" in log
        assert log.endswith("done\n")
        assert store.paths.run(run.run_id).names() == {"config.json", "log.txt"}
