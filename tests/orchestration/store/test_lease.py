"""Who is at work on a run in an object store."""

import datetime
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autodo.config.run import RunConfig
from autodo.errors import StoreError
from autodo.io.storage import Location
from orchestration.execution.execute import execute
from orchestration.store import lease
from orchestration.store.run_state import RunBusy, State
from orchestration.store.store import Store


@pytest.fixture
def store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.05)
    return Store(f"{bucket}/store").create()


def holder(seconds_ago: float = 0.0, **changes: object) -> lease.Holder:
    """A holder on another machine."""
    when = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds_ago)
    values = {"owner": "other", "host": "far", "machine": "far", "pid": 1, "process_start": "1", "time": when}
    return lease.Holder.model_validate(values | changes)


def put(store: Store, run: RunConfig, content: lease.Holder | str) -> None:
    text = content if isinstance(content, str) else content.model_dump_json()
    (store.paths.run(run.run_id) / "lease.json").write_text(text)


def test_a_fresh_lease_of_another_machine_is_respected(store: Store, run: RunConfig) -> None:
    put(store, run, holder(seconds_ago=30))
    assert store.status.at_work(run.run_id)
    with pytest.raises(RunBusy, match=r"far:1 executes it; see s3://"), store.attempt(run.run_id):
        pass
    assert store.status.at_work(run.run_id)


@pytest.mark.parametrize("content", ["stale", "", "{", '{"owner": 3}'])
def test_a_stale_or_damaged_lease_is_taken_over(store: Store, run: RunConfig, content: str) -> None:
    put(store, run, holder(seconds_ago=60) if content == "stale" else content)
    assert not store.status.at_work(run.run_id)
    with store.attempt(run.run_id):
        assert store.status.at_work(run.run_id)
    assert not store.status.at_work(run.run_id)
    assert "lease.json" not in store.paths.run(run.run_id).names()


