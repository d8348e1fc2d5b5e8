import dataclasses
import datetime
import functools
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from autodo.augment.policy_file import PolicyFile, fingerprint
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.errors import ConfigError, StoreError, StoreRefused
from autodo.io import retry as retry_module
from autodo.io.atomic import atomic_path
from autodo.results import records
from orchestration.grid.grid import load_grid
from orchestration.store.patience import retrying_storage
from orchestration.store.run_state import Cause, RunBusy, State
from orchestration.store.store import Store, process_name
from reports.label_errors.inspection import inspect_run
from reports.readers.load import load_results
from tests.runs import outcome


def fail(store: Store, run: RunConfig, last_line: str = "boom") -> None:
    store.record_failure(run.run_id, kind="ValueError", last_line=last_line, traceback="Traceback\n  boom")


def test_states_of_a_run(any_store: Store, run: RunConfig) -> None:
    store = any_store

    def state() -> State:
        return store.status.states([run.run_id])[run.run_id]

    assert state() is State.MISSING
    store.begin(run)
    assert state() is State.STARTED
    fail(store, run)
    assert state() is State.FAILED
    store.save(outcome(run), run.run_id)
    assert state() is State.DONE
    assert store.status.done() == {run.run_id}
    assert store.status.failures() == {}


def test_a_store_of_a_later_format_is_refused(any_store: Store, run: RunConfig) -> None:
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
        with pytest.raises(StoreRefused, match="a store of format 3, written by a later version of autodo"):
            use()
    for reader in (load_results, functools.partial(inspect_run, run_id=run.run_id)):
        with pytest.raises(StoreRefused, match="a store of format 3"):
            reader(store.root)
    assert file.read_text() == '{"format": 3}'


def test_a_store_whose_format_cannot_be_read_is_refused(store: Store) -> None:
    for content in ("", "3", "{}", '{"format": "2"}', '{"format": 0}', '{"format": true}', "[" * 10**5):
        (store.root / "store.json").write_text(content)
        with pytest.raises(StoreRefused, match=r"store\.json: damaged; in a store written by this version it contains"):
            store.open()


def test_a_store_that_cannot_be_written_can_be_read(store: Store) -> None:
    (store.root / "store.json").delete()
    Path(store.root).chmod(0o555)
    try:
        store.open()
        load_results(store.root)
    finally:
        Path(store.root).chmod(0o755)


def test_saving_removes_files_of_the_unfinished_run(any_store: Store, run: RunConfig) -> None:
    store = any_store
    store.begin(run)
    store.paths.checkpoint(run.run_id).write_bytes(b"weights")
    fail(store, run)
    store.save(outcome(run), run.run_id)
    assert store.paths.run(run.run_id).names() == {"config.json"}
    assert RunConfig.model_validate_json(store.paths.config(run.run_id).read_bytes()) == run


