import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autodo import records
from autodo.config import RunConfig
from autodo.errors import ConfigError, StoreError, StoreRefused
from orchestration.grid import load_grid
from orchestration.run_state import RunBusy, State
from orchestration.store import Store
from reports.doctor.inspect_run import inspect_run
from reports.load import load_results
from tests.runs import outcome


def fail(store: Store, run: RunConfig, last_line: str = "boom") -> None:
    store.record_failure(run.run_id, kind="ValueError", last_line=last_line, traceback="Traceback\n  boom")


def test_a_run_goes_from_missing_over_started_and_failed_to_done(any_store: Store, run: RunConfig) -> None:
    store = any_store

    def state() -> State:
        return store.states([run.run_id])[run.run_id]

    assert state() is State.MISSING
    store.begin(run)
    assert state() is State.STARTED
    fail(store, run)
    assert state() is State.FAILED
    store.save(outcome(run), run.run_id)
    assert state() is State.DONE
    assert store.done() == {run.run_id}
    assert store.failures() == {}


def test_a_store_says_which_format_it_has_and_one_of_a_later_format_is_left_alone(
    any_store: Store, run: RunConfig
) -> None:
    store, file = any_store, any_store.root / "store.json"
    assert file.read_text() == '{"format": 2}\n'
    file.delete()  # as in a store that an earlier program made
    assert store.open().supported() is store
    with store.attempt(run.run_id):
        assert not file.exists()
    store.create()
    assert file.read_text() == '{"format": 2}\n'
    file.write_text('{"format": 3}')
    for use in (store.open, store.supported, store.create, store.attempt(run.run_id).__enter__):
        with pytest.raises(StoreRefused, match="a store of format 3, made by a later autodo"):
            use()
    for reader in (load_results, functools.partial(inspect_run, run_id=run.run_id)):
        with pytest.raises(StoreRefused, match="a store of format 3"):
            reader(store.root)
    assert file.read_text() == '{"format": 3}'


def test_a_store_whose_format_cannot_be_read_is_refused(store: Store) -> None:
    for content in ("", "3", "{}", '{"format": "2"}', '{"format": 0}', '{"format": true}', "[" * 10**5):
        (store.root / "store.json").write_text(content)
        with pytest.raises(StoreRefused, match=r"store\.json: damaged; in a store that this program made it holds"):
            store.open()


def test_a_store_that_cannot_be_written_can_be_read(store: Store) -> None:
    (store.root / "store.json").delete()
    Path(store.root).chmod(0o555)
    try:
        store.open()
        load_results(store.root)
    finally:
        Path(store.root).chmod(0o755)


def test_saving_removes_what_only_an_unfinished_run_needs(any_store: Store, run: RunConfig) -> None:
    store = any_store
    store.begin(run)
    store.checkpoint(run.run_id).write_bytes(b"weights")
    fail(store, run)
    store.save(outcome(run), run.run_id)
    assert store.run_dir(run.run_id).names() == {"config.json"}
    assert RunConfig.model_validate_json(store.config_file(run.run_id).read_bytes()) == run


def test_results_are_written_last(store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = records.write, []

    def write_until_the_disk_is_full(kind: records.Kind, rows: object, path: Path) -> None:
        if kind == "results":
            raise OSError(28, "No space left on device", str(path))
        written.append(kind)
        write(kind, rows, path)

    monkeypatch.setattr(records, "write", write_until_the_disk_is_full)
    store.begin(run)
    store.checkpoint(run.run_id).write_bytes(b"weights")
    store = Store(str(store), patience=0)
    embeddings = records.SCHEMAS["embeddings"].empty_table()
    with pytest.raises(StoreError, match=r"results/.*\.parquet: cannot be written: No space left on device"):
        store.save(dataclasses.replace(outcome(run), embeddings=embeddings), run.run_id)
    assert sorted(written) == ["embeddings", "epochs", "points", "predictions"]
    assert store.done() == set()
    assert store.checkpoint(run.run_id).exists()


def test_half_written_files_are_not_results(store: Store) -> None:
    (Path(store.results_dir) / ".digits_x.parquet.1234").write_bytes(b"PAR1")
    assert store.done() == set()


def test_failures_count_their_attempts_and_keep_the_last_traceback(any_store: Store, run: RunConfig) -> None:
    store = any_store
    fail(store, run, "first")
    fail(store, run, "second")
    (failure,) = store.failures().values()
    assert (failure.attempts, failure.last_line, failure.kind) == (2, "second", "ValueError")
    assert "Traceback" in failure.traceback


def test_a_failed_run_that_is_tried_again_is_started_and_keeps_its_count(any_store: Store, run: RunConfig) -> None:
    store = any_store
    store.begin(run)
    fail(store, run, "first")
    for _ in range(2):  # the second attempt ends without a word
        store.begin(run)
        assert store.states([run.run_id]) == {run.run_id: State.STARTED}
        assert store.failures() == {}
    fail(store, run, "second")
    assert store.states([run.run_id]) == {run.run_id: State.FAILED}
    (failure,) = store.failures().values()
    assert (failure.attempts, failure.last_line) == (2, "second")
    store.begin(run)
    store.save(outcome(run), run.run_id)
    assert store.run_dir(run.run_id).names() == {"config.json"}


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": 3}', b"\xff\xfe"])
def test_a_damaged_failure_is_a_failure_still(any_store: Store, run: RunConfig, content: bytes) -> None:
    store = any_store
    store.begin(run)
    store.failure_file(run.run_id).write_bytes(content)
    assert store.failures()[run.run_id].last_line == "failure.json is damaged"
    fail(store, run)
    assert store.failures()[run.run_id].last_line == "boom"


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", ".hidden", "a\nb", "/etc/passwd"])
def test_no_name_leads_out_of_the_store(any_store: Store, name: str) -> None:
    store = any_store
    for path in (store.run_dir, store.checkpoint, store.grid_file, lambda n: store.table_file("results", n)):
        with pytest.raises(StoreError, match="is not a run id"):
            path(name)


def test_what_is_not_a_store_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        Store(tmp_path / "none").open()
    with pytest.raises(StoreError, match="is not a store: it holds none of grids/, runs/, results/"):
        Store(tmp_path).open()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match="is not a store and not empty"):
        Store(tmp_path).create()
    with pytest.raises(StoreError, match="cannot be written: Not a directory"):
        Store(tmp_path / "thesis.tex").create()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_store_that_cannot_be_written_is_told_in_one_line(store: Store) -> None:
    Path(store.results_dir).chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        store.create()


def test_a_grid_comes_back_as_it_was_launched(any_store: Store) -> None:
    store = any_store
    grid = load_grid("quickstart").override({"training.epochs": 2})
    store.save_grid(grid)
    assert store.grids() == {"quickstart": grid}


def test_a_grid_that_cannot_be_read_is_an_error_of_its_own(any_store: Store) -> None:
    store = any_store
    store.save_grid(load_grid("quickstart"))
    store.grid_file("old").write_text("name: old\n")
    grids = store.grids()
    assert isinstance(grids["old"], ConfigError)
    assert grids["quickstart"] == load_grid("quickstart")


def test_a_run_is_locked_against_other_processes_and_free_when_they_die(store: Store, run: RunConfig) -> None:
    code = (
        "import sys; from orchestration.store import Store\n"
        f"with Store({store.uri!r}).attempt({run.run_id!r}):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(RunBusy, match="another process"), store.attempt(run.run_id):
            pass
        other.kill()
        other.wait()
    with store.attempt(run.run_id):
        pass