def test_a_killed_process_of_this_machine_leaves_the_run_free_at_once(store: Store, run: RunConfig) -> None:
    code = (
        "import sys; from orchestration.store.store import Store\n"
        f"with Store({store.uri!r}).attempt({run.run_id!r}):\n"
        "    print('begun', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"begun\n"
        assert store.status.at_work(run.run_id)
        with pytest.raises(RunBusy), store.attempt(run.run_id):
            pass
        other.kill()
        other.wait()
    assert not store.status.at_work(run.run_id)
    with store.attempt(run.run_id):
        pass


def test_a_reused_process_id_is_another_process(store: Store, run: RunConfig) -> None:
    put(store, run, holder(machine=lease._machine(), pid=os.getpid(), process_start="12"))
    assert not store.status.at_work(run.run_id)


def test_a_zombie_process_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        start = lease._process_start(other.pid)
        claim = holder(machine=lease._machine(), pid=other.pid, process_start=start)
        assert start
        assert claim.alive
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert lease._process_start(other.pid) == ""
        assert not claim.alive
    assert lease._process_start(other.pid) == "", "not even its number is known"


def test_a_machine_is_identified_by_name_boot_and_namespace() -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/pid").readlink()
    assert lease._machine() == f"{socket.gethostname()} {boot} {namespace}"


def test_a_lease_names_this_process_and_release_ends_the_renewal(
    store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.001)
    place = store.paths.run(run.run_id) / "lease.json"
    claim = lease.Lease(place)
    claim.acquire()
    found = lease.read(place)
    assert found is not None
    ours = (socket.gethostname(), lease._machine(), os.getpid(), lease._process_start(os.getpid()))
    assert (found.host, found.machine, found.pid, found.process_start) == ours
    assert found.alive
    claim.check()
    claim.release()
    assert "lease" not in {thread.name for thread in threading.enumerate()}
    assert lease.read(place) is None, "and no late renewal brings it back"


def test_a_lease_written_by_an_earlier_try_is_recognised(store: Store, run: RunConfig) -> None:
    """An earlier try may have been written although the storage did not say so."""
    claim = lease.Lease(store.paths.run(run.run_id) / "lease.json")
    claim._write()
    claim.acquire()
    claim.release()


def test_a_lease_that_another_has_taken_over_is_not_released(store: Store, run: RunConfig) -> None:
    place = store.paths.run(run.run_id) / "lease.json"
    claim = lease.Lease(place)
    claim.acquire()
    put(store, run, holder())
    claim.release()
    assert lease.read(place) is not None


def test_renewal_and_release_survive_a_storage_outage(
    store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.001)
    claim, asked, away = lease.Lease(store.paths.run(run.run_id) / "lease.json"), [], threading.Event()
    read = lease.read

    def answers_not(place: Location) -> lease.Holder | None:
        asked.append(away.is_set())
        if away.is_set():
            raise StoreError("no answer")
        return read(place)

    monkeypatch.setattr(lease, "read", answers_not)
    claim.acquire()
    away.set()
    wait_until(lambda: asked.count(True) > 2)
    claim.check()
    put(store, run, holder())  # now, when no renewal can be between its look and its claim
    away.clear()
    wait_until(lambda: not claim._thread.is_alive())
    with pytest.raises(RunBusy, match=r"far:1 has taken this run over \(s3://"):
        claim.check()
    away.set()
    claim.release()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_lease_is_renewed(store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    place = store.paths.run(run.run_id) / "lease.json"
    with store.attempt(run.run_id):
        first = second = lease.read(place)
        assert first is not None
        deadline = time.monotonic() + 60
        while second == first and time.monotonic() < deadline:
            time.sleep(0.01)
            second = lease.read(place)
        assert second is not None
        assert second.time > first.time
        assert second == first.model_copy(update={"time": second.time})


def test_a_process_that_loses_the_lease_stops_and_writes_nothing(
    store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    place = store.paths.run(run.run_id) / "lease.json"
    epochs = execute(run, store)
    next(epochs)
    while not store.status.last_log_line(run.run_id):  # which is uploaded after the checkpoint
        time.sleep(0.05)
    while store.status.at_work(run.run_id) and lease.read(place).owner != "other":
        put(store, run, holder())
        time.sleep(0.5)  # in which a renewal that was under way ends
    store.paths.checkpoint(run.run_id).write_bytes(b"the other's")
    store.paths.log(run.run_id).write_text("the other's")
    with pytest.raises(RunBusy, match="far:1 has taken this run over"):
        list(epochs)
    found = lease.read(place)
    assert found is not None
    assert found.owner == "other"
    assert store.paths.checkpoint(run.run_id).read_bytes() == b"the other's"
    assert store.paths.log(run.run_id).read_text() == "the other's"
    assert store.status.states([run.run_id]) == {run.run_id: State.STARTED}


def test_the_last_writer_of_two_simultaneous_claims_continues(
    store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, slept = store.paths.run(run.run_id) / "lease.json", []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        put(store, run, holder())

    monkeypatch.setattr(time, "sleep", sleep)
    claim = lease.Lease(place)
    with pytest.raises(RunBusy, match="far:1 began at the same moment; see s3://"):
        claim.acquire()
    assert slept == [lease.SETTLE_SECONDS]
    assert not claim._thread.is_alive()
    place.delete()
    monkeypatch.setattr(time, "sleep", lambda _: place.delete())
    with pytest.raises(RunBusy, match="another process began at the same moment"):
        lease.Lease(place).acquire()


def test_asking_for_the_lock_does_not_disturb_an_attempt(tmp_path: Path, run: RunConfig) -> None:
    store = Store(tmp_path / "store").create()
    assert not store.status.at_work(run.run_id)
    ask = (
        f"from orchestration.store.store import Store\ns = Store({store.uri!r})\nprint('asking', flush=True)\n"
        f"while True: s.status.at_work({run.run_id!r})"
    )
    with subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == b"asking\n"
        for _ in range(200):
            with store.attempt(run.run_id):
                assert store.status.at_work(run.run_id)
        assert watcher.poll() is None
        watcher.kill()
    assert not store.status.at_work(run.run_id)
