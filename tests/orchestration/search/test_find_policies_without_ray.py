"""What is decided about searches before the runs of a launch, with tasks that are done in this process."""

import io
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from autodo.augment.policy_file import PolicyFile
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from orchestration.search.task_runner import search_in_store
from orchestration.store.run_state import Cause, State
from orchestration.store.store import Store
from tests.orchestration.conftest import SMALL, Launch
from tests.orchestration.search.test_task_runner import SEARCH


def searched(**overrides: object) -> RunConfig:
    return build_run("digits", "fast-autoaugment-searched", overrides={**SEARCH, **overrides})


RUN = searched()
SEARCH_ID = str(RUN.search_id)


@pytest.fixture
def pool(launch_here: Launch, actor: Any) -> Any:
    """The stand-in for the pool of actors, for this test; runs are only acted."""
    from orchestration.search import find_policies

    return find_policies.ActorPool


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> PolicyFile:
    """By a search in one process that nothing disturbs."""
    return search_in_store(RUN, Store(tmp_path_factory.mktemp("whole") / "store").create())


def log_of(store: Store, run: RunConfig = RUN) -> str:
    return (store.paths.search(str(run.search_id)) / "log.txt").read_bytes().decode()


def test_a_search_is_shared_by_its_runs_and_one_that_fails_takes_its_own_with_it(
    launch_here: Launch, pool: Any, actor: Any, store: Store, found: PolicyFile
) -> None:
    second, baseline = searched(**{"training.epochs": 3}), build_run("digits", "baseline", overrides=SMALL)
    bad = searched(**{"policy.search.images": 10})
    assert second.search_id == RUN.search_id
    out = io.StringIO()
    progress = launch_here([bad, RUN, second, baseline], store, out)
    output = out.getvalue()
    assert store.status.done() == {run.run_id for run in (RUN, second, baseline)}
    assert pool.done.count("fold-0") == pool.done.count("fold-1") == 1
    policy = store.policies.read(SEARCH_ID)
    assert (policy.sub_policies, policy.provenance["rewards"]) == (found.sub_policies, found.provenance["rewards"])
    assert "search failed: fast-autoaugment on digits 1-0.0 seed 0: the search has 10 images of 10 classes" in output
    assert output.count("search found: fast-autoaugment on digits 1-0.0 seed 0") == 1
    failure = store.status.failures()[bad.run_id]
    assert (failure.cause, failure.kind) == (Cause.ERROR, "DataError")
    assert failure.last_line.startswith("the search of its policy failed, see ")
    assert failure.last_line.endswith("or lower the imbalance ratio")
    assert "fold_worker.py" in failure.traceback
    assert progress.failed == {bad.run_id: failure.last_line}
    assert store.status.config(bad.run_id) == bad, "it can be retried"
    assert "failed: the search has 10 images" in log_of(store, bad)
    assert bad.run_id not in actor.began
    assert launch_here([bad], store).failed == {bad.run_id: failure.last_line}
    assert store.status.failures()[bad.run_id].attempts == 2


def test_a_task_whose_process_dies_is_done_again(
    launch_here: Launch, pool: Any, store: Store, found: PolicyFile
) -> None:
    pool.dies = {"fold-0": ["Worker unexpectedly exits"], "fold-1": ["its node has died"] * 3}
    out = io.StringIO()
    assert launch_here([RUN], store, out, retries=1).done == 1
    assert out.getvalue().count("search: the process of the run died without a word") == 1
    assert out.getvalue().count("the node of the run was lost or preempted; the task is done again") == 3
    assert store.policies.read(SEARCH_ID).sub_policies == found.sub_policies


def test_a_search_whose_processes_die_too_often_has_failed(launch_here: Launch, pool: Any, store: Store) -> None:
    pool.dies = {"fold-0": ["gone"], "fold-1": ["gone"]}
    progress = launch_here([RUN], store, retries=1)
    assert list(progress.failed) == [RUN.run_id]
    failure = store.status.failures()[RUN.run_id]
    assert (failure.kind, failure.cause, failure.attempts) == ("ProcessDied", Cause.KILLED, 1)
    assert "fold-1: the process of the run died without a word" in log_of(store)
    assert not store.status.searching(SEARCH_ID)
    assert launch_here([RUN], store, retries=1).done == 1


