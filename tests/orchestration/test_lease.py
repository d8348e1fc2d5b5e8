"""Who is at work on a run in an object store."""

import datetime
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autodo.config import RunConfig
from orchestration import lease
from orchestration.execute import execute
from orchestration.run_state import RunBusy, State
from orchestration.store import Store


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
    (store.run_dir(run.run_id) / "lease.json").write_text(text)


def test_a_fresh_lease_of_another_machine_is_respected(store: Store, run: RunConfig) -> None:
    put(store, run, holder(seconds_ago=30))
    assert store.at_work(run.run_id)
    with pytest.raises(RunBusy, match=r"far:1 is at work on it; see s3://"), store.attempt(run.run_id):
        pass
    assert store.at_work(run.run_id)


@pytest.mark.parametrize("content", [holder(seconds_ago=61), "", "{", '{"owner": 3}'])
def test_a_stale_or_damaged_lease_is_taken_over(store: Store, run: RunConfig, content: lease.Holder | str) -> None:
    put(store, run, content)
    assert not store.at_work(run.run_id)
    with store.attempt(run.run_id):
        assert store.at_work(run.run_id)
    assert not store.at_work(run.run_id)
    assert "lease.json" not in store.run_dir(run.run_id).names()


def test_a_killed_process_of_this_machine_leaves_the_run_free_at_once(store: Store, run: RunConfig) -> None:
    code = (
        "import sys; from orchestration.store import Store\n"
        f"with Store({store.uri!r}).attempt({run.run_id!r}):\n"
        "    print('begun', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"begun\n"
        assert store.at_work(run.run_id)
        with pytest.raises(RunBusy), store.attempt(run.run_id):
            pass
        other.kill()
        other.wait()
    assert not store.at_work(run.run_id)
    with store.attempt(run.run_id):
        pass


def test_a_process_id_that_was_given_again_is_another_process(store: Store, run: RunConfig) -> None:
    put(store, run, holder(machine=lease._machine(), pid=os.getpid(), process_start="12"))
    assert not store.at_work(run.run_id)


def test_a_lease_is_renewed(store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    place = store.run_dir(run.run_id) / "lease.json"
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


def test_who_loses_the_lease_stops_and_leaves_all_to_the_other(
    store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    place = store.run_dir(run.run_id) / "lease.json"
    epochs = execute(run, store)
    next(epochs)
    while not store.last_log_line(run.run_id):  # which is uploaded after the checkpoint
        time.sleep(0.05)
    while store.at_work(run.run_id) and lease.read(place).owner != "other":
        put(store, run, holder())
        time.sleep(0.5)  # in which a renewal that was under way ends
    store.checkpoint(run.run_id).write_bytes(b"the other's")
    store.log_file(run.run_id).write_text("the other's")
    with pytest.raises(RunBusy, match="far:1 has taken this run over"):
        list(epochs)
    found = lease.read(place)
    assert found is not None
    assert found.owner == "other"
    assert store.checkpoint(run.run_id).read_bytes() == b"the other's"
    assert store.log_file(run.run_id).read_text() == "the other's"
    assert store.states([run.run_id]) == {run.run_id: State.STARTED}


def test_of_two_that_claim_at_once_the_last_writer_goes_on(
    store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = lease.Lease(store.run_dir(run.run_id) / "lease.json")
    monkeypatch.setattr(time, "sleep", lambda _: put(store, run, holder()))
    with pytest.raises(RunBusy, match="far:1 began at the same moment"):
        claim.acquire()


def test_asking_who_is_at_work_on_a_local_store_disturbs_nobody(tmp_path: Path, run: RunConfig) -> None:
    store = Store(tmp_path / "store").create()
    assert not store.at_work(run.run_id)
    ask = (
        f"from orchestration.store import Store\ns = Store({store.uri!r})\nprint('asking', flush=True)\n"
        f"while True: s.at_work({run.run_id!r})"
    )
    with subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == b"asking\n"
        for _ in range(200):
            with store.attempt(run.run_id):
                assert store.at_work(run.run_id)
        assert watcher.poll() is None
        watcher.kill()
    assert not store.at_work(run.run_id)
