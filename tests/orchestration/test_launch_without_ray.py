"""What a launch decides: retries, ends, waiting, the time budget and signals, with runs that are only acted."""

import io
import re
import signal
from pathlib import Path

import pytest

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.errors import ConfigError, DataError, TrainingDiverged
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning import run_queue
from orchestration.planning.run_queue import RunQueue
from orchestration.store import patience
from orchestration.store.run_state import Cause, RunBusy, State
from orchestration.store.store import Store
from tests.orchestration.conftest import SMALL, Launch
from tests.orchestration.in_process import Actor, ProcessDied, Tuner


def small(method: str = "baseline", seed: int = 0, **overrides: object) -> RunConfig:
    return build_run("digits", method, seed=seed, overrides={**SMALL, **overrides})


def test_real_runs_end_as_they_do_on_ray(launch_here: Launch, store: Store) -> None:
    """The stand-in for Tune itself: real training, with one run that diverges."""
    bad, good = small(**{"training.lr": 1e20}), [small(seed=seed) for seed in range(3)]
    out = io.StringIO()
    progress = launch_here([bad, *good], store, out)
    assert (progress.done, list(progress.failed)) == (3, [bad.run_id])
    assert store.status.done() == {run.run_id for run in good}
    assert "failed: digits 1-0.0 baseline seed 0: the train loss is not finite" in out.getvalue()
    assert "3 of 4 runs done, 0 running, 1 failed" in out.getvalue()


def test_every_run_is_taken_once_and_two_are_at_work_at_a_time(launch_here: Launch, store: Store, actor: Actor) -> None:
    runs, at_work = [small(seed=seed) for seed in range(5)], []

    def look() -> None:
        at_work.append(sum(store.status.states([run.run_id])[run.run_id] is State.STARTED for run in runs))

    actor.scripts = {run.run_id: [[0, look, 1, 2]] for run in runs}
    progress = launch_here(runs, store)
    assert sorted(actor.began) == sorted(run.run_id for run in runs)
    assert (progress.done, progress.attempts_failed, progress.stop_reason) == (5, 0, None)
    assert max(at_work) == 2


@pytest.mark.parametrize(("option", "most"), [(None, 2), (1, 1), (9, 2)])
def test_max_concurrent_limits_the_runs_at_work(
    launch_here: Launch, store: Store, actor: Actor, option: int | None, most: int
) -> None:
    runs = [small(seed=seed) for seed in range(4)]
    seen: set[int] = set()

    def look() -> None:
        seen.add(len(actor.began) - len(store.status.done()))

    actor.scripts = {run.run_id: [[0, look, 1, look, 2]] for run in runs}
    assert launch_here(runs, store, max_concurrent=option).done == 4
    assert max(seen) == most