def test_results_are_written_last(store: Store, run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = records.write, []

    def write_until_the_disk_is_full(kind: records.Kind, rows: object, path: Path) -> None:
        if kind == "results":
            raise OSError(28, "No space left on device", str(path))
        written.append(kind)
        write(kind, rows, path)

    monkeypatch.setattr(records, "write", write_until_the_disk_is_full)
    store.begin(run)
    store.paths.checkpoint(run.run_id).write_bytes(b"weights")
    store = Store(str(store), patience=0)
    embeddings = records.SCHEMAS["embeddings"].empty_table()
    with pytest.raises(StoreError, match=r"results/.*\.parquet: cannot be written: No space left on device"):
        store.save(dataclasses.replace(outcome(run), embeddings=embeddings), run.run_id)
    assert sorted(written) == ["embeddings", "epochs", "points", "predictions"]
    assert store.status.done() == set()
    assert store.paths.checkpoint(run.run_id).exists()


def test_half_written_files_are_not_results(store: Store) -> None:
    (Path(store.paths.results) / ".digits_x.parquet.1234").write_bytes(b"PAR1")
    assert store.status.done() == set()


def test_failures_count_their_attempts_and_keep_the_last_traceback(any_store: Store, run: RunConfig) -> None:
    store = any_store
    fail(store, run, "first")
    fail(store, run, "second")
    (failure,) = store.status.failures().values()
    assert (failure.attempts, failure.last_line, failure.kind) == (2, "second", "ValueError")
    assert "Traceback" in failure.traceback


def test_a_failed_run_that_is_tried_again_is_started_and_keeps_its_count(any_store: Store, run: RunConfig) -> None:
    store = any_store
    store.begin(run)
    fail(store, run, "first")
    for _ in range(2):  # the second attempt ends without a word
        store.begin(run)
        assert store.status.states([run.run_id]) == {run.run_id: State.STARTED}
        assert store.status.failures() == {}
    fail(store, run, "second")
    assert store.status.states([run.run_id]) == {run.run_id: State.FAILED}
    (failure,) = store.status.failures().values()
    assert (failure.attempts, failure.last_line) == (2, "second")
    store.begin(run)
    store.save(outcome(run), run.run_id)
    assert store.paths.run(run.run_id).names() == {"config.json"}


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": 3}', b"\xff\xfe"])
def test_a_damaged_failure_file_is_a_failure(any_store: Store, run: RunConfig, content: bytes) -> None:
    store = any_store
    store.begin(run)
    store.paths.failure(run.run_id).write_bytes(content)
    assert store.status.failures()[run.run_id].last_line == "failure.json is damaged"
    fail(store, run)
    assert store.status.failures()[run.run_id].last_line == "boom"


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", ".hidden", "a\nb", "/etc/passwd"])
def test_no_name_leads_out_of_the_store(any_store: Store, name: str) -> None:
    store = any_store
    for path in (store.paths.run, store.paths.checkpoint, store.paths.grid, lambda n: store.paths.table("results", n)):
        with pytest.raises(StoreError, match="is not a run id"):
            path(name)


def test_a_path_that_is_not_a_store_is_an_error_of_one_line(tmp_path: Path) -> None:
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
def test_a_store_that_cannot_be_written_is_an_error_of_one_line(store: Store) -> None:
    Path(store.paths.results).chmod(0o500)
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
    store.paths.grid("old").write_text("name: old\n")
    grids = store.grids()
    assert isinstance(grids["old"], ConfigError)
    assert grids["quickstart"] == load_grid("quickstart")


def test_a_run_is_locked_until_its_process_dies(store: Store, run: RunConfig) -> None:
    code = (
        "import sys; from orchestration.store.store import Store\n"
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


# ----- names


def test_paths(any_store: Store) -> None:
    """Other programs and older stores know these names."""
    names = {
        any_store.paths.run("r"): "runs/r",
        any_store.paths.config("r"): "runs/r/config.json",
        any_store.paths.checkpoint("r"): "runs/r/checkpoint.pt",
        any_store.paths.model("r"): "runs/r/model.pt",
        any_store.paths.log("r"): "runs/r/log.txt",
        any_store.paths.failure("r"): "runs/r/failure.json",
        any_store.paths.earlier_failure("r"): "runs/r/earlier_failure.json",
        any_store.paths.table("results", "r"): "results/r.parquet",
        any_store.paths.table("points", "r"): "points/r.parquet",
        any_store.paths.policy("p"): "policies/p.json",
        any_store.paths.search("s"): "searches/s",
        any_store.paths.grid("g"): "grids/g.yaml",
        any_store.paths.results: "results",
        any_store.paths.report: "report",
    }
    assert {str(place): f"{any_store}/{name}" for place, name in names.items()} == {str(p): str(p) for p in names}


@pytest.mark.parametrize("name", ["a", "A-1", "digits_ir1.5_nr0+x", "0" * 200])
def test_names_of_files_are_ids(store: Store, name: str) -> None:
    assert store.paths.run(name).name == name


def test_an_error_says_the_kind_of_a_wrong_id(store: Store) -> None:
    for place, what in ((store.paths.policy, "policy"), (store.paths.search, "search"), (store.paths.run, "run")):
        with pytest.raises(StoreError, match=rf"^'\.\./x' is not a {what} id$"):
            place("../x")
    with pytest.raises(StoreError, match="is not a task id"), store.task_attempt("s", "../t"):
        pass


def test_the_name_of_a_process_has_host_and_pid() -> None:
    assert process_name() == f"{socket.gethostname()}:{os.getpid()}"


# ----- the store as a whole


def test_create_makes_a_store_and_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new"):
        store = Store(tmp_path / name)
        assert not store.exists
        assert store.create() is store
        assert {path.name for path in (tmp_path / name).iterdir()} == {"grids", "runs", "results", "store.json"}
        assert store.exists
        assert store.open() is store
    (tmp_path / "new" / "mine.txt").touch()
    (tmp_path / "new" / "runs").rmdir()
    Store(tmp_path / "new").create()
    assert (tmp_path / "new" / "runs").is_dir()


@pytest.mark.parametrize("folder", ["grids", "runs", "results"])
def test_any_of_its_folders_makes_a_store(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    assert Store(tmp_path).open().exists


def test_an_object_store_that_holds_something_else_is_refused(bucket: str) -> None:
    with pytest.raises(StoreError, match="no such store"):
        Store(f"{bucket}/none").open()
    (Store(f"{bucket}/other").root / "thesis.tex").write_bytes(b"x")
    with pytest.raises(StoreError, match="is not a store and not empty; give --store another directory"):
        Store(f"{bucket}/other").create()
    assert Store(f"{bucket}/new").create().uri == f"{bucket}/new"


# ----- what is done


def test_status_of_several_runs(any_store: Store, run: RunConfig) -> None:
    store = any_store
    done, failed, started, missing = (run.model_copy(update={"seed": seed}) for seed in range(4))
    for each in (failed, started):
        store.begin(each)
    store.save(outcome(done), done.run_id)
    fail(store, failed)
    (store.paths.results / "notes.txt").write_text("x")
    (store.root / "runs" / ".hidden").write_text("x")
    ids = [each.run_id for each in (missing, started, done, failed)]
    states = [State.MISSING, State.STARTED, State.DONE, State.FAILED]
    assert list(store.status.states(ids).items()) == list(zip(ids, states, strict=True)), "in the order given"
    assert store.status.states(iter(ids[:2])) == dict(zip(ids[:2], states[:2], strict=True))
    assert store.status.run_ids() == {each.run_id for each in (done, failed, started)}
    assert store.status.done() == {done.run_id}
    assert [store.status.is_done(run_id) for run_id in ids] == [False, False, True, False]
    assert store.status.failures().keys() == {failed.run_id}
    assert store.status.failure(started.run_id) is None


def test_a_done_run_has_no_failure(any_store: Store, run: RunConfig) -> None:
    fail(any_store, run)
    any_store.paths.table("results", run.run_id).write_bytes(b"written, and then its process was killed")
    assert any_store.status.states([run.run_id]) == {run.run_id: State.DONE}
    assert any_store.status.failures() == {}


def test_models_and_embeddings_kept_by_runs(any_store: Store, run: RunConfig) -> None:
    class Saves:
        def save(self, path: Path) -> None:
            with atomic_path(path) as temporary:
                temporary.write_text("weights")

    store, other = any_store, run.model_copy(update={"seed": 1})
    embeddings = records.SCHEMAS["embeddings"].empty_table()
    full = dataclasses.replace(outcome(run), classifier=Saves(), embeddings=embeddings)  # type: ignore[arg-type]
    store.save(full, run.run_id, keep_model=True)
    store.save(dataclasses.replace(full, embeddings=None), other.run_id)
    ids = [run.run_id, other.run_id]
    assert store.paths.model(run.run_id).read_bytes() == b"weights"
    assert store.status.kept("models", ids) == store.status.kept("embeddings", ids) == {run.run_id}
    assert store.status.kept("models", ids[1:]) == store.status.kept("embeddings", ids[1:]) == set()
    for kind in ("points", "predictions", "epochs", "results"):
        assert store.paths.table(kind, other.run_id).exists()


def test_the_configuration_of_another_run_is_refused(any_store: Store, run: RunConfig) -> None:
    with pytest.raises(StoreError, match=r"config\.json: cannot be read: No such file or directory"):
        any_store.status.config(run.run_id)
    any_store.begin(run)
    assert any_store.status.config(run.run_id) == run
    other = run.model_copy(update={"seed": 1})
    any_store.paths.config(other.run_id).write_text(run.model_dump_json())
    with pytest.raises(StoreError, match=rf"config\.json: is the configuration of {run.run_id}"):
        any_store.status.config(other.run_id)
    any_store.paths.config(other.run_id).write_text("{")
    with pytest.raises(StoreError, match=r"config\.json: damaged"):
        any_store.status.config(other.run_id)


def test_the_last_line_of_a_log(any_store: Store, run: RunConfig) -> None:
    log, task = any_store.paths.log(run.run_id), any_store.paths.search("s") / "fold-0" / "log.txt"
    assert (any_store.status.last_log_line(run.run_id), any_store.status.last_task_line("s", "fold-0")) == ("", "")
    log.write_bytes(b"")
    assert any_store.status.last_log_line(run.run_id) == ""
    log.write_bytes(b"first\n\xff last\n")
    assert any_store.status.last_log_line(run.run_id) == "\ufffd last"
    task.write_text("2026-01-01 10: s: network 1: epoch 2\n")
    assert any_store.status.last_task_line("s", "fold-0") == "s: network 1: epoch 2"


def test_an_attempt_excludes_others(any_store: Store) -> None:
    store = any_store

    def held() -> tuple[bool, bool]:
        return store.status.at_work("r"), store.status.searching("s")

    assert held() == (False, False)
    with store.attempt("r"):
        assert held() == (True, False)
        with store.search_attempt("s"), store.task_attempt("s", "t"):
            assert held() == (True, True)
            for again in (store.attempt("r"), store.search_attempt("s"), store.task_attempt("s", "t")):
                with pytest.raises(RunBusy), again:
                    pass
        with store.task_attempt("s", "t"):
            assert held() == (True, False)
    assert held() == (False, False)


def test_a_run_is_interrupted_if_no_process_executes_it_or_its_search(any_store: Store) -> None:
    store = any_store
    searched = build_run("digits", "dada-searched")
    working, idle, failed, missing = (build_run("digits", "baseline", seed=seed) for seed in range(4))
    for each in (searched, working, idle, failed):
        store.begin(each)
    fail(store, failed)
    ids = [each.run_id for each in (searched, working, idle, failed, missing)]
    with store.attempt(working.run_id), store.search_attempt(str(searched.search_id)):
        assert store.status.at_work_on(ids) == {working.run_id, searched.run_id}
        assert store.status.interrupted(ids) == {idle.run_id}
    assert store.status.at_work_on(ids) == set()
    assert store.status.interrupted(ids) == {searched.run_id, working.run_id, idle.run_id}


# ----- failures


def test_a_lost_node_is_counted_apart(any_store: Store, run: RunConfig) -> None:
    store, counts = any_store, []
    before = datetime.datetime.now(datetime.UTC)
    for cause in (Cause.NODE_LOST, Cause.KILLED, Cause.NODE_LOST, Cause.ERROR):
        store.begin(run)
        failure = store.record_failure(run.run_id, kind="E", last_line="e", traceback="t", cause=cause)
        counts.append((failure.attempts, failure.nodes_lost))
        assert store.status.failure(run.run_id) == failure
        assert failure.cause is cause
        assert failure.time >= before
    assert counts == [(0, 1), (1, 1), (1, 2), (2, 2)]
    store.begin(run)
    assert store.status.failure(run.run_id) is None
    store.forget_failures(run.run_id)
    assert fail(store, run) is None
    (failure,) = store.status.failures().values()
    assert (failure.attempts, failure.nodes_lost, failure.cause) == (1, 0, Cause.ERROR)
    store.forget_failures(run.run_id)
    assert store.status.states([run.run_id]) == {run.run_id: State.STARTED}
    store.forget_failures(run.run_id)


def test_a_link_in_place_of_a_failure_does_not_stop_the_next_attempt(store: Store, run: RunConfig) -> None:
    store.begin(run)
    Path(store.paths.failure(run.run_id)).symlink_to("/etc/hostname")
    failure = store.status.failure(run.run_id)
    assert failure is not None
    assert (failure.kind, failure.attempts) == ("Unreadable", 1)
    assert failure.last_line.startswith("failure.json is ")
    assert "damaged" not in failure.last_line, "it may be whole, and is not read"
    store.begin(run)
    assert store.paths.run(run.run_id).names() == {"config.json"}


# ----- policies


def policy(**provenance: object) -> PolicyFile:
    return PolicyFile.model_validate({"sub_policies": [[["Rotate", 0.9, 0.3]]], "provenance": provenance})


def test_a_policy_comes_back_by_its_search_or_its_content(any_store: Store) -> None:
    store, searched, read = any_store, policy(search_id="dada-1"), policy()
    assert store.policies.names() == set()
    store.policies.write("dada-1", searched)
    store.policies.write(f"file-{fingerprint(read)}", read)
    (store.root / "policies" / "notes.txt").write_text("x")
    assert store.policies.names() == {"dada-1", f"file-{fingerprint(read)}"}
    assert store.policies.read("dada-1") == searched
    assert store.policies.read(f"file-{fingerprint(read)}") == read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"dada-2\.json: no such policy; `autodo launch`"),
        ("{", r"dada-2\.json: damaged: JSON: .*; delete it, and it is made again"),
        ('{"sub_policies": [[["Rotat", 1, 1]]]}', r"dada-2\.json: damaged: sub_policies\.0\.0\.0: "),
        (policy(search_id="dada-1").model_dump_json(), r"is another policy \(dada-1\); delete it"),
        (policy().model_dump_json(), rf"is another policy \({fingerprint(policy())}\); delete it"),
    ],
)
def test_a_missing_damaged_or_wrong_policy_is_an_error(any_store: Store, content: str | None, message: str) -> None:
    if content is not None:
        any_store.paths.policy("dada-2").write_text(content)
    with pytest.raises(StoreError, match=message):
        any_store.policies.read("dada-2")