@pytest.mark.parametrize("finds", [True, False])
def test_a_search_of_another_launch_is_waited_for(
    finds: bool, launch_here: Launch, pool: Any, store: Store, found: PolicyFile
) -> None:
    out, holds = io.StringIO(), threading.Event()

    def other() -> None:
        with store.search_attempt(SEARCH_ID):
            holds.set()
            while "search in another launch" not in out.getvalue():
                waits.wait(0.001)
            if finds:
                store.policies.write(SEARCH_ID, found)

    waits, thread = threading.Event(), threading.Thread(target=other, daemon=True)
    thread.start()
    assert holds.wait(30)
    assert launch_here([RUN], store, out).done == 1
    thread.join(30)
    assert ("search found: fast-autoaugment on digits 1-0.0 seed 0: by another launch" in out.getvalue()) == finds
    assert bool(pool.done) != finds


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_searches_and_the_next_launch_goes_on(
    signum: signal.Signals, launch_here: Launch, pool: Any, actor: Any, store: Store, found: PolicyFile
) -> None:
    pool.before_each = staticmethod(lambda: signal.raise_signal(signum) if len(pool.done) == 2 else None)
    out, before = io.StringIO(), signal.getsignal(signum)
    progress = launch_here([RUN], store, out)
    assert (progress.stop_reason, progress.failed, actor.began) == ("interrupted", {}, [])
    assert "stopping the searches; the same command continues them" in out.getvalue()
    assert signal.getsignal(signum) == before
    assert (store.policies.names(), store.status.searching(SEARCH_ID)) == (set(), False)
    assert "stopped; the next attempt continues" in log_of(store)
    assert store.status.states([RUN.run_id]) == {RUN.run_id: State.MISSING}
    pool.before_each = staticmethod(lambda: None)
    assert launch_here([RUN], store).done == 1
    assert pool.done.count("fold-0") == pool.done.count("fold-1") == 1, "no network is trained again"
    assert store.policies.read(SEARCH_ID).sub_policies == found.sub_policies


def test_a_second_signal_stops_at_once(launch_here: Launch, pool: Any, store: Store) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    pool.before_each = staticmethod(twice)
    with pytest.raises(KeyboardInterrupt):
        launch_here([RUN], store)
    assert not store.status.searching(SEARCH_ID)


def test_a_launch_without_any_time_searches_nothing(launch_here: Launch, pool: Any, actor: Any, store: Store) -> None:
    out = io.StringIO()
    progress = launch_here([RUN], store, out, seconds=0.0)
    assert (progress.stop_reason, pool.done, actor.began) == ("out of time", [], [])
    assert "the time budget is over: the searches stop, and the same command continues them" in out.getvalue()


def test_searches_that_wait_for_room_are_reported_once(
    launch_here: Launch, pool: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.search import find_policies

    monkeypatch.setattr(find_policies, "IDLE_SECONDS", 0.0)
    out = io.StringIO()

    class Once(io.StringIO):
        """There is room when a message says that there is none."""

        def write(self, text: str) -> int:
            pool.room = pool.room or "no node has had room for a search" in text
            return out.write(text)

    pool.room = False
    assert launch_here([RUN], store, Once()).done == 1
    assert out.getvalue().count("no node has had room for a search for 0 s: a search needs more") == 1


def test_the_folder_of_a_search_that_was_found_holds_its_log(launch_here: Launch, pool: Any, store: Store) -> None:
    launch_here([RUN], store)
    folder = Path(str(store.paths.search(SEARCH_ID)))
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"log.txt"}
    assert log_of(store).rstrip().endswith("found")


def test_a_population_is_searched_like_any_other(launch_here: Launch, pool: Any, store: Store) -> None:
    small = {"images": 200, "epochs": 4, "population": 2, "perturb_every": 2, "model": "small-cnn"}
    run = build_run("digits", "pba", overrides={f"policy.search.{name}": value for name, value in small.items()})
    pool.dies = {"member-1-epoch-4": ["Worker unexpectedly exits"]}
    assert launch_here([run], store, retries=1).done == 1
    assert pool.done == [f"member-{number}-epoch-{epoch}" for epoch in (2, 4) for number in (0, 1)]
    assert store.policies.read(str(run.search_id)).schedule[0].start == 0


def test_trajectories_are_trained_side_by_side_and_again_if_one_dies(
    launch_here: Launch, pool: Any, store: Store, tmp_path: Path
) -> None:
    small = {"images": 200, "epochs": 2, "trajectories": 2, "model": "small-cnn"}
    run = build_run("digits", "ohl", overrides={f"policy.search.{name}": value for name, value in small.items()})
    pool.dies = {"trajectory-0-round-2": ["Worker unexpectedly exits"]}
    assert launch_here([run], store, retries=1).done == 1
    assert sorted(pool.done) == [f"trajectory-{number}-round-{done}" for number in (0, 1) for done in (1, 2)]
    undisturbed = search_in_store(run, Store(tmp_path / "other").create())
    assert store.policies.read(str(run.search_id)).schedule == undisturbed.schedule