def test_runs_get_the_options_of_the_launch(
    launch_here: Launch, store: Store, actor: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    resources = ResourcesConfig(cpus=2, checkpoint_steps=7, lambda_storage="host")
    launch_here([small()], store, resources=resources, data_dir="data", keep=("embeddings",))
    (given,) = actor.options
    assert given.launch is not None
    assert (len(given.launch.id) > 0, given.launch.slots) == (True, 1)
    assert (given.data_dir, given.keep) == (str(tmp_path / "data"), ("embeddings",))
    assert (given.cpus, given.checkpoint_steps, given.lambda_storage) == (2, 7, "host")
    assert given.loader_workers == 2, "by default every cpu of several decodes"


def test_a_run_whose_process_dies_every_time_is_given_up_and_the_others_go_on(
    launch_here: Launch, store: Store, actor: Actor
) -> None:
    bad, good = small(), [small(seed=seed) for seed in (1, 2)]
    actor.scripts = {bad.run_id: [[0, ProcessDied("Worker unexpectedly exits")], [1, ProcessDied("End of file.")]]}
    out = io.StringIO()
    progress = launch_here([bad, *good], store, out, retries=1)
    assert actor.began.count(bad.run_id) == 2
    assert (list(progress.failed), progress.attempts_failed) == ([bad.run_id], 2)
    assert store.status.done() == {run.run_id for run in good}
    failure = store.status.failures()[bad.run_id]
    assert (failure.kind, failure.cause, failure.attempts) == ("ProcessDied", Cause.KILLED, 2)
    assert failure.traceback == "End of file."
    lines = [line for line in out.getvalue().splitlines() if line.startswith("failed: digits 1-0.0 baseline seed 0: ")]
    assert [line.endswith("; it is tried again") for line in lines] == [True, False]
    assert all("the process of the run died without a word" in line for line in lines)


def test_a_run_that_fails_comes_last_and_is_done_in_the_end(launch_here: Launch, store: Store, actor: Actor) -> None:
    bad, *good = runs = [small(seed=seed) for seed in range(4)]
    actor.scripts = {bad.run_id: [[ProcessDied()]]}
    progress = launch_here(runs, store, max_concurrent=1)
    assert actor.began == [bad.run_id, *(run.run_id for run in good), bad.run_id]
    assert (progress.done, progress.failed, progress.attempts_failed) == (4, {}, 1)
    assert store.status.failures() == {}


@pytest.mark.parametrize(
    ("error", "retries", "attempts"),
    [
        (TrainingDiverged("train loss", 0, 0), 2, 1),
        (DataError("no images"), 2, 3),
        (DataError("no images"), 0, 1),
        (RuntimeError("CUDA error"), 1, 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_number_of_retries_for_each_error(
    launch_here: Launch, store: Store, actor: Actor, error: Exception, retries: int, attempts: int
) -> None:
    bad, good = small(), small(seed=1)
    actor.scripts = {bad.run_id: [[0, error]] * 5}
    progress = launch_here([bad, good], store, retries=retries)
    assert actor.began.count(bad.run_id) == attempts
    assert (progress.done, progress.attempts_failed) == (1, attempts)
    assert progress.failed == {bad.run_id: store.status.failures()[bad.run_id].last_line}
    assert str(error) in progress.failed[bad.run_id]
    assert store.status.failures()[bad.run_id].attempts == attempts


def test_a_lost_node_is_never_held_against_a_run(launch_here: Launch, store: Store, actor: Actor) -> None:
    run, out = small(), io.StringIO()
    actor.scripts = {run.run_id: [[0, ProcessDied("The actor died because its node has died.")]] * 5}
    progress = launch_here([run], store, out, retries=0)
    assert (progress.done, progress.failed) == (1, {})
    assert out.getvalue().count("the node of the run was lost or preempted; it is tried again") == 5


@pytest.mark.parametrize(("error", "processes"), [(DataError("no images"), 1), (RuntimeError("CUDA error"), 2)])
def test_a_process_with_an_unforeseen_error_takes_no_other_run(
    launch_here: Launch, without_ray: type[Tuner], store: Store, actor: Actor, error: Exception, processes: int
) -> None:
    bad, good = small(), [small(seed=seed) for seed in range(1, 4)]
    actor.scripts = {bad.run_id: [[0, error]]}
    without_ray.room = 1
    progress = launch_here([bad, *good], store, retries=0)
    assert (progress.done, list(progress.failed)) == (3, [bad.run_id])
    assert progress.attempts_failed == 1, "the end of the process is no second failure"
    assert without_ray.processes == processes


def test_a_busy_run_is_left_to_the_other_process_in_the_end(
    launch_here: Launch, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_queue, "BUSY_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(patience, "BUSY_SECONDS", 0.2)
    run, out = small(), io.StringIO()
    with store.attempt(run.run_id):
        progress = launch_here([run], store, out)
    assert (progress.busy, progress.done, progress.failed) == ({run.run_id}, 0, {})
    assert "1 at work in another launch" in out.getvalue()
    assert store.status.failures() == {}


def test_a_run_released_by_another_process_is_run(
    launch_here: Launch, store: Store, actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_queue, "BUSY_PAUSE_SECONDS", 0.0)
    run = small()
    actor.scripts = {run.run_id: [[RunBusy("elsewhere")], [RunBusy("elsewhere")]]}
    progress = launch_here([run], store)
    assert len(actor.began) == 3
    assert (progress.busy, progress.done, progress.attempts_failed) == (set(), 1, 0)


# ----- the end


def test_at_the_end_of_the_time_budget_runs_end_their_epoch(
    launch_here: Launch, store: Store, actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [small(seed=seed) for seed in range(4)]
    over: list[bool] = []
    actor.scripts = {run.run_id: [[0, lambda: over.append(True), 1, 2]] for run in runs[:2]}
    out = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(RunQueue, "out_of_time", property(lambda _: bool(over)))
        progress = launch_here(runs, store, out)
    begun = {run.run_id for run in runs[:2]}
    assert (progress.stop_reason, progress.stopped, progress.done) == ("out of time", begun, 0)
    assert set(actor.began) == set(actor.stopped) == begun, "the others have not begun"
    assert out.getvalue().count("the time budget is over: each run ends its epoch and leaves a checkpoint") == 1
    assert "stopping after this epoch" in out.getvalue()
    assert launch_here(runs, store).done == 4


def test_a_run_in_its_last_epoch_is_done_although_the_time_is_over(
    launch_here: Launch, store: Store, actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, over = small(), []
    actor.scripts = {run.run_id: [[0, 1, lambda: over.append(True), 2]]}
    monkeypatch.setattr(RunQueue, "out_of_time", property(lambda _: bool(over)))
    progress = launch_here([run], store)
    assert (progress.done, progress.stopped) == (1, set())


def test_a_launch_without_any_time_starts_nothing(launch_here: Launch, store: Store, actor: Actor) -> None:
    progress = launch_here([small()], store, seconds=0.0)
    assert (progress.stop_reason, progress.stopped, actor.began) == ("out of time", set(), [])


def test_a_launch_with_much_time_ends_by_itself(launch_here: Launch, store: Store, actor: Actor) -> None:
    progress = launch_here([small()], store, seconds=1e6)
    assert (progress.stop_reason, progress.done) == (None, 1)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_runs_end_their_epoch(
    launch_here: Launch, store: Store, actor: Actor, signum: signal.Signals
) -> None:
    first, second, third = runs = [small(seed=seed, **{"training.epochs": 9}) for seed in range(3)]
    actor.scripts = {first.run_id: [[0, lambda: signal.raise_signal(signum), 1, 2]]}
    out, before = io.StringIO(), [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    progress = launch_here(runs, store, out)
    assert progress.stop_reason == "interrupted"
    assert progress.stopped == {first.run_id, second.run_id}
    assert third.run_id not in actor.began
    assert sorted(actor.stopped) == sorted(progress.stopped)
    assert out.getvalue().count("stopping: each run ends its epoch and leaves a checkpoint; once more") == 1
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(launch_here: Launch, store: Store, actor: Actor, signum: signal.Signals) -> None:
    run = small()

    def twice() -> None:
        signal.raise_signal(signum)
        signal.raise_signal(signum)

    actor.scripts = {run.run_id: [[0, twice, 1, 2]]}
    with pytest.raises(KeyboardInterrupt):
        launch_here([run], store)
    assert store.status.states([run.run_id]) == {run.run_id: State.STARTED}
    assert store.status.failures() == {}


def test_a_run_that_fails_while_all_stop_is_for_the_next_launch(
    launch_here: Launch, store: Store, actor: Actor
) -> None:
    run, out = small(), io.StringIO()

    def stop() -> None:
        signal.raise_signal(signal.SIGINT)

    actor.scripts = {run.run_id: [[0, stop, ProcessDied()]]}
    progress = launch_here([run], store, out)
    assert (progress.stopped, progress.failed, actor.began) == ({run.run_id}, {}, [run.run_id])
    assert "the process of the run died without a word" in out.getvalue()
    assert "; the next launch tries it again" in out.getvalue()
    assert store.status.failures()[run.run_id].attempts == 1


# ----- room


def test_runs_without_room_are_reported_once(
    launch_here: Launch, without_ray: type[Tuner], store: Store, actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.execution import supervisor

    monkeypatch.setattr(supervisor, "IDLE_SECONDS", 0.0)
    without_ray.room = 0
    out, resources = io.StringIO(), ResourcesConfig(cpus=64, memory=2**50)
    monkeypatch.setattr(RunQueue, "out_of_time", property(lambda _: "no node" in out.getvalue()))
    # A cluster that is not ours may yet grow such a node.
    progress = launch_here([small()], store, out, address="auto", resources=resources)
    assert (progress.done, progress.failed, progress.stop_reason) == (0, {}, "out of time")
    told = "no node has had room for a run for 0 s: a run needs 64 CPUs, 0 GPUs and 1048576.0 GiB of memory, and "
    assert out.getvalue().count(told) == 1
    assert actor.began == []


def test_resources_that_this_machine_lacks_are_an_error(launch_here: Launch, store: Store, actor: Actor) -> None:
    told = re.escape("a run needs 64 CPUs and 0 GPUs, and the nodes have 2 CPUs and 0 GPUs; see --cpus-per-run")
    with pytest.raises(ConfigError, match=told):
        launch_here([small()], store, resources=ResourcesConfig(cpus=64))
    assert actor.began == []


def test_a_failed_start_of_ray_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration.ray_cluster import cluster as clusters

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen for many reasons.")

    monkeypatch.setattr(clusters.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(clusters.ray, "shutdown", lambda: None)
    monkeypatch.setattr(clusters.ray, "init", init)
    told = "Ray cannot be started on this machine: The current node timed out during startup; if the machine is busy"
    with pytest.raises(ConfigError, match=told), clusters.running_ray(clusters.Cluster(), tmp_path):
        pass