def test_the_log_of_a_finished_search_stays(any_store: Store) -> None:
    folder = any_store.paths.search("dada-1")
    for name in ("log.txt", "lease.json", "fold-0.json", "fold-0/log.txt", "fold-0/checkpoint.pt"):
        place = folder
        for part in name.split("/"):
            place = place / part
        place.write_text("x")
    any_store.policies.write("dada-1", policy(search_id="dada-1"))
    left = folder.names() - {"fold-0"}  # in an object store an empty folder is no folder
    assert left == {"log.txt", "lease.json"}
    assert (folder / "fold-0").names() == set()
    if folder.local is not None:
        assert not (folder / "fold-0").exists()


# ----- grids


def test_grids_are_sorted_by_name(any_store: Store) -> None:
    grid = load_grid("quickstart")
    for name in ("b", "c", "a"):
        any_store.save_grid(grid.model_copy(update={"name": name, "store": "elsewhere"}))
    (any_store.root / "grids" / "notes.txt").write_text("x")
    assert list(any_store.grids()) == ["a", "b", "c"]
    assert "store" not in any_store.paths.grid("a").read_bytes().decode(), "it lies where it was launched"


def test_a_folder_in_place_of_a_grid_is_an_error(store: Store) -> None:
    Path(store.paths.grid("folder")).mkdir()
    Path(store.paths.grid("link")).symlink_to("/etc/hostname")
    grids = store.grids()
    assert grids.keys() == {"folder"}, "links are not followed"
    assert isinstance(grids["folder"], ConfigError)


# ----- patience


class Slow:
    """A clock that only sleeping moves, and an action that fails until it is `mended`."""

    def __init__(self, mended: float, error: type[StoreError] = StoreError) -> None:
        self.now, self.mended, self.error = 1000.0, 1000.0 + mended, error
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def act(self) -> str:
        if self.now < self.mended:
            raise self.error("full")
        return "written"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Slow:
    slow = Slow(*request.param)
    monkeypatch.setattr(retry_module, "time", SimpleNamespace(monotonic=slow.monotonic, sleep=slow.sleep))
    return slow


@pytest.mark.parametrize("slow", [(100.0,)], indirect=True)
def test_a_failed_write_is_retried_at_growing_intervals(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "autodo"):
        assert retrying_storage(300.0)(slow.act) == "written"
    assert slow.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert [record.message for record in caplog.records][:2] == [
        "full; trying again for 300 s",
        "full; trying again for 300 s",
    ]
    assert caplog.records[-1].message == "full; trying again for 208 s"


@pytest.mark.parametrize("slow", [(1e9,)], indirect=True)
@pytest.mark.parametrize("patience", [20.0, 0.0])
def test_patience_ends(slow: Slow, patience: float) -> None:
    with pytest.raises(StoreError, match="full"):
        retrying_storage(patience)(slow.act)
    assert sum(slow.slept) == patience
    assert all(slow.slept)


@pytest.mark.parametrize("slow", [(1e9, StoreRefused)], indirect=True)
def test_a_refusal_is_not_retried(slow: Slow) -> None:
    with pytest.raises(StoreRefused):
        retrying_storage(300.0)(slow.act)
    assert slow.slept == []


@pytest.mark.parametrize("slow", [(0.0,)], indirect=True)
@pytest.mark.parametrize(("patience", "waited"), [(300.0, 10.0), (4.0, 4.0)])
def test_a_failure_is_given_up_sooner_than_a_result(
    slow: Slow, tmp_path: Path, run: RunConfig, patience: float, waited: float
) -> None:
    store = Store(tmp_path / "S", patience=patience).create()
    (tmp_path / "S" / "runs").rmdir()
    (tmp_path / "S" / "runs").write_text("a file in its place")
    with pytest.raises(StoreError, match="cannot be written"):
        fail(store, run)
    assert sum(slow.slept) == waited


@pytest.mark.parametrize("slow", [(0.0,)], indirect=True)
@pytest.mark.parametrize("what", ["begin", "save", "save_policy"])
def test_every_write_is_retried(slow: Slow, tmp_path: Path, run: RunConfig, what: str) -> None:
    store = Store(tmp_path / "S", patience=5.0).create()
    folder = tmp_path / "S" / {"begin": "runs", "save": "points", "save_policy": "policies"}[what]
    if folder.exists():
        folder.rmdir()
    folder.write_text("a file in its place")
    acts = {
        "begin": lambda: store.begin(run),
        "save": lambda: store.save(outcome(run), run.run_id),
        "save_policy": lambda: store.policies.write("dada-1", policy(search_id="dada-1")),
    }
    with pytest.raises(StoreError, match="cannot be written"):
        acts[what]()
    assert sum(slow.slept) == 5.0


def test_a_run_is_done_although_its_checkpoint_cannot_be_removed(store: Store, run: RunConfig) -> None:
    store.begin(run)
    (Path(store.paths.checkpoint(run.run_id)) / "full").mkdir(parents=True)
    store.save(outcome(run), run.run_id)
    assert store.status.done() == {run.run_id}


def test_saving_removes_all_parts_of_a_checkpoint(any_store: Store) -> None:
    run = build_run("digits", "baseline")
    any_store.begin(run)
    for name in ("checkpoint.pt", "checkpoint-points.bin", "notes.txt", "failure.json", "earlier_failure.json"):
        (any_store.paths.run(run.run_id) / name).write_text("x")
    any_store.save(outcome(run), run.run_id)
    assert any_store.paths.run(run.run_id).names() == {"config.json", "notes.txt"}
